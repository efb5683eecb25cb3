"""What a build of images needs, from the lock file: packages of others by hash, and ours.

    context/
      wheels/                      the members of this workspace
      <deployable>/third-party/    what one image installs of others, unpacked for its Python
      <deployable>/members/        what it installs of ours
      <deployable>/bill/           its bill of materials
      *.py, flotilla               what the Dockerfile runs, and the command

uv unpacks here and not inside the build: it has most wheels in its cache already, takes a second
where pip takes ten, and the build needs no network and no installer.
"""

import json
import platform
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flotilla_platform.reading import read_platform
from images.settings import ROOT
from images.shell import Unable, run, step

PYTHON_VERSION = "3.13"
"""The interpreter of the base image; wheels are chosen for it."""
EPOCH_S = "315532800"
"""1980, as in finish.py: the time in every wheel of ours."""
TOPOLOGY = "compose"
"""One container a deployable: what has one there has an image."""
ALWAYS = ("--package", "flotilla-platform", "--package", "flotilla", "--extra", "otlp")
"""In every image: the command `flotilla`, and the exporter that its `--otlp-endpoint` needs."""
GLIBC_MINOR_MAX = 36
"""Debian 12; wheels for a newer one would not run on it."""
_FILES = ("distil.py", "finish.py", "healthy.py", "flotilla")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A deployable, and the members of the workspace that its services are."""

    name: str
    packages: tuple[str, ...]


def recipes() -> list[Recipe]:
    """Return what there is an image of, as the platform model has it."""
    model = read_platform(ROOT / "platform-model")
    return [
        Recipe(
            deployable.name,
            tuple(
                model.services[name].entrypoint.split(".")[0].replace("_", "-")
                for name in deployable.services
            ),
        )
        for deployable in model.layouts[TOPOLOGY].deployables
    ]


def prepare(context: Path, wanted: Sequence[Recipe]) -> None:
    """Fill the context, but for the bills of materials.

    Raises:
        Unable: the lock file is stale, or a package can be had from nowhere.
    """
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    for file in _FILES:
        shutil.copy2(ROOT / "deploy/docker" / file, context)
    wheels = context / "wheels"
    with step("built our wheels"):
        run(
            *("env", f"SOURCE_DATE_EPOCH={EPOCH_S}", uv(), "build", "--quiet", "--wheel"),
            *("--all-packages", "--out-dir", wheels),
            cwd=ROOT,
            timeout_s=300,
        )
    with step("unpacked what uv.lock names"):
        for recipe in wanted:
            folder = context / recipe.name
            for part, option in (
                ("third-party", "--no-emit-workspace"),
                ("members", "--only-emit-workspace"),
            ):
                (folder / part).mkdir(parents=True)
                listed = export(recipe, option)
                if part == "members":
                    listed = "".join(f"{wheel_of(wheels, line)}\n" for line in listed.splitlines())
                _unpack(
                    folder / part,
                    listed,
                    "--require-hashes" if part == "third-party" else "--no-index",
                )
            (folder / "bill").mkdir()


def _unpack(target: Path, requirements: str, *options: str) -> None:
    listing = target.with_suffix(".txt")
    listing.write_text(requirements)
    # Wheels for a glibc newer than the image's would not run in it.
    run(
        *(uv(), "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-config"),
        *("--python-version", PYTHON_VERSION),
        *("--python-platform", f"{platform.machine()}-manylinux_2_{GLIBC_MINOR_MAX}"),
        *("--link-mode", "copy", "--target", target, "--requirements", listing),
        *options,
        timeout_s=300,
    )


def export(recipe: Recipe, *options: str) -> str:
    """Return what the lock file says that one image installs.

    Raises:
        Unable: the lock file does not know the packages.
    """
    packages = [word for name in recipe.packages for word in ("--package", name)]
    shape = ("--no-header", "--no-annotate", "--frozen", "--no-dev", "--quiet")
    return run(uv(), "export", *shape, *packages, *ALWAYS, *options, cwd=ROOT)


def bill(recipe: Recipe) -> dict[str, Any]:
    """Return the lock file's bill of materials for one image."""
    shape = ("--format", "cyclonedx1.5", "--preview-features", "sbom-export")
    told: dict[str, Any] = json.loads(export(recipe, *shape))
    return told


def uv() -> Path:
    """Return uv's program: that on the machine, or the one that the Makefile installed.

    Raises:
        Unable: there is none, or it is a script, which would not run in an image.
    """
    for found in (shutil.which("uv"), ROOT / ".tools/bin/uv"):
        if found and Path(found).exists() and Path(found).read_bytes()[:4] == b"\x7fELF":
            return Path(found).resolve()
    raise Unable("uv's program is not found: make setup")


def wheel_of(wheels: Path, editable: str) -> Path:
    """Return the wheel of the member that `-e ./kernel` stands for."""
    project = ROOT / editable.removeprefix("-e ").strip() / "pyproject.toml"
    name: str = tomllib.loads(project.read_text())["project"]["name"]
    return next(wheels.glob(f"{name.replace('-', '_')}-[0-9]*.whl"))
