"""From a request on the bus to a decision: what every command handler needs, once."""

import hashlib

from pydantic import BaseModel, ValidationError

from flotilla.aggregate import Claim
from flotilla.bus import Context, Request
from flotilla.errors import Rejected
from flotilla.store import ClaimKey

IDEMPOTENCY_KEY_LENGTH_MAX = 255


def parse[M: BaseModel](model: type[M], request: Request) -> M:
    """Return the contract message in a request's body.

    Raises:
        Rejected: it is not one (`invalid-request`); says which field and why.

    """
    try:
        return model.model_validate_json(request.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"]) or "the body"
        raise Rejected(f"{where}: {first['msg']}", code="invalid-request") from None


def claim_for(request: Request, command: BaseModel, *, scope: str, ttl_s: int) -> Claim:
    """Return what makes this command's execution unique: its key, and a fingerprint of its content.

    The content is the subject and the validated command, so two bodies that mean the same are the same.

    Raises:
        Rejected: the request carries no usable idempotency key.

    """
    key = request.context.idempotency_key
    if not key:
        raise Rejected("a command carries an idempotency key", code="idempotency-key-missing")
    if len(key) > IDEMPOTENCY_KEY_LENGTH_MAX:
        raise Rejected(
            f"an idempotency key has at most {IDEMPOTENCY_KEY_LENGTH_MAX} characters",
            code="idempotency-key-invalid",
        )
    content = f"{request.subject}\n{command.model_dump_json()}".encode()
    claim = ClaimKey(request.context.tenant, scope, key)
    return Claim(claim, hashlib.sha256(content).digest(), ttl_s)


def event_metadata(context: Context) -> dict[str, str]:
    """Return what travels with every event that a request leads to."""
    fields = {
        "correlation": context.correlation_id,
        "causation": context.causation_id,
        "traceparent": context.traceparent,
    }
    return {name: value for name, value in fields.items() if value}
