"""The catalog: the model as pages for people, with pictures, every name a link.

catalog/README.md        what there is, who asks whom, how events flow
catalog/services.md      what each owns, is asked, publishes, promises
catalog/topologies.md    deployables, topologies with their placement, environments
catalog/capabilities.md  what the platform does for services, and how far in which topology
catalog/owners.md        who answers for what
"""

from collections.abc import Iterable, Iterator

from flotilla_platform.generating.artifact import NOTICE, Artifacts, Generator
from flotilla_platform.generating.mermaid import Flowchart, table
from flotilla_platform.generating.placement import deployables, environments, topologies
from flotilla_platform.generating.running import logs
from flotilla_platform.model import KINDS, OPERATOR, KindName, Platform, Service

NONE = "-"
ROOT = "../.."
"""From a page to the root of the repository."""


def generate(platform: Platform) -> Artifacts:
    """Return the pages."""
    pages = {
        "README": ("Catalog", _overview(platform)),
        "services": ("Services", _services(platform)),
        "topologies": (
            "Topologies",
            (*deployables(platform), *topologies(platform), *environments(platform)),
        ),
        "capabilities": ("Capabilities", _capabilities(platform)),
        "owners": ("Owners", _owners(platform)),
    }
    return {
        f"catalog/{page}.md": "\n\n".join([f"<!-- {NOTICE} -->", f"# {title}", *parts]) + "\n"
        for page, (title, parts) in pages.items()
    }


def source(kind: KindName, name: str) -> str:
    """Return a link to the file of the model that says so."""
    return f"[model]({ROOT}/platform-model/{KINDS[kind].folder}/{name}.yaml)"


def _overview(platform: Platform) -> Iterator[str]:
    yield "What the platform is made of, from its model."
    yield table(
        ("service", "what it is", "owner"),
        ((_service(s.name), s.summary, _owner(s)) for s in platform.services.values()),
    )
    pages = ("services", "topologies", "capabilities", "owners")
    yield "Pages: " + ", ".join(f"[{page}]({page}.md)" for page in pages) + "."
    yield "## Who may ask whom"
    yield "What no policy allows is denied. Dotted: a person with the command line."
    yield _calls(platform).text()
    yield "## How events flow"
    yield "From the store of whoever decides, through the relay, to whoever folds them."
    yield _events(platform).text()


def _calls(platform: Platform) -> Flowchart:
    chart = Flowchart()
    for service in platform.services.values():
        chart.node(service.name, service.name)
    for policy in platform.policies.values():
        person = policy.caller == OPERATOR
        if person and policy.calls:
            chart.node(OPERATOR, OPERATOR, "round")
        for call in policy.calls:
            if asked := [*call.commands, *call.queries]:
                chart.edge(policy.caller, call.service, ", ".join(asked), dotted=person)
    return chart


def _events(platform: Platform) -> Flowchart:
    chart = Flowchart()
    relays = [s for s in platform.services.values() if s.follows_logs and not s.projections]
    for service in logs(platform):
        ledger, stream = f"store {service.name}", f"log {service.log}"
        chart.node(service.name, service.name)
        chart.node(ledger, f"store of {service.name}", "store")
        chart.node(stream, f"stream EVT_{str(service.log).upper().replace('-', '_')}", "store")
        chart.edge(service.name, ledger, f"{len(service.events)} event types")
        for relay in relays:
            chart.node(relay.name, relay.name)
            chart.edge(ledger, relay.name)
            chart.edge(relay.name, stream, "offsets")
    for service in platform.services.values():
        for projection in service.projections:
            view = f"projection {projection.name}"
            chart.node(view, f"{projection.name} ({service.name})", "round")
            for log in projection.logs:
                late = f"within {projection.staleness_budget_ms / 1000:g} s"
                chart.edge(f"log {log}", view, late)
    return chart


def _services(platform: Platform) -> Iterator[str]:
    for service in platform.services.values():
        yield f"## {service.name}"
        yield service.summary
        yield table(("", ""), _facts(platform, service))


def _facts(platform: Platform, service: Service) -> Iterator[tuple[str, str]]:
    package = service.connection_name
    yield "owner", _owner(service)
    yield "source", f"[{package}]({ROOT}/{package}), {source('service', service.name)}"
    yield "owns", _codes(service.aggregates)
    yield "is told", _codes(command.name for command in service.commands)
    yield "is asked", _codes(service.queries)
    yield "asks", ", ".join(_service(name) for name in _asks(platform, service)) or "nobody"
    yield "publishes", _codes(service.events)
    yield "keeps", "; ".join(_kept(service)) or NONE
    yield "promises", ", ".join(_promises(service)) or "nothing"
    yield "runs in", ", ".join(_runs_in(platform, service))
    links = (f"[{name}](capabilities.md#{name})" for name in service.capabilities)
    yield "uses", ", ".join(links) or NONE


def _asks(platform: Platform, service: Service) -> Iterator[str]:
    for policy in platform.policies.values():
        if policy.caller == service.name:
            yield from (call.service for call in policy.calls)


def _kept(service: Service) -> Iterator[str]:
    for one in service.projections:
        late = f"{one.staleness_budget_ms / 1000:g} s"
        yield f"`{one.name}` of the log {', '.join(one.logs)}, at most {late} late"


def _promises(service: Service) -> Iterator[str]:
    if slo := service.slo:
        yield f"{slo.availability_percent:g} % available"
        if slo.latency_p99_ms:
            yield f"99 % of answers within {slo.latency_p99_ms} ms"
    if service.staleness_ms:
        yield f"at most {service.staleness_ms / 1000:g} s late"


def _runs_in(platform: Platform, service: Service) -> Iterator[str]:
    for one in platform.deployables.values():
        if service.name in one.services:
            yield f"[{one.name}](topologies.md#deployables)"


def _capabilities(platform: Platform) -> Iterator[str]:
    names = tuple(platform.topologies)
    yield "`off` < `embedded` < `single-node` < `distributed`."
    yield table(
        ("", *names),
        (
            (f"[{one.name}](#{one.name})", *(one.state_in(name) for name in names))
            for one in platform.capabilities.values()
        ),
    )
    for one in platform.capabilities.values():
        yield f"## {one.name}"
        yield f"{one.summary} ({source('capability', one.name)})"
        users = [s.name for s in platform.services.values() if one.name in s.capabilities]
        yield f"Used by {', '.join(map(_service, users)) or 'no service directly'}."
        given = ((g.topology, g.state, g.limits) for g in one.topologies)
        yield table(("topology", "how far", "limits"), given)


def _owners(platform: Platform) -> Iterator[str]:
    for owner in platform.owners.values():
        yield f"## {owner.name}"
        reached = f"[{owner.contact.removeprefix('mailto:')}]({owner.contact})"
        yield f"{owner.summary} {reached} ({source('owner', owner.name)})"
        owned = ", ".join(_service(name) for name in platform.owned_by(owner.name))
        paths = ", ".join(f"[{path}]({ROOT}/{path})" for path in owner.paths)
        yield table(("", ""), (("services", owned or NONE), ("paths", paths or NONE)))


def _service(name: str) -> str:
    return f"[{name}](services.md#{name})"


def _owner(service: Service) -> str:
    return f"[{service.owner}](owners.md#{service.owner})" if service.owner else "nobody"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or NONE


CATALOG = Generator("catalog", "the model as pages for people", ("catalog",), generate)
