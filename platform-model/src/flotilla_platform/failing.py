"""How an error finds its exit status, and the one line in which it is told."""

from collections.abc import Iterator

from flotilla.embedded import EmbeddedError
from flotilla.errors import Conflict, Corrupt, KernelError, Rejected, Unavailable
from flotilla.rebuild import EventRefused
from flotilla.shadow import NoSuchPlace
from flotilla.stores.moving import NotTheSame
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.loading import ModelInvalid


class ServiceFailed(Failure):
    """A service did not start, did not stop cleanly, or ended while nobody had asked it to."""

    def __init__(self, service: str, what: str, cause: BaseException | None) -> None:
        causes = list(_leaves(cause)) if cause is not None else []
        codes = set(map(_code_of, causes)) & {ExitCode.PORT_TAKEN, ExitCode.DATA_DIRECTORY}
        code = min(filter(None, codes), default=ExitCode.SERVICE_FAILED)
        said = "; ".join(dict.fromkeys(_said(leaf) for leaf in causes)) or "it said nothing"
        super().__init__(code, f"the service {service!r} {what}: {said}")
        self.passes = bool(causes) and all(isinstance(leaf, Unavailable) for leaf in causes)
        """Whether the same may work a moment later: only something else was not there."""


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
    NotTheSame: ExitCode.DIFFERENT,
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
