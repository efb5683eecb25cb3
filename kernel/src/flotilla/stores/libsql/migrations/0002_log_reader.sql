-- Who folds a log, and how far it said it was: what somebody has not read is not pruned.
create table log_reader (
    log text not null,
    reader text not null,
    "offset" integer not null,
    seen_at integer not null, -- microseconds since 1970, UTC
    primary key (log, reader)
) strict;
