"""A bus within one process. A product, not a mock: it passes the same suite as that over NATS."""

import asyncio

import structlog

from flotilla.bus import Answer, Handler, Request, error_fields, error_from_fields
from flotilla.errors import KernelError, Rejected, Unavailable

BODY_SIZE_MAX_BYTES = 1_000_000
"""What a request or an answer may carry; with its headers it fits NATS's default of 1 MiB."""
ERROR_MESSAGE_MAX_CHARS = 8_000

log = structlog.get_logger()


class LocalBus:
    """Calls the handler. What could not travel is not passed on here either.

    Errors arrive as their family, bodies are limited, a handler is cancelled at the deadline, and
    its bugs become `Unavailable` with code `internal`: whether it did something is not known.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    async def serve(self, subject: str, handler: Handler) -> None:
        """Answer requests to `subject` with `handler`; within one process the last one counts."""
        self._handlers[subject] = handler

    def serves(self, subject: str) -> bool:
        """Return whether `subject` is answered in this process."""
        return subject in self._handlers

    async def request(self, request: Request) -> Answer:
        """Return the handler's answer; raises as `Bus.request` says."""
        subject, timeout_s = request.subject, request.context.timeout_s
        handler = self._handlers.get(subject)
        if handler is None:
            raise Unavailable(f"nobody answers {subject}")
        refuse_oversize(request.body, f"a request to {subject}")
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                answer = await _uncancelled(handler, request)
            refuse_oversize(answer.body, f"the answer of {subject}")
        except KernelError as error:
            raise _as_travelled(error) from error
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise Unavailable(f"no answer from {subject} within {timeout_s:g} s") from error
            log.exception(
                "bus.handler_failed", subject=subject, correlation=request.context.correlation_id
            )
            raise Unavailable(f"the handler of {subject} failed", code="internal") from error
        return answer


def refuse_oversize(body: bytes, what: str) -> None:
    """Raise `Rejected` (`body-too-large`) for a body that no bus carries."""
    if len(body) > BODY_SIZE_MAX_BYTES:
        raise Rejected(
            f"{what} has {len(body)} bytes, more than {BODY_SIZE_MAX_BYTES}", code="body-too-large"
        )


async def _uncancelled(handler: Handler, request: Request) -> Answer:
    """Call `handler`; a cancellation that nobody asked for is a bug of its own.

    It comes from awaiting something that was cancelled elsewhere, and would end whoever called us.
    """
    try:
        return await handler(request)
    except asyncio.CancelledError as stray:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("awaited something that was cancelled") from stray


def _as_travelled(error: KernelError) -> KernelError:
    """Return the error as it is after a journey: family, code, a message of finite length."""
    fields = error_fields(error)
    return error_from_fields(fields | {"message": fields["message"][:ERROR_MESSAGE_MAX_CHARS]})
