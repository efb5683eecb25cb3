"""Who really calls whom: a graph of the services of a model, found in their code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flotilla_platform.evidence.messages import MessageUse, message_use, reachable
from flotilla_platform.evidence.source import Module, modules_of
from flotilla_platform.evidence.tracing import UNKNOWN
from flotilla_platform.loading import Position
from flotilla_platform.model import OPERATOR, Platform, Service

COMMAND_LINE = "flotilla_platform"
"""What the operator runs."""

PUMP = "flotilla.workflow.pump.Pump"
"""Who imports it does what the workflows of the model say."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command or query of one service that another asks, and where it does."""

    caller: str
    service: str
    kind: str
    """`cmd` or `qry`."""
    name: str
    at: Position

    @property
    def subject(self) -> str:
        """Return where it is asked."""
        return f"{self.kind}.{self.service}.{self.name}"


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """The code of all services, what each does on the bus, and who calls whom."""

    code: Mapping[str, Mapping[str, Module]]
    """The modules of a service, by its name; without those whose package is not there."""
    uses: Mapping[str, MessageUse]
    """Of services and of the operator, by name."""
    calls: tuple[Call, ...]
    untold: tuple[tuple[str, Position], ...]
    """Who asks something of which the text does not tell what it is."""

    def edges(self) -> list[tuple[str, str]]:
        """Return every caller and whom it calls, once each."""
        return sorted({(call.caller, call.service) for call in self.calls})


def package_of(service: Service) -> str:
    """Return the package that a service's code is in."""
    return service.entrypoint.partition(":")[0].partition(".")[0]


def dependency_graph(platform: Platform) -> DependencyGraph:
    """Return the graph of a model's services.

    Raises:
        SyntaxError: some of the code is no Python.

    """
    found = {name: modules_of(package_of(service)) for name, service in platform.services.items()}
    code = {name: modules for name, modules in found.items() if modules is not None}
    uses = {name: message_use(modules) for name, modules in code.items()}
    for name, modules in code.items():
        if any(at[0] == PUMP for module in modules.values() for at in module.imports):
            _of_workflows(platform, uses[name])
    if any(policy.caller == OPERATOR for policy in platform.policies.values()):
        uses[OPERATOR] = _operators(platform, code)
    calls, untold = list[Call](), list[tuple[str, Position]]()
    for caller, use in uses.items():
        for subject, at in use.asks.items():
            named = list(_calls(platform, uses, caller, subject, at))
            calls += named
            if not named:
                untold.append((caller, at))
    return DependencyGraph(code, uses, tuple(calls), tuple(untold))


def _of_workflows(platform: Platform, use: MessageUse) -> None:
    """Add what is in no code: which commands start workflows, and which ones these ask for."""
    for name, workflow in platform.workflows.items():
        if start := workflow.trigger.command:
            at = platform.at("workflow", name, "trigger", "command")
            use.serves.setdefault(f"cmd.{start.service}.{start.command}", at)
        for index, step in enumerate(workflow.steps):
            for key, call in (("call", step.call), ("compensation", step.compensation)):
                if call:
                    at = platform.at("workflow", name, "steps", index, key)
                    use.asks.setdefault(f"cmd.{call.service}.{call.command}", at)


def _operators(platform: Platform, code: Mapping[str, Mapping[str, Module]]) -> MessageUse:
    """Return what the command line does, with what it loads of services to make views again."""
    use = message_use(modules_of(COMMAND_LINE) or {})
    for name, service in platform.services.items():
        if service.read_models is not None and name in code:
            start = service.read_models.partition(":")[0]
            loaded = message_use(reachable(code[name], start))
            use.publishes.update(loaded.publishes | use.publishes)
            use.asks.update(loaded.asks | use.asks)
    return use


def _calls(
    platform: Platform, uses: Mapping[str, MessageUse], caller: str, subject: str, at: Position
) -> Iterator[Call]:
    """Yield the calls that a subject stands for: one, or one of every service that answers it."""
    kind, _, rest = subject.partition(".")
    service, _, name = rest.partition(".")
    if UNKNOWN in (kind, name) or not name:
        return
    if service != UNKNOWN:
        yield Call(caller, service, kind, name, at)
        return
    for other in platform.services:
        if other != caller and f"{kind}.{other}.{name}" in uses.get(other, MessageUse()).serves:
            yield Call(caller, other, kind, name, at)
