"""What the exit status of `flotilla` means; `failing` says which error has which.

The numbers are stable: scripts, supervisors and tests depend on them. Imports nothing, since
`flotilla --help` prints them.
"""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Every exit status, and what it tells the caller."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Make a member from its number and its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "done; a fleet that was asked to stop has stopped"
    UNEXPECTED = 1, "a mistake of flotilla's own: run again with --debug and report it"
    USAGE = 2, "the command line is wrong: unknown topology, bad port, unknown option"
    MODEL_INVALID = 3, "the platform model has mistakes: each is named with file:line:column"
    DATA_DIRECTORY = 4, "the data directory is in use, damaged or another topology's"
    PORT_TAKEN = 5, "a port is used by another program"
    SERVER_FAILED = 6, "an embedded server is missing, or did not start"
    NOT_RUNNING = 7, "nothing is running in this data directory"
    UNHEALTHY = 8, "it runs, and something is wrong or too far behind"
    NOT_STOPPED = 9, "it did not stop within 5 s and was killed; the data is safe"
    SERVICE_FAILED = 10, "a service did not start, or its work ended unexpectedly"
    NOT_FOUND = 11, "there is no such stream, version, projection, parked event, shadow or old view"
    DIFFERENT = 13, "a read model or a copy is not what it should be, or could not be compared"
    EVENT_REFUSED = 14, "a projection cannot fold an event: it is named; nothing was swapped"
    REFUSED = 15, "it cannot be done to this projection or store, or somebody else is doing it now"
    SETTING_INVALID = 16, "an environment variable is missing, unknown or malformed: each is named"
    TOPOLOGY_INVALID = 20, "a topology of the model cannot be run (`flotilla model check`)"
    DEPENDENCIES_WRONG = 21, "services depend on each other otherwise than their policies say"
    CONTRACTS_DRIFTED = 22, "generated contracts, or bytes that were really sent, are not as agreed"
    INSECURE = 23, "a secret is in plain, or somebody may more than it needs, or without limit"
    UNOBSERVABLE = 24, "a service, a deployable or an alert does not show what it must"
    CODE_DIFFERS = 25, "the model and the code of a service say different things"
    ARTIFACTS_STALE = 30, "deploy/ is not what the model says (`flotilla model generate`)"
    SECRET_REFUSED = 40, "a secret, a secret file or a key is refused: the line ends with a code"
    SECRETS_UNSAFE = (
        41,
        "secrets are missing, stale or in plain: each is named with file:line:column",
    )
    AUDIT_BROKEN = 42, "an audit entry is missing, changed, inserted or out of order: it is named"
    INTERRUPTED = 130, "Ctrl-C (for `up` a second one) ended it at once; the data is safe"


class Failure(Exception):
    """What a command has to tell instead of its result: lines for people, a status for programs."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
