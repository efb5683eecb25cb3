-- Move streams to [[stream, version, snapshot, snapshot_schema, snapshot_version] …].
insert into aggregate as a (stream, version, snapshot, snapshot_schema, snapshot_version)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(?1) where true
on conflict (stream) do update
set version = excluded.version,
    snapshot = coalesce(excluded.snapshot, a.snapshot),
    snapshot_schema = coalesce(excluded.snapshot_schema, a.snapshot_schema),
    snapshot_version = coalesce(excluded.snapshot_version, a.snapshot_version)
