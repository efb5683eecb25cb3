"""One image a deployable: small, without a shell, and the same from the same commit."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from images import bill, context
from images.context import Recipe
from images.seal import moment, seal
from images.settings import ROOT, settings
from images.shell import Unable, run, step, works
from images.stand_ins import PYTHON

NAME = "flotilla/{}"
SBOM = "/usr/share/sbom/image.cdx.json"
_DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
BUILD_MAX_S = 600.0


@dataclass(frozen=True, slots=True)
class Commit:
    """What is built: the commit, its time in seconds since 1970, and the version of the members."""

    revision: str
    moment_s: int
    version: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the engine."""

    name: str
    id: str
    size_bytes: int
    layers: tuple[str, ...]


def build(host: str, only: Sequence[str] = (), *, cached: bool = True) -> list[Image]:
    """Build the images, or `only` some of them; their bills of materials go to `dist/sbom`.

    Raises:
        Unable: there is no such deployable, or the build failed.
    """
    wanted = [recipe for recipe in context.recipes() if not only or recipe.name in only]
    if unknown := set(only) - {recipe.name for recipe in wanted}:
        known = ", ".join(recipe.name for recipe in context.recipes())
        raise Unable(f"there is no deployable {', '.join(sorted(unknown))}: there are {known}")
    commit = read_commit()
    output = settings().output
    folder = output / "images"
    context.prepare(folder, wanted)
    with step("distilled the interpreter"):
        _buildx(
            host,
            folder,
            wanted[0].name,
            "os-packages",
            cached,
            "--output",
            f"type=local,dest={folder}",
        )
    packages: dict[str, Any] = json.loads((folder / "os-packages.json").read_text())
    made = []
    for recipe in wanted:
        name = NAME.format(recipe.name)
        with step(f"built {name}") as notes:
            text = bill.complete(
                context.bill(recipe), name, commit.version, packages, commit.moment_s
            )
            (output / "sbom").mkdir(exist_ok=True)
            (output / f"sbom/{recipe.name}.cdx.json").write_text(text)
            (folder / recipe.name / "bill/image.cdx.json").write_text(text)
            image = _build(host, folder, recipe, commit, cached=cached)
            notes += [f"{image.size_bytes / 1e6:.1f} MB", image.id.removeprefix("sha256:")[:12]]
            made.append(image)
    return made


def read_commit() -> Commit:
    """Return what is checked out."""
    revision, seconds = run("git", "log", "-1", "--format=%H %ct", cwd=ROOT).split()
    project = tomllib.loads((ROOT / "kernel/pyproject.toml").read_text())["project"]
    return Commit(revision, int(seconds), project["version"])


def _build(host: str, folder: Path, recipe: Recipe, commit: Commit, *, cached: bool) -> Image:
    name = NAME.format(recipe.name)
    labels = {
        "title": name,
        "description": f"The deployable {recipe.name} of Flotilla",
        "version": commit.version,
        "revision": commit.revision,
        "created": moment(commit.moment_s),
        "licenses": "Apache-2.0",
        "base.name": PYTHON,
    }
    told = [
        word for k, v in labels.items() for word in ("--label", f"org.opencontainers.image.{k}={v}")
    ]
    told += ["--label", f"io.flotilla.sbom={SBOM}"]
    told += ["--build-arg", f"SOURCE_DATE_EPOCH={commit.moment_s}"]
    _buildx(host, folder, recipe.name, recipe.name, cached, *told, "--tag", f"{name}:latest")
    _seal(host, name, commit.moment_s)
    run("docker", "--host", host, "tag", name, f"{name}:{commit.version}")
    return inspect(host, name)


def inspect(host: str, name: str) -> Image:
    """Return what the engine knows of an image."""
    [told] = json.loads(run("docker", "--host", host, "image", "inspect", name))
    return Image(name, told["Id"], told["Size"], tuple(told["RootFS"]["Layers"]))


def _seal(host: str, name: str, moment_s: int) -> None:
    [told] = json.loads(run("docker", "--host", host, "image", "inspect", name))
    if told["Created"].startswith(moment(moment_s).removesuffix("Z")):
        return
    with TemporaryDirectory(prefix="flotilla-image-") as temporary:
        saved, again = Path(temporary, "saved.tar"), Path(temporary, "sealed.tar")
        run("docker", "--host", host, "save", "--output", saved, f"{name}:latest", timeout_s=300)
        seal(saved, again, moment(moment_s))
        run("docker", "--host", host, "load", "--quiet", "--input", again, timeout_s=300)
    # The one with the time of day in it has no name any more, and shares all layers.
    works("docker", "--host", host, "image", "rm", told["Id"])


def _buildx(
    host: str, folder: Path, deployable: str, target: str, cached: bool, *options: str
) -> None:
    run(
        *("docker", "--host", host, "buildx", "build", "--quiet", "--file", _DOCKERFILE),
        *("--target", target, "--build-arg", f"DEPLOYABLE={deployable}"),
        *(() if cached else ("--no-cache",)),
        *options,
        folder,
        timeout_s=BUILD_MAX_S,
    )


def verify(host: str, first: Sequence[Image]) -> None:
    """Build the same again without a cache, and compare.

    Raises:
        Unable: an image differs; which of its layers do is told.
    """
    again = build(host, [image.name.removeprefix(NAME.format("")) for image in first], cached=False)
    for one, other in zip(first, again, strict=True):
        if one.id != other.id:
            layers = zip(one.layers, other.layers, strict=False)
            different = [str(n) for n, (a, b) in enumerate(layers) if a != b]
            where = f"layers {', '.join(different)}" if different else "the configuration"
            raise Unable(
                f"{one.name} is not reproducible: {where} of {one.id} and {other.id} differ"
            )
    with step("two builds without a shared cache are the same images"):
        pass
