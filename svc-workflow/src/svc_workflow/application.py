"""What this service can be asked, over the bus: words in, one telling of an instance, words out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from flotilla import Answer, Handler, Rejected, Request, StreamId, stream_id
from flotilla.commands import parse
from flotilla.workflow import asked
from flotilla.workflow.checking import Contract
from flotilla.workflow.definition import Definition
from flotilla.workflow.expressions import ReferenceMissing, evaluate
from flotilla.workflow.instances import Told, instance_stream
from flotilla.workflow.picture import does, picture, standing
from flotilla.workflow.pump import Pump
from flotilla.workflow.state import Instance, Status
from flotilla_contracts.errors import ErrorCode
from flotilla_contracts.workflow import (
    AnswerWorkflow,
    CancelWorkflow,
    CompensateWorkflow,
    ForkWorkflow,
    GetWorkflow,
    ResumeWorkflow,
    WorkflowCommand,
    WorkflowDetail,
    WorkflowErrorCode,
    WorkflowReply,
    WorkflowStatus,
    WorkflowStep,
)

AGGREGATE = "workflow"


@dataclass(frozen=True, slots=True)
class Workflows:
    """All use cases. What follows from a telling is asked for in the background (`Pump.tell`)."""

    pump: Pump
    known: Contract

    @property
    def triggers(self) -> dict[str, Definition]:
        """The newest version of each workflow that a command starts, by that command's subject."""
        current = self.pump.instances.book.current().values()
        return {d.trigger.command.subject: d for d in current if d.trigger.command}

    async def start(self, request: Request) -> Answer:
        """Start what this command starts; the same key with the same fields is started once."""
        definition = self.triggers[request.subject]
        command = parse(self.known.commands[request.subject], request)
        data = command.model_dump(mode="json")
        try:
            key = evaluate(definition.idempotency_key, {"trigger": data})
        except ReferenceMissing as error:
            raise Rejected(str(error), code=ErrorCode.INVALID_REQUEST) from None
        stream = instance_stream(request.context.tenant, definition.name, key)
        return await self._tell(stream, lambda now: asked.Start(definition, str(key), data, now))

    def command_handler(self, kind: type[WorkflowCommand]) -> Handler:
        """Return what answers commands of one kind."""

        async def handle(request: Request) -> Answer:
            command = parse(kind, request)
            stream = stream_of(request, command.instance)
            definition = None
            if isinstance(command, ForkWorkflow):
                definition = await self._version(command)
            return await self._tell(stream, lambda now: _telling(command, definition, now))

        return handle

    async def get(self, request: Request) -> Answer:
        """Answer with one instance: its steps, where it stands, and why."""
        query = parse(GetWorkflow, request)
        instances = self.pump.instances
        instance = await instances.look(stream_of(request, query.instance))
        if instance.status is Status.ABSENT:
            raise asked.UnknownInstance(f"there is no workflow {query.instance!r}")
        await instances.book.refresh()
        definition = instances.book.by_hash(instance.definition)
        steps = tuple(
            WorkflowStep(
                name=step.name,
                does=does(step),
                depends_on=step.depends_on,
                standing=look,
                why=why,
            )
            for step in definition.steps
            for look, why in [standing(step, instance)]
        )
        said = _reply(instance).model_dump()
        detail = WorkflowDetail(**said, steps=steps, picture=picture(definition, instance))
        return Answer(detail.model_dump_json().encode())

    async def _tell(self, stream: StreamId, telling: Callable[[datetime], asked.Command]) -> Answer:
        told: Told = await self.pump.tell(stream, telling)
        return Answer(_reply(told.instance).model_dump_json().encode(), replayed=not told.events)

    async def _version(self, command: ForkWorkflow) -> Definition:
        book = self.pump.instances.book
        await book.refresh()
        name = command.instance.partition(":")[0]
        versions = {d.version: d for d in book.versions() if d.name == name}
        wanted = command.version or max(versions, default=0)
        if wanted not in versions:
            there = ", ".join(map(str, sorted(versions))) or "none"
            raise Rejected(
                f"{name} has no version {wanted}: there are {there}",
                code=WorkflowErrorCode.NOT_FOUND,
            )
        return versions[wanted]


def _telling(
    command: WorkflowCommand, definition: Definition | None, now: datetime
) -> asked.Command:
    match command:
        case ResumeWorkflow(by=by):
            return asked.Resume(by, now)
        case CompensateWorkflow(by=by, reason=reason, unknown=unknown):
            return asked.Compensate(by, reason, now, unknown)
        case CancelWorkflow(by=by, reason=reason):
            return asked.Cancel(by, reason, now)
        case AnswerWorkflow(step=step, approved=approved, by=by, reason=reason):
            return asked.Answer(step, approved, by, now, reason)
        case ForkWorkflow(step=step, by=by):
            assert definition is not None  # noqa: S101 - for the type checker
            return asked.ForkFrom(step, definition, by, now)


def stream_of(request: Request, instance: str) -> StreamId:
    """Return the stream of an instance of whoever asks."""
    try:
        return stream_id(request.context.tenant, AGGREGATE, instance)
    except ValueError as error:
        raise Rejected(str(error), code=ErrorCode.INVALID_REQUEST) from None


def _reply(instance: Instance) -> WorkflowReply:
    stream = instance_stream("-", instance.name, instance.key)
    return WorkflowReply(
        instance=stream.split("/", 2)[2],
        workflow=instance.name,
        version=instance.version,
        key=instance.key,
        status=cast("WorkflowStatus", instance.status.value),
        reason=instance.reason,
    )
