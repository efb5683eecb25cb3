"""What a service really serves, asks, publishes and hears: from the text of its modules.

    served      the subject of `bus.serve(subject, …)` and `serve_health(bus, subject, …)`
    asked       the subject of `flotilla.bus.Request(subject, …)`
    published   `Doorbell(_, subject)`, what `event_subject` makes, calls of JetStream's API
    heard       the subject of `Ear.at(_, subject)`

How a subject is followed to where it is spelled is in `tracing.py`.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flotilla_platform.evidence.source import Module
from flotilla_platform.evidence.tracing import Tracer, name_of
from flotilla_platform.loading import Position

_JETSTREAM = {
    "stream_info": "$JS.API.STREAM.INFO.*",
    "add_stream": "$JS.API.STREAM.CREATE.*",
    "delete_stream": "$JS.API.STREAM.DELETE.*",
    "get_msg": "$JS.API.STREAM.MSG.GET.*",
    "add_consumer": "$JS.API.CONSUMER.CREATE.>",
    "delete_consumer": "$JS.API.CONSUMER.DELETE.>",
}
"""What nats-py asks JetStream for, by the method that does."""
_JETSTREAM_API = "$JS.API."

type Places = dict[str, Position]
"""Subjects, and where each is first named."""


@dataclass(frozen=True, slots=True)
class MessageUse:
    """The subjects of one package; `*` is a token that its text does not tell."""

    serves: Places = field(default_factory=dict)
    asks: Places = field(default_factory=dict)
    publishes: Places = field(default_factory=dict)
    hears: Places = field(default_factory=dict)


def message_use(modules: Mapping[str, Module]) -> MessageUse:
    """Return what the modules of a package do on the bus."""
    use, tracer = MessageUse(), Tracer(modules)
    serving = [(m, call) for m, call in tracer.calls("serve") if len(call.args) > 1]
    asking = [(m, call) for m, call in tracer.calls("Request") if _is_kernels(m, call.func)]
    hearing = [(m, call) for m, call in tracer.calls("at") if _is_ears(call.func)]
    for into, calls, place in (
        (use.serves, serving, 0),
        (use.serves, tracer.calls("serve_health"), 1),
        (use.asks, asking, 0),
        (use.publishes, tracer.calls("Doorbell"), 1),
        (use.hears, hearing, 1),
    ):
        for module, call in calls:
            for argument in call.args[place : place + 1]:
                _note(into, tracer, module, argument)
    for module, call in tracer.calls("event_subject"):
        _note(use.publishes, tracer, module, call)
    for method, subject in _JETSTREAM.items():
        for module, call in tracer.calls(method):
            use.publishes.setdefault(subject, module.at(call))
    for module in modules.values():
        for node in _spelled(module):
            _note(use.publishes, tracer, module, node)
    return use


def _note(into: Places, tracer: Tracer, module: Module, node: ast.expr) -> None:
    for subject in sorted(map(str, tracer.values(module, node))):
        into.setdefault(subject, module.at(node))


def reachable(modules: Mapping[str, Module], start: str) -> dict[str, Module]:
    """Return those of the modules that `start` imports, itself and by way of others."""
    found: dict[str, Module] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in modules and name not in found:
            found[name] = modules[name]
            waiting += [imported for imported, _ in modules[name].imports]
    return found


def shape(subject: str) -> str:
    """Return a subject with its unknown end as `>`: what an allow-list can say of it."""
    tokens = ["*" if "*" in token else token for token in subject.split(".")]
    known = len(tokens)
    while known and tokens[known - 1] in ("*", ">"):
        known -= 1
    return subject if known == len(tokens) else ".".join([*tokens[:known], ">"])


def _is_kernels(module: Module, called: ast.expr) -> bool:
    """Return whether `Request` is that of the kernel, and not one of HTTP."""
    if isinstance(called, ast.Attribute):
        return ast.unparse(called).startswith("flotilla.")
    return any(
        name in {"flotilla.Request", "flotilla.bus.Request"} for name, _ in module.imports
    ) and isinstance(called, ast.Name)


def _is_ears(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and name_of(called.value) == "Ear"


def _spelled(module: Module) -> Iterator[ast.expr]:
    """Yield the subjects of JetStream's API that the text spells out."""
    for node in ast.walk(module.tree):
        match node:
            case ast.JoinedStr(values=[ast.Constant(value=str() as start), *_]):
                if start.startswith(_JETSTREAM_API):
                    yield node
            case _:
                pass
