"""The broker: its limits, who may say and hear what, and the streams that its relay keeps there.

A user a deployable, and one for the operator. What is not allowed is refused:

    publish     what its policies let it ask and say; answers to what it was asked, while they are due
    subscribe   what its services answer, in their queue groups; its own inboxes; what policies add

An inbox is `_INBOX_<name>.>`, so that nobody hears another's answers. Passwords, better their bcrypt
hashes, are in a file of their own beside this one; it is no part of what is generated.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flotilla_contracts.wire import event_stream, event_subjects
from flotilla_platform.generating.artifact import NOTICE, Artifacts, Generator
from flotilla_platform.generating.running import Runs, apart, logs, running
from flotilla_platform.generating.writing import comment, json_text
from flotilla_platform.model import OPERATOR, Environment, Layout, Platform, Resource, Service

CONFIG = "nats/nats-server.conf"
PASSWORDS = "passwords.conf"
STORE_DIRECTORY = "/data"
MONITORING = "127.0.0.1:8222"
MEMORY_STORE_BYTES = 256 * 2**20
REPLY_WITHIN = "1m"
"""No request has a deadline further away."""
COPIES = {"distributed": 3}
"""How many servers keep a stream, by what the capability `event-streams` says; else one."""


@dataclass(frozen=True, slots=True)
class Variable:
    """What another file defines."""

    name: str


type Value = str | int | bool | Variable | Sequence[Value] | Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who connects, and what it may."""

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool

    @property
    def password(self) -> str:
        """Return the name of the variable with its password."""
        return f"{self.name.replace('-', '_')}_password"


def accounts(platform: Platform) -> tuple[Account, ...]:
    """Return everybody who may connect, in the order of the names."""
    found = [_account(platform, one) for one in running(platform)]
    publish, subscribe = _allowed(platform, [OPERATOR])
    found.append(Account(OPERATOR, publish, (*_inboxes([OPERATOR]), *subscribe), answers=False))
    return tuple(sorted(found, key=lambda account: account.name))


def streams(platform: Platform, environment: Environment) -> dict[str, dict[str, object]]:
    """Return the stream of every log as the broker keeps it in an environment, by its name.

    The relay makes them when they are not there; a test holds that it makes the same.
    """
    capability = platform.capabilities.get("event-streams")
    state = capability.state_in(environment.topology) if capability else "off"
    return {
        event_stream(log.name): {
            "name": event_stream(log.name),
            "description": f"The log of {log.name}. Written by its outbox relay alone.",
            "subjects": [event_subjects(log.name)],
            "retention": "limits",
            "discard": "new",
            "storage": "file",
            "num_replicas": COPIES.get(state, 1),
            "max_consumers": -1,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "max_bytes": -1,
            "max_age": 0,
            "allow_atomic": True,
            "allow_direct": True,
            "deny_delete": True,
            "deny_purge": True,
        }
        for log in logs(platform)
    }


def _account(platform: Platform, one: Runs) -> Account:
    names = [one.name, *(service.connection_name for service in one.services)]
    publish, subscribe = _allowed(platform, one.deployable.services)
    served = [f"{subject} {queue}" for subject, queue in _served(one.services)]
    return Account(one.name, publish, (*_inboxes(names), *served, *subscribe), answers=bool(served))


def _served(services: Iterable[Service]) -> Iterator[tuple[str, str]]:
    """Yield what services answer, and in which queue group: each in its own."""
    for service in services:
        for subject in (*service.command_subjects, *service.query_subjects):
            yield subject, service.name


def _inboxes(names: Iterable[str]) -> list[str]:
    return [f"_INBOX_{name}.>" for name in dict.fromkeys(names)]


def _allowed(platform: Platform, callers: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what policies let callers publish and hear."""
    policies = [policy for policy in platform.policies.values() if policy.caller in callers]
    publish: list[str] = []
    for policy in policies:
        for one in policy.calls:
            publish += [f"cmd.{one.service}.{command}" for command in one.commands]
            publish += [f"qry.{one.service}.{query}" for query in one.queries]
        publish += policy.publishes
    subscribe = [subject for policy in policies for subject in policy.subscribes]
    return tuple(dict.fromkeys(publish)), tuple(dict.fromkeys(subscribe))


def _user(account: Account) -> Value:
    publish: Value = {"allow": account.publish} if account.publish else {"deny": [">"]}
    permissions: dict[str, Value] = {"publish": publish, "subscribe": {"allow": account.subscribe}}
    if account.answers:
        permissions["allow_responses"] = {"max": 1, "expires": REPLY_WITHIN}
    password = Variable(account.password)
    return {"user": account.name, "password": password, "permissions": permissions}


def _config(resource: Resource, users: Sequence[Value]) -> Value:
    limits = resource.limits
    return {
        "server_name": resource.name,
        "port": resource.port or 4222,
        "http": MONITORING,
        **({"max_connections": limits.max_connections} if limits.max_connections else {}),
        **({"max_payload": limits.max_payload_bytes} if limits.max_payload_bytes else {}),
        "jetstream": {
            "store_dir": STORE_DIRECTORY,
            **({"max_file_store": limits.storage_mib * 2**20} if limits.storage_mib else {}),
            "max_memory_store": MEMORY_STORE_BYTES,
        },
        "authorization": {"timeout": 5, "users": users},
    }


def _lines(value: Mapping[str, Value], indent: str = "") -> Iterator[str]:
    """Yield the lines of a block in NATS's own notation."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield f"{indent}{key} {{"
            yield from _lines(inner, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(inner, Sequence) and not isinstance(inner, str):
            yield f"{indent}{key}: ["
            for item in inner:
                if isinstance(item, Mapping):
                    yield f"{indent}  {{"
                    yield from _lines(item, indent + "    ")
                    yield f"{indent}  }}"
                else:
                    yield f"{indent}  {_atom(item)}"
            yield f"{indent}]"
        else:
            yield f"{indent}{key}: {_atom(inner)}"


def _atom(value: Value) -> str:
    match value:
        case Variable(name):
            return f"${name}"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case _:
            return json_text([value]).strip("[]\n ")


def generate(platform: Platform) -> Artifacts:
    """Return the configuration of the broker, a template for its passwords, and the streams."""
    found: dict[str, str] = {}
    known = accounts(platform)
    for resource in _brokers(platform):
        config = _config(resource, [_user(account) for account in known])
        assert isinstance(config, Mapping)  # noqa: S101 - for the type checker
        lines = [f'include "./{PASSWORDS}"', *_lines(config)]
        found[CONFIG] = comment(NOTICE) + "\n".join(lines) + "\n"
    template = "\n".join(f'# {account.password}: "$2a$11$…"' for account in known)
    found[f"nats/{PASSWORDS}.example"] = (
        comment(
            f"{NOTICE}\nBeside nats-server.conf as {PASSWORDS}, readable for the server alone. Hashes"
            " are made by `nats server passwd`;\nquotes are needed. Plain ones work too."
        )
        + f"{template}\n"
    )
    for environment, layout in platform.deployments():
        if apart(layout):
            for name, stream in streams(platform, environment).items():
                found[f"nats/streams/{environment.name}/{name}.json"] = json_text(stream)
    return found


def _brokers(platform: Platform) -> list[Resource]:
    """Return the brokers that are given a configuration: at most one differs from the embedded."""
    bound = {_bus(layout).name: _bus(layout) for layout in platform.layouts.values()}
    return [one for one in bound.values() if one.server != "embedded"][:1]


def _bus(layout: Layout) -> Resource:
    return layout.resources.bus


NATS = Generator("nats", "the broker's configuration, users, streams", ("nats",), generate)
