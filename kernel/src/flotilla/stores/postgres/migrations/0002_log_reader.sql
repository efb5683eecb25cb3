-- Who folds a log, and how far it said it was: what somebody has not read is not pruned.
create table log_reader (
    log text collate "C" not null,
    reader text collate "C" not null,
    "offset" bigint not null,
    seen_at timestamptz not null,
    primary key (log, reader)
) with (fillfactor = 50);

-- How many entries wait changes from all to none while a backlog drains, and a plan is kept. Made while
-- all of them waited it walked the primary key, through everything that has its offset by now: without
-- statistics the planner takes the index of those that wait, which is right at any time.
alter table event_outbox alter column "offset" set statistics 0;
