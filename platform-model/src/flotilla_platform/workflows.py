"""Workflows of a running fleet, asked about and told over the bus, as an operator may."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from flotilla.bus import Context, Request
from flotilla.errors import Rejected
from flotilla_contracts.workflow import (
    AnswerWorkflow,
    CancelWorkflow,
    CompensateWorkflow,
    ForkWorkflow,
    GetWorkflow,
    ListWorkflows,
    ResumeWorkflow,
    WorkflowDetail,
    WorkflowErrorCode,
    WorkflowPage,
    WorkflowReply,
    WorkflowStatus,
)
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.model import OPERATOR
from flotilla_platform.runtime import Runtime

if TYPE_CHECKING:
    from flotilla.bus import Bus

ALL_TENANTS = "-"
"""Who asks when no tenant is meant."""
TIMEOUT_S = 10.0
_CORRELATION = "flotilla-workflows"


@dataclass(frozen=True, slots=True)
class Which:
    """One instance of one tenant."""

    tenant: str
    instance: str

    def __str__(self) -> str:
        """Return it as the command line takes it."""
        return f"{self.tenant}/{self.instance}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which instances are listed; None: whatever it is."""

    tenant: str | None = None
    status: WorkflowStatus | None = None
    workflow: str | None = None
    since: datetime | None = None


def which(text: str) -> Which:
    """Return the instance that is meant by `<tenant>/<workflow>:<key>`, or by its whole stream.

    Raises:
        Failure: none is (`USAGE`).

    """
    match text.split("/"):
        case [tenant, "workflow", instance] | [tenant, instance] if tenant and ":" in instance:
            return Which(tenant, instance)
    raise Failure(
        ExitCode.USAGE,
        f"{text!r} is no workflow: write <tenant>/<workflow>:<key>, as `flotilla workflows list`"
        " shows it",
    )


@dataclass(frozen=True, slots=True)
class Operator:
    """Asks and tells. Raises `Failure` for what is not there, and what the bus raises."""

    bus: "Bus"
    by: str

    async def list(self, wanted: Filter, *, after: str | None, limit: int) -> WorkflowPage:
        """Return a page of instances, the last started first."""
        query = ListWorkflows(
            every_tenant=wanted.tenant is None,
            status=wanted.status,
            workflow=wanted.workflow,
            since=wanted.since,
            after=after,
            limit=limit,
        )
        body = query.model_dump_json().encode()
        asked = Request(ListWorkflows.subject, body, _context(wanted.tenant or ALL_TENANTS))
        return WorkflowPage.model_validate_json((await self.bus.request(asked)).body)

    async def show(self, one: Which) -> WorkflowDetail:
        """Return one instance with its steps."""
        body = GetWorkflow(instance=one.instance).model_dump_json().encode()
        answer = await self._ask(one, Request(GetWorkflow.subject, body, _context(one.tenant)))
        return WorkflowDetail.model_validate_json(answer)

    async def retry(self, one: Which) -> WorkflowReply:
        """Let the step that is stuck be asked for again; what stands otherwise is left alone."""
        if (status := (await self.show(one)).status) != "stuck":
            raise Failure(
                ExitCode.REFUSED,
                f"{one} is {status}: `retry` is for what is stuck"
                + ("; `resume` lets it go on" if status == "cancelled" else ""),
            )
        return await self.resume(one)

    async def resume(self, one: Which) -> WorkflowReply:
        """Let it go on where it stopped."""
        body = ResumeWorkflow(instance=one.instance, by=self.by).model_dump_json().encode()
        return _reply(
            await self._ask(one, Request(ResumeWorkflow.subject, body, _context(one.tenant)))
        )

    async def compensate(self, one: Which, reason: str, unknown: str | None) -> WorkflowReply:
        """Let everything be taken back."""
        told = CompensateWorkflow.model_validate(
            {"instance": one.instance, "by": self.by, "reason": reason, "unknown": unknown}
        )
        body = told.model_dump_json().encode()
        return _reply(
            await self._ask(one, Request(CompensateWorkflow.subject, body, _context(one.tenant)))
        )

    async def cancel(self, one: Which, reason: str) -> WorkflowReply:
        """Stop it where it is."""
        told = CancelWorkflow(instance=one.instance, by=self.by, reason=reason)
        body = told.model_dump_json().encode()
        return _reply(
            await self._ask(one, Request(CancelWorkflow.subject, body, _context(one.tenant)))
        )

    async def fork(self, one: Which, step: str, version: int | None) -> WorkflowReply:
        """Let it begin again from a step."""
        told = ForkWorkflow(instance=one.instance, step=step, by=self.by, version=version)
        body = told.model_dump_json().encode()
        return _reply(
            await self._ask(one, Request(ForkWorkflow.subject, body, _context(one.tenant)))
        )

    async def answer(self, one: Which, step: str, reason: str, *, yes: bool) -> WorkflowReply:
        """Say yes or no to a step that asks somebody."""
        told = AnswerWorkflow(
            instance=one.instance, step=step, approved=yes, by=self.by, reason=reason
        )
        body = told.model_dump_json().encode()
        return _reply(
            await self._ask(one, Request(AnswerWorkflow.subject, body, _context(one.tenant)))
        )

    async def _ask(self, one: Which, request: Request) -> bytes:
        try:
            return (await self.bus.request(request)).body
        except Rejected as refusal:
            if refusal.code != WorkflowErrorCode.NOT_FOUND:
                raise
            cure = "see `flotilla workflows list`"
            raise Failure(ExitCode.NOT_FOUND, f"{one}: {refusal}: {cure}") from refusal


def _context(tenant: str) -> Context:
    return Context(tenant, _CORRELATION, timeout_s=TIMEOUT_S)


def _reply(body: bytes) -> WorkflowReply:
    return WorkflowReply.model_validate_json(body)


@asynccontextmanager
async def operating(runtime: Runtime, by: str) -> AsyncIterator[Operator]:
    """Lend a way to ask a running fleet."""
    from flotilla.buses.nats import NatsBus  # noqa: PLC0415 - brings FastStream, and only this asks

    async with NatsBus(runtime.nats_url, name=OPERATOR) as bus:
        yield Operator(bus, by)
