"""How much one question may ask for. Apart from who answers, so that `--help` need not import that."""

EVENTS_MAX = 10_000
"""How many events one answer may have."""
LIMIT_EVENTS = 100
"""How many it has when nobody says."""
VERSION_MAX = 2**53 - 1
LAG_MAX_S = 10.0
"""How far behind a log or a projection may be before `status` calls the fleet unhealthy."""
PARTITIONS_MAX = 64
"""As `flotilla.partition` has it; a test holds the two together."""
