"""What a new service is: its files, rendered, and every list of the repository that names it."""

import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from flotilla_platform.generating.writing import yaml_text
from flotilla_platform.scaffolding.answers import FieldType, ServiceAnswers, Told
from flotilla_platform.scaffolding.changes import Changes
from flotilla_platform.scaffolding.listing import list_service

_TEMPLATES = files("flotilla_platform.scaffolding") / "templates"
_TYPES = {
    "text": "Text = Annotated[str, Field(min_length=1, max_length=1000)]",
    "integer": "Whole = Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]",
}
_CONTRACT = {"text": "Text", "integer": "Whole"}
_PLAIN = {"text": "str", "integer": "int"}
_SAMPLE: dict[str, object] = {"text": "some text", "integer": 7}
_OTHER: dict[str, object] = {"text": "other text", "integer": 8}
_STRATEGY = {"text": 'st.sampled_from(["x", "y"])', "integer": "st.integers(1, 2)"}


def plan_service(root: Path, answers: ServiceAnswers) -> Changes:
    """Return all that a new service adds to the checkout at `root`; nothing is written yet.

    Raises:
        Failure: something of that name is there already, or the checkout is no such checkout.

    """
    changes, words = Changes(root), words_of(answers)
    member, package = words["member"], words["package"]
    inside, tests = f"{member}/src/{package}", f"{member}/tests"
    for path, name in {
        f"contracts/src/flotilla_contracts/{words['module']}.py": "contract.py",
        f"{member}/pyproject.toml": "pyproject.toml",
        f"{inside}/application.py": "application.py",
        f"{inside}/main.py": "main.py",
        f"{inside}/settings.py": "settings.py",
        f"{inside}/domain/{words['aggregate_module']}.py": "domain.py",
        f"{tests}/test_{words['aggregate_module']}.py": "test_rules.py",
        f"{tests}/test_golden.py": "test_golden.py",
        f"{tests}/test_application.py": "test_application.py",
        f"docs/runbooks/{answers.service}.md": "runbook.md",
    }.items():
        changes.create(path, rendered(name, words))
    changes.create(f"{inside}/__init__.py", f'"""{answers.summary}"""\n')
    changes.create(f"{inside}/py.typed", "")
    changes.create(f"{inside}/domain/__init__.py", '"""Pure rules: no I/O, no clock."""\n')
    servers = "nats_server, postgres_server"
    conftest = f"from flotilla.testing.servers import {servers}\n\n__all__ = "
    changes.create(f"{tests}/conftest.py", conftest + '["nats_server", "postgres_server"]\n')
    for told in answers.commands:
        golden = json.dumps(_content(answers, told), separators=(",", ":")) + "\n"
        changes.create(f"{tests}/golden/{event_type(answers, told)}.json", golden)
    _model(changes, answers)
    list_service(changes, answers, words, list(map(json.dumps, _contents(answers))))
    return changes


def rendered(name: str, words: dict[str, str]) -> str:
    """Return a template of this package with its words."""
    return Template((_TEMPLATES / f"{name}.txt").read_text("utf-8")).substitute(words)


def event_type(answers: ServiceAnswers, told: Told) -> str:
    """Return the type of an event on the wire."""
    return f"{answers.aggregate}.{told.event}.v1"


def _model(changes: Changes, answers: ServiceAnswers) -> None:
    name, aggregate = answers.service, answers.aggregate
    service = {
        "name": name,
        "summary": answers.summary,
        "owner": answers.owner,
        "entrypoint": f"svc_{name.replace('-', '_')}.main:compose",
        "settings": f"svc_{name.replace('-', '_')}.settings:Settings",
        "log": name,
        "needs": ["store", "bus"],
        "aggregates": [aggregate],
        "commands": [{"name": t.command, "idempotency_scope": aggregate} for t in answers.commands],
        "events": [event_type(answers, told) for told in answers.commands],
        "queries": ["get-history"],
        "slo": {"availability_percent": 99.9, "latency_p99_ms": 250},
        "capabilities": ["event-store", "bus"],
    }
    policy = {
        "name": name,
        "summary": f"Whoever serves {name} calls nobody; it rings its doorbell after a commit.",
        "caller": name,
        "publishes": [f"bell.{name}"],
    }
    for kind, document in (("service", service), ("policy", policy)):
        folder = {"service": "services", "policy": "policies"}[kind]
        notice = f"yaml-language-server: $schema=../schemas/{kind}.json"
        changes.create(f"platform-model/{folder}/{name}.yaml", yaml_text(document, notice=notice))


