"""Keep of this image what an interpreter needs to run, and nothing else: no shell, no package manager.

    python3 distil.py /layer /os-packages.json

Runs inside the build, in whatever image carries the Python. Writes a root file system, and the
list of the Debian packages that its files come from, for the bill of materials.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

UNUSED = shutil.ignore_patterns(
    "__pycache__",
    "config-3*",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "sqlite3",
    "test",
    "tests",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "*_test*.so",
    "_curses*.so",
    "_dbm*.so",
    "_gdbm*.so",
    "_sqlite3*.so",
    "_tkinter*.so",
    "readline*.so",
    "xx*.so",
)
"""Parts of the standard library that no service imports, and extensions that bring libraries."""
ALSO_LOADED = (
    *("libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"),
    *("libutil.so.1", "libresolv.so.2"),
)
"""Libraries that compiled wheels expect of every Linux (PEP 600)."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = 65532
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/none\nflotilla:x:{USER}:{USER}:flotilla:/tmp:/none\n",
    "etc/group": f"root:x:0:\nflotilla:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def libraries(files: list[Path]) -> set[Path]:
    """Return the shared libraries, the loader included, that these files ask for."""
    found: set[Path] = set()
    for file in files:
        asked = subprocess.run(["ldd", file], capture_output=True, text=True, check=False)
        if missing := re.findall(r"(\S+) => not found", asked.stdout):
            sys.exit(f"distil: {file} needs {', '.join(missing)}, which this image lacks")
        found |= {Path(name) for name in re.findall(r"(/\S+) \(0x", asked.stdout)}
    return found


def placed(file: Path) -> Path:
    """Return where a file really lies: `/lib` may be a link to `/usr/lib`."""
    return file.parent.resolve() / file.name


def packages(files: set[Path]) -> list[dict[str, str]]:
    """Return name, version and architecture of the Debian packages that own these files."""
    owners: set[str] = set()
    for file in files:
        # The database may know a file by its name from before /lib became a link.
        for name in {file, Path("/", *file.parts[2:])}:
            told = subprocess.run(
                ["dpkg-query", "--search", name], capture_output=True, text=True, check=False
            )
            owners |= {line.split(": ")[0] for line in told.stdout.splitlines()}
    if not owners:
        return []
    fields = "${Package}\t${Version}\t${Architecture}\n"
    told = subprocess.run(
        ["dpkg-query", "--show", "--showformat", fields, *sorted(owners)],
        capture_output=True,
        text=True,
        check=True,
    )
    keys = ("name", "version", "architecture")
    return [dict(zip(keys, line.split("\t"), strict=True)) for line in told.stdout.splitlines()]


def main(root: Path, listing: Path) -> None:
    """Write the root file system and the list of packages."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    interpreter = Path(sys.executable).resolve()
    shutil.copytree(
        stdlib,
        root / stdlib.relative_to("/"),
        ignore=UNUSED,
        symlinks=False,
        ignore_dangling_symlinks=True,
    )
    extensions = sorted((root / stdlib.relative_to("/")).rglob("*.so"))
    wanted = {placed(lib) for lib in libraries([interpreter, *extensions])}
    beside = next(lib.parent for lib in wanted if lib.name.startswith("libc.so"))
    wanted |= {beside / name for name in ALSO_LOADED} | {interpreter, CERTIFICATES}
    for file in sorted(wanted):
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    (interpreter_link := root / "usr/bin/python3").parent.mkdir(parents=True, exist_ok=True)
    interpreter_link.symlink_to(interpreter)
    for name in ("lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    owned = {file.resolve() for file in wanted} | {stdlib / "os.py", stdlib / "json/__init__.py"}
    what = {"python": platform.python_version(), "packages": packages(owned)}
    listing.write_text(json.dumps(what, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
