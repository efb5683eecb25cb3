-- Who folds a log, and how far it said it was: what somebody has not read is not pruned.
create table log_reader (
    log text collate "C" not null,
    reader text collate "C" not null,
    "offset" bigint not null,
    seen_at timestamptz not null,
    primary key (log, reader)
) with (fillfactor = 50);
