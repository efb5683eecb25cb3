"""What tenants can be told, over the bus. No rule lives here; what is personal is sealed here.

Plain text of people comes in with commands and goes out with answers, and is nowhere between: what is
decided, stored and remembered for retries holds sealed text. A retry is answered from what was stored,
so the token of an invitation is in there too, sealed under a key of the invitation's own.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from hashlib import sha256

from flotilla import (
    Answer,
    Clock,
    Decision,
    Done,
    Handler,
    IdSource,
    Rejected,
    Request,
    StreamId,
    Version,
)
from flotilla.commands import claim_for, event_metadata, parse
from flotilla.privacy import Vault
from flotilla_contracts.tenant import (
    AcceptInvitation,
    AddMember,
    CreateTenant,
    EraseMember,
    EraseTenant,
    InviteMember,
    TenantCommand,
    token_of,
)
from flotilla_contracts.tenant_events import (
    SEPARATOR,
    TenantEvent,
)
from svc_tenant.answers import Opener, answer, reply_to
from svc_tenant.domain.asked import Asked, Drawn
from svc_tenant.domain.rules import decide
from svc_tenant.domain.tenant import Tenant
from svc_tenant.streams import AGGREGATE, subject_of, tenant_stream

_PLACEHOLDER = f"sealed:1:{'0' * 32}:{'0' * 38}"
SECRET_BYTES = 32
"""So many random bytes has the token of an invitation: nobody guesses one."""

Erase = Callable[
    [EraseMember | EraseTenant, StreamId, Decision[Tenant, TenantEvent]], Awaitable[Answer]
]


@dataclass(frozen=True, slots=True)
class Tenants:
    """All commands. `settle` makes a decision durable (see `flotilla.lanes`); `erase` also destroys."""

    settle: Callable[[StreamId, Decision[Tenant, TenantEvent]], Awaitable[Done]]
    erase: Erase
    look: Callable[[StreamId], Awaitable[tuple[Tenant, Version]]]
    vault: Vault
    clock: Clock
    ids: IdSource
    entropy: Callable[[int], bytes]
    idempotency_ttl_s: int
    invitation_ttl_s: int

    def command_handler(self, kind: type[TenantCommand]) -> Handler:
        """Return what answers commands of one kind."""

        async def handle(request: Request) -> Answer:
            return await self.answer(parse(kind, request), request)

        return handle

    async def answer(self, command: TenantCommand, request: Request) -> Answer:
        """Decide `command`, make what follows durable, and answer."""
        tenant = request.context.tenant
        stream = tenant_stream(tenant)
        asked, token = Asked(command, tenant, self.clock.now()), None
        refusal = await self._refusal(asked, stream)
        if refusal is None:
            try:
                asked, token = await self._sealed(asked)
            except Rejected as erased:  # but a retry of what was done before is answered
                refusal = erased
        decision = Decision(
            decide=partial(decide, asked) if refusal is None else partial(_refuse, refusal),
            reply=partial(reply_to, asked, token),
            metadata=event_metadata(request.context),
            # Of what was asked: sealed text is another one each time.
            claim=claim_for(request, command, scope=AGGREGATE, ttl_s=self.idempotency_ttl_s),
            expected=request.context.expected_version,
        )
        if isinstance(command, EraseMember | EraseTenant):
            return await self.erase(command, stream, decision)
        done = await self.settle(stream, decision)
        reply = command.reply.model_validate_json(done.reply)
        return answer(
            await Opener(self.vault).tell(tenant, reply), done.version, replayed=done.replayed
        )

    async def _refusal(self, asked: Asked, stream: StreamId) -> Rejected | None:
        """Return why a command with personal text is refused, before anything is sealed.

        To seal makes a key, which is kept for ever: whoever is refused must not make any. A retry of
        what was done is answered from what was stored, refused by now or not.
        """
        rough = _rough(asked)
        if rough is None:
            return None
        try:
            decide(rough, (await self.look(stream))[0])
        except Rejected as refusal:
            return refusal
        return None

    async def _sealed(self, asked: Asked) -> tuple[Asked, str | None]:
        """Return the command with its personal text sealed, and the sealed token if it makes one."""
        command = asked.command
        seal = partial(self.vault.seal, asked.tenant_id)
        match command:
            case CreateTenant(owner_id=user, owner_email=str(text)):
                sealed = {"owner_email": await seal(user, text)}
            case AddMember(user_id=user) | AcceptInvitation(actor_id=user):
                texts = {"email": command.email, "display_name": command.display_name}
                sealed = {name: await seal(user, text) for name, text in texts.items() if text}
            case InviteMember(email=text):
                return await self._drawn(asked, command, text)
            case _:
                return asked, None
        return _shown(replace(asked, command=command.model_copy(update=sealed))), None

    async def _drawn(
        self, asked: Asked, command: InviteMember, email: str
    ) -> tuple[Asked, str | None]:
        name = self.ids().hex
        secret = base64.urlsafe_b64encode(self.entropy(SECRET_BYTES)).decode().rstrip("=")
        token = token_of(asked.tenant_id, name, secret)
        seal = partial(self.vault.seal, asked.tenant_id, subject_of(name))
        expires_at = asked.at + timedelta(seconds=self.invitation_ttl_s)
        drawn = Drawn(name, _hash(token), expires_at)
        invited = command.model_copy(update={"email": await seal(email)})
        return replace(asked, command=invited, drawn=drawn), await seal(token)


def _rough(asked: Asked) -> Asked | None:
    """Return a command as it is decided without its personal text; None for one that has none."""
    match asked.command:
        case CreateTenant():
            without: dict[str, object] = {"owner_email": None}
        case AddMember() | AcceptInvitation():
            without = {"email": None, "display_name": None}
        case InviteMember():
            without = {"email": _PLACEHOLDER}
            asked = replace(asked, drawn=Drawn("placeholder", _hash(""), asked.at))
        case _:
            return None
    return _shown(replace(asked, command=asked.command.model_copy(update=without)))


def _shown(asked: Asked) -> Asked:
    if not isinstance(asked.command, AcceptInvitation):
        return asked
    token = asked.command.token
    return replace(asked, shown_sha256=_hash(token), shown_id=_named(token))


def _refuse(refusal: Rejected, _: Tenant) -> Sequence[TenantEvent]:
    raise refusal


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _named(token: str) -> str:
    """Return the invitation that a token names; whether it opens it, its hash says."""
    return token.split(SEPARATOR)[1] if token.count(SEPARATOR) > 1 else ""
