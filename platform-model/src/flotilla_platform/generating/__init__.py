"""What is deployed, from the model alone: every generator turns a `Platform` into text files.

    platform-model/*.yaml ──Platform──▶ generators ──Artifacts──▶ deploy/   (committed, drift-checked)

A generator is pure: no clock, no chance, no file, no environment variable; the same model gives the
same bytes. A new one is a module here and an entry in `GENERATORS`. It owns its folders below `deploy/`:
what lies there and is not generated is stale. Files start with `NOTICE`, in the comment syntax of their
format, except where the format has none.
"""

from pathlib import Path

from flotilla_platform.generating.artifact import DEPLOY, Generator
from flotilla_platform.generating.catalog import CATALOG
from flotilla_platform.generating.compose import COMPOSE
from flotilla_platform.generating.env import ENV
from flotilla_platform.generating.flux import FLUX
from flotilla_platform.generating.grafana import GRAFANA
from flotilla_platform.generating.kustomize import KUSTOMIZE
from flotilla_platform.generating.nats import NATS
from flotilla_platform.generating.otel import OTEL
from flotilla_platform.generating.postgres import POSTGRES
from flotilla_platform.generating.prometheus import PROMETHEUS
from flotilla_platform.generating.systemd import SYSTEMD
from flotilla_platform.generating.vector import VECTOR
from flotilla_platform.model import Platform

__all__ = ["DEPLOY", "GENERATORS", "artifacts", "stale_artifacts", "write_artifacts"]

GENERATORS: tuple[Generator, ...] = (
    CATALOG,
    COMPOSE,
    ENV,
    FLUX,
    KUSTOMIZE,
    GRAFANA,
    NATS,
    OTEL,
    POSTGRES,
    PROMETHEUS,
    SYSTEMD,
    VECTOR,
)


def artifacts(platform: Platform) -> dict[str, str]:
    """Return every file that the model gives, by its path below `deploy/`, in the order of the paths."""
    found: dict[str, str] = {}
    for generator in GENERATORS:
        for path, text in generator.generate(platform).items():
            if path in found or path.split("/", 1)[0] not in generator.folders:
                raise AssertionError(f"{generator.name} does not own {path}")
            found[path] = text
    return dict(sorted(found.items()))


def stale_artifacts(platform: Platform, root: Path) -> list[str]:
    """Return the paths below `root` (`deploy/`) that are not what `artifacts` says, or not in it."""
    fresh = artifacts(platform)
    folders = {folder for generator in GENERATORS for folder in generator.folders}
    there = {
        file.relative_to(root).as_posix(): file
        for folder in sorted(folders)
        for file in (root / folder).rglob("*")
        if file.is_file()
    }
    return sorted(
        path
        for path in fresh.keys() | there.keys()
        if path not in fresh
        or path not in there
        or there[path].read_bytes() != fresh[path].encode("utf-8")
    )


def write_artifacts(platform: Platform, root: Path) -> list[str]:
    """Write what is stale, delete what is no more; return what changed."""
    fresh, changed = artifacts(platform), stale_artifacts(platform, root)
    for path in changed:
        file = root / path
        if path in fresh:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(fresh[path], encoding="utf-8")
        else:
            file.unlink()
    return changed
