"""Packages of Debian 13, signed, whatever this machine runs: fetched and unpacked, not installed."""

from collections.abc import Sequence
from pathlib import Path

from images.settings import settings
from images.shell import Unable, run

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Packages:
    """An apt of our own: its lists, cache and idea of what is installed (nothing) in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = False

    def fetch(self, names: Sequence[str], *, alone: bool = False) -> list[Path]:
        """Fetch packages with all they depend on, or `alone`; return the archives.

        Raises:
            Unable: there is no apt, or the mirror does not answer.
        """
        self._prepare()
        target = self._folder / ("alone" if alone else "whole")
        (target / "partial").mkdir(parents=True, exist_ok=True)
        if alone:
            run("apt-get", *self._options(target), "download", *names, cwd=target, timeout_s=180)
            return [found for name in names for found in target.glob(f"{name}_*.deb")]
        run(
            *("apt-get", *self._options(target), "install", "--yes", "--download-only"),
            *("--no-install-recommends", *names),
            timeout_s=300,
        )
        return sorted(target.glob("*.deb"))

    def _prepare(self) -> None:
        if self._ready:
            return
        if not KEYRING.exists():
            raise Unable(f"Debian packages cannot be checked: {KEYRING} is missing")
        for part in ("lists/partial", "whole/partial", "alone/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        mirror = settings().debian_mirror
        source = f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n"
        (self._folder / "sources.list").write_text(source)
        (self._folder / "status").touch()
        run("apt-get", *self._options(self._folder / "whole"), "update", timeout_s=180)
        self._ready = True

    def _options(self, archives: Path) -> list[str]:
        told = {
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/nonexistent",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::Status": self._folder / "status",
            "Dir::Cache::Archives": archives,
            "Dir::Cache::PkgCache": "",
            "Dir::Cache::SrcPkgCache": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "true",
        }
        return [word for key, value in told.items() for word in ("-o", f"{key}={value}")]


def unpack(archives: Sequence[Path], root: Path) -> None:
    """Unpack packages into a folder that is to become a root file system, and list them there.

    Their scripts are not run. `/var/lib/dpkg` knows them afterwards, as `dpkg-query` expects.
    """
    known = root / "var/lib/dpkg"
    (known / "info").mkdir(parents=True)
    (known / "info/format").write_text("1\n")
    status = list[str]()
    # base-files brings the links from /lib to /usr/lib: before anything lies there.
    for archive in sorted(archives, key=lambda path: not path.name.startswith("base-files_")):
        run("dpkg-deb", "--extract", archive, root)
        fields = run("dpkg-deb", "--field", archive)
        status.append(f"{fields.rstrip()}\nStatus: install ok unpacked\n")
        listed = run("dpkg-deb", "--contents", archive).splitlines()
        names = [line.split(None, 5)[5].split(" -> ")[0][1:].rstrip("/") or "/." for line in listed]
        (known / f"info/{_name(archive, fields)}.list").write_text("\n".join(names) + "\n")
    (known / "status").write_text("\n".join(status))


def _name(archive: Path, fields: str) -> str:
    same = "Multi-Arch: same" in fields
    name, _, architecture = archive.stem.split("_")
    return f"{name}:{architecture}" if same else name
