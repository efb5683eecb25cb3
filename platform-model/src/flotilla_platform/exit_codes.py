"""What the exit status of `flotilla` means, and how a failure finds its number.

The numbers are stable: scripts, supervisors and tests depend on them.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Self

from flotilla.embedded import EmbeddedError
from flotilla.errors import Conflict, Corrupt, KernelError, Rejected, Unavailable
from flotilla.rebuild import EventRefused
from flotilla.shadow import NoSuchPlace
from flotilla_platform.loading import ModelInvalid


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
    DIFFERENT = 13, "a read model is not what its log makes of it, or could not be compared"
    EVENT_REFUSED = 14, "a projection cannot fold an event: it is named; nothing was swapped"
    REFUSED = 15, "the projection cannot do that, or somebody else is doing it now"
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
    INTERRUPTED = 130, "Ctrl-C (for `up` a second one) ended it at once; the data is safe"


class Failure(Exception):
    """What a command has to tell instead of its result: lines for people, a status for programs."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServiceFailed(Failure):
    """A service did not start, did not stop cleanly, or ended while nobody had asked it to."""

    def __init__(self, service: str, what: str, cause: BaseException | None) -> None:
        causes = list(_leaves(cause)) if cause is not None else []
        codes = set(map(_code_of, causes)) & {ExitCode.PORT_TAKEN, ExitCode.DATA_DIRECTORY}
        code = min(filter(None, codes), default=ExitCode.SERVICE_FAILED)
        said = "; ".join(dict.fromkeys(_said(leaf) for leaf in causes)) or "it said nothing"
        super().__init__(code, f"the service {service!r} {what}: {said}")


def failure_of(error: BaseException) -> Failure:
    """Return how `error` is told; one that nobody expected becomes `UNEXPECTED`."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ModelInvalid):
        return Failure(ExitCode.MODEL_INVALID, str(error))
    leaf = next(_leaves(error))
    code = _code_of(leaf)
    if code is None:
        return Failure(ExitCode.UNEXPECTED, f"{_said(leaf)} (--debug shows where)")
    return Failure(code, _one_line(str(leaf)))


_FAMILIES: dict[type[KernelError], ExitCode] = {
    EventRefused: ExitCode.EVENT_REFUSED,
    NoSuchPlace: ExitCode.NOT_FOUND,
    Rejected: ExitCode.REFUSED,
    Conflict: ExitCode.REFUSED,
    Corrupt: ExitCode.DATA_DIRECTORY,
}
"""What a kernel error means for whoever called; the first kind that fits."""


def _code_of(error: BaseException) -> ExitCode | None:
    """Return the status of an error that is known by its class or by the `code` it carries."""
    if isinstance(error, EmbeddedError) and error.code.startswith("data-directory-"):
        return ExitCode.DATA_DIRECTORY
    if getattr(error, "code", None) == "port-taken":
        return ExitCode.PORT_TAKEN
    if isinstance(error, EmbeddedError | Unavailable):
        return ExitCode.SERVER_FAILED
    for kind, code in _FAMILIES.items():
        if isinstance(error, kind):
            return code
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Return what really happened: exception groups only say where it was noticed."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _said(error: BaseException) -> str:
    """Return an error as one line; its class is named unless it has a code, and so a message."""
    text = _one_line(str(error))
    named = type(error).__name__
    return text if hasattr(error, "code") and text else f"{named}: {text}" if text else named


def _one_line(text: str) -> str:
    return " ".join(text.split())
