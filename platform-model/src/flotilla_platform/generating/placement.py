"""Pages of the catalog: which services share a process, and where how many of them run."""

from collections.abc import Iterator

from flotilla_platform.generating.mermaid import Flowchart, table
from flotilla_platform.generating.running import STORE_NEEDS
from flotilla_platform.model import Layout, Platform


def deployables(platform: Platform) -> Iterator[str]:
    """Yield what shares a process."""
    yield "## Deployables"
    yield table(
        ("deployable", "services", "replicas", "memory", "to stop"),
        (
            (
                f"**{one.name}**: {one.summary}",
                ", ".join(f"[{name}](services.md#{name})" for name in one.services),
                "any number" if one.may_be_replicated else "one",
                f"{one.resources.memory_limit_mib} MiB",
                f"{one.stop_timeout_s} s",
            )
            for one in platform.deployables.values()
        ),
    )


def topologies(platform: Platform) -> Iterator[str]:
    """Yield every topology with a picture of what runs in it."""
    for layout in platform.layouts.values():
        yield f"## {layout.name}"
        yield f"{layout.summary} Kind: `{layout.kind}`."
        yield _placement(layout).text()


def environments(platform: Platform) -> Iterator[str]:
    """Yield where topologies are deployed, and what is different there."""
    yield "## Environments"
    yield table(
        ("environment", "topology", "host", "profile", "images by", "replicas"),
        (
            (
                f"**{environment.name}**: {environment.summary}",
                f"[{layout.name}](#{layout.name})",
                f"`{environment.host}`",
                environment.profile,
                environment.image_tag,
                ", ".join(f"{placed.name} {placed.replicas}" for placed in layout.deployables),
            )
            for environment, layout in platform.deployments()
        ),
    )


def _placement(layout: Layout) -> Flowchart:
    chart = Flowchart("TB")
    store, bus = layout.resources
    needs = {service.name: set(service.needs) for service in layout.members}
    for resource in (store, bus):
        chart.node(resource.name, f"{resource.name}: {resource.engine}, {resource.server}", "store")
    for placed in layout.deployables:
        label = f"{placed.name} × {placed.replicas}"  # noqa: RUF001 - times
        inside = [(f"{placed.name} {name}", name) for name in placed.services]
        frame = f"frame {placed.name}"
        chart.group(frame, label, inside)
        together = set[str]().union(*(needs[name] for name in placed.services))
        if STORE_NEEDS & together:
            chart.edge(frame, store.name)
        if "bus" in together:
            chart.edge(frame, bus.name)
    return chart