def words_of(answers: ServiceAnswers) -> dict[str, str]:
    """Return what the templates say of a service."""
    service, aggregate = answers.service, answers.aggregate
    class_name, key = _class(aggregate), f"{aggregate.replace('-', '_')}_id"
    first = answers.commands[0]
    commands = [f"{_class(told.command)}{class_name}" for told in answers.commands]
    events = [f"{class_name}{_class(told.event)}" for told in answers.commands]
    fields = answers.fields
    pairs = list(zip(answers.commands, commands, events, strict=True))
    return {
        "service": service,
        "SERVICE": service.replace("-", "_").upper(),
        "member": f"svc-{service}",
        "package": f"svc_{service.replace('-', '_')}",
        "module": service.replace("-", "_"),
        "summary": answers.summary,
        "aggregate": aggregate,
        "aggregate_module": aggregate.replace("-", "_"),
        "Aggregate": class_name,
        "key": key,
        "words": aggregate.replace("-", " "),
        "words_name": aggregate.replace("-", "_"),
        "Title": aggregate.replace("-", " ").capitalize(),
        "types": "\n".join(_TYPES[kind] for kind in sorted({*fields.values()})),
        "events": "\n\n\n".join(_event(answers, *pair, key) for pair in pairs),
        "commands": "\n\n".join(_command(answers, *pair, key) for pair in pairs),
        "optional_fields": _lines(fields, "    {0}: {1} | None = None", _CONTRACT),
        "state_fields": _lines(fields, "    {0}: {1} | None = None", _PLAIN),
        "event_union": " | ".join(events),
        "command_union": " | ".join(commands),
        "event_names": ", ".join(events),
        "command_names": ", ".join(commands),
        "evolve_cases": "\n".join(_evolve(told, event) for told, _, event in pairs),
        "decide_cases": "\n".join(_decide(*pair, key) for pair in pairs),
        "first_command": commands[0],
        "first_event": first.event,
        "first_type": event_type(answers, first),
        "first_sample": _call(commands[0], _content(answers, first)),
        "samples": "\n".join(
            f"asked_{n} = {_call(command, _content(answers, told))}\n"
            f"happened_{n} = {_call(event, _content(answers, told))}"
            for n, (told, command, event) in enumerate(pairs)
        ),
        "refusal_tests": _refusals(answers, class_name),
        "strategies": ", ".join(_strategy(told, command, key) for told, command, _ in pairs),
        "golden_after": ", ".join(
            f'"{event_type(answers, told)}": '
            + _call(class_name, {"status": told.event} | _fields(told))
            for told in answers.commands
        ),
    }


def _event(answers: ServiceAnswers, told: Told, _: str, event: str, key: str) -> str:
    what = answers.aggregate.replace("-", " ")
    return (
        f'class {event}(Event):\n    """The {what} was {told.event.replace("-", " ")}."""\n\n'
        f'    type: ClassVar[str] = "{event_type(answers, told)}"\n\n'
        f"    {key}: {_class(answers.aggregate)}Id\n"
        + _lines(told.fields, "    {0}: {1}", _CONTRACT)
    )


def _command(answers: ServiceAnswers, told: Told, command: str, _: str, key: str) -> str:
    first = " It is new." if told is answers.commands[0] else ""
    name = _class(answers.aggregate)
    return (
        f'class {command}(Command):\n    """{told.command.replace("-", " ").capitalize()} it.'
        f'{first}"""\n\n    subject: ClassVar[str] = "cmd.{answers.service}.{told.command}"\n'
        f"    reply: ClassVar[type[Reply]] = {name}Reply\n\n    {key}: {name}Id\n"
        + _lines(told.fields, "    {0}: {1}\n", _CONTRACT)
    )


def _evolve(told: Told, event: str) -> str:
    taken = ", ".join(f"{name}={name}" for name in told.fields)
    more = f", {taken}" if taken else ""
    return (
        f"        case {event}({taken}):\n"
        f'            return replace(state, status="{told.event}"{more})'
    )


def _decide(told: Told, command: str, event: str, key: str) -> str:
    names = ", ".join(f"{name}=command.{name}" for name in (key, *told.fields))
    return f"        case {command}():\n            return {event}({names})"


def _refusals(answers: ServiceAnswers, name: str) -> str:
    spec = answers.aggregate.replace("-", "_")
    refused = f"then_rejected({name}Exists)"
    head = "def test_what_is_there_is_not_created_again_with_other_content() -> None:\n"
    if len(answers.commands) > 1:
        return (
            "def test_nothing_happens_to_what_was_never_created() -> None:\n"
            f"    {spec}.given().when(asked_1).then_rejected({name}NotFound)\n\n\n"
            f"{head}    {spec}.given(happened_0, happened_1).when(asked_0).{refused}\n\n"
        )
    fields = answers.commands[0].fields
    if not fields:
        return ""
    field, kind = next(iter(fields.items()))
    other = f"asked_0.model_copy(update={{{field!r}: {_OTHER[kind]!r}}})"
    return f"{head}    {spec}.given(happened_0).when({other}).{refused}\n\n"


def _strategy(told: Told, command: str, key: str) -> str:
    drawn = "".join(f", {name}={_STRATEGY[kind]}" for name, kind in told.fields.items())
    return f'st.builds({command}, {key}=st.just("a"){drawn})'


def _fields(told: Told) -> dict[str, object]:
    return {name: _SAMPLE[kind] for name, kind in told.fields.items()}


def _content(answers: ServiceAnswers, told: Told) -> dict[str, object]:
    return {f"{answers.aggregate.replace('-', '_')}_id": "a"} | _fields(told)


def _contents(answers: ServiceAnswers) -> list[list[Any]]:
    key = {f"{answers.aggregate.replace('-', '_')}_id": "a"}
    asked = [[f"cmd.{answers.service}.{t.command}", _content(answers, t)] for t in answers.commands]
    return [*asked, [f"qry.{answers.service}.get-history", key]]


def _call(name: str, content: dict[str, object]) -> str:
    return f"{name}({', '.join(f'{key}={json.dumps(value)}' for key, value in content.items())})"


def _lines(fields: dict[str, FieldType], line: str, types: dict[str, str]) -> str:
    return "\n".join(line.format(name, types[kind]) for name, kind in fields.items())


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
