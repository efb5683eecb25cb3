"""To erase: the fact in the tenant's stream and in that of all erasures, in one unit; then the keys.

- dies before the commit: nothing happened;
- dies after it: the keys are destroyed when a vault is opened again (`erasures_in`), or by the retry;
- is asked again under the same key: destroys again, which changes nothing.
"""

from dataclasses import dataclass

from flotilla import Aggregate, Answer, Decision, StreamId
from flotilla.aggregate import Claim
from flotilla.errors import Conflict, Corrupt, KeyReused, VersionMismatch
from flotilla.execute import REUSED
from flotilla.keys import Erasure
from flotilla.privacy import Vault
from flotilla.store import (
    Append,
    Committed,
    Conflicted,
    Failed,
    RecordedEvent,
    Replayed,
    Reused,
    StoredReply,
    Unit,
    Version,
    tenant_of,
)
from flotilla_contracts.tenant import (
    ErasedReply,
    EraseMember,
    EraseTenant,
)
from flotilla_contracts.tenant_events import (
    ErasureRecorded,
    TenantEvent,
)
from svc_tenant.answers import answer
from svc_tenant.domain.asked import Asked
from svc_tenant.domain.erasure import decide
from svc_tenant.domain.tenant import Tenant
from svc_tenant.streams import ERASURES

TRIES_MAX = 10


@dataclass(frozen=True, slots=True)
class Erasing:
    """What destroys keys, and remembers for good that it did."""

    tenants: Aggregate[Asked, Tenant, TenantEvent]
    erasures: Aggregate[ErasureRecorded, int, ErasureRecorded]
    vault: Vault

    async def erase(
        self,
        command: EraseMember | EraseTenant,
        stream: StreamId,
        decision: Decision[Tenant, TenantEvent],
    ) -> Answer:
        """Make an erasure durable, destroy the keys, and say what was done and what remains.

        Raises what the decision raises; `Conflict` when others were faster ten times in a row.
        """
        tenant = tenant_of(stream)
        subject = command.user_id if isinstance(command, EraseMember) else None
        key_id = await self.vault.key_id(tenant, subject) if subject else None
        fact = ErasureRecorded(tenant_id=tenant, subject=subject, key_id=key_id)
        for _ in range(TRIES_MAX):
            reply = await self._record(stream, decision, fact)
            if reply is not None:
                break
        else:
            raise Conflict(f"{stream}: lost {TRIES_MAX} races in a row; try again")
        stored, replayed = reply
        destroyed = await self.vault.destroy(tenant, subject, key_id=key_id)
        told = ErasedReply(
            keys=destroyed.keys,
            remains=destroyed.remains,
            version=ErasedReply.model_validate_json(stored).version,
        )
        return answer(told, Version(told.version), replayed=replayed)

    async def _record(
        self, stream: StreamId, decision: Decision[Tenant, TenantEvent], fact: ErasureRecorded
    ) -> tuple[bytes, bool] | None:
        """Return the reply, and whether it is one of before; None: others were faster."""
        claim = decision.claim
        loaded = await self.tenants.load(stream, [claim.key] if claim else [])
        if claim and (known := loaded.replies.get(claim.key)):
            return _known(claim, known), True
        if decision.expected not in (None, loaded.version):
            raise VersionMismatch(f"expected version {decision.expected}, it is {loaded.version}")
        at = self.tenants.rehydrate(loaded), loaded.version
        unit, _, done = self.tenants.unit(stream, decision, at)
        if unit is None:
            return done.reply, False
        if any(append.events for append in unit.appends):
            unit = Unit((*unit.appends, *await self._noted(fact, decision)), unit.record)
        match (await self.tenants.commit([unit]))[0]:
            case Committed():
                return done.reply, False
            case Replayed(reply):
                return reply, True
            case Reused():
                raise KeyReused(REUSED)
            case Failed(error):
                raise error
            case Conflicted():
                return None

    async def _noted(
        self, fact: ErasureRecorded, decision: Decision[Tenant, TenantEvent]
    ) -> tuple[Append, ...]:
        loaded = await self.erasures.load(ERASURES, [])
        noting = Decision[int, ErasureRecorded](
            decide=lambda count: decide(fact, count),
            reply=lambda _state, _version: b"",
            metadata=decision.metadata,
        )
        at = self.erasures.rehydrate(loaded), loaded.version
        unit, _, _ = self.erasures.unit(ERASURES, noting, at)
        return unit.appends if unit else ()


def erasure_of(event: RecordedEvent) -> Erasure:
    """Return what a recorded erasure destroys again. Raises `Corrupt` for anything else there."""
    if event.type != ErasureRecorded.type:
        raise Corrupt(f"{event.stream}@{event.version} is no erasure, but {event.type}")
    fact = ErasureRecorded.model_validate_json(event.payload)
    return Erasure(fact.tenant_id, fact.subject, fact.key_id)


def _known(claim: Claim, known: StoredReply) -> bytes:
    if known.fingerprint != claim.fingerprint:
        raise KeyReused(REUSED)
    return known.reply
