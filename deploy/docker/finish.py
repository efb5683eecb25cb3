"""Make a folder that becomes a layer small and the same whenever it is made.

    python3 finish.py /layer

Removes what no process reads, compiles what is left, so that nothing is written at run time, and
takes away the time of day. Bytecode is bound to its source by nothing at all (PEP 552,
unchecked): both lie in a file system that is read-only.
"""

import compileall
import os
import py_compile
import shutil
import sys
from pathlib import Path

EPOCH_S = 315532800
"""1980: the first moment that every archive format can say."""
UNREAD_FOLDERS = ("__pycache__", "tests", "test")
UNREAD_FILES = (
    *("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.hpp", "RECORD", "REQUESTED", ".lock"),
    *("direct_url.json", "uv_*.json"),  # where and when a wheel was unpacked
)
OUR_TEST_KITS = ("flotilla*/testing", "svc_*/testing", "svc_*/testing.py")
COMMANDS = {"flotilla"}


def trim(application: Path) -> None:
    """Remove what services do not read: tests, sources of compiled code, others' commands."""
    doomed = [p for name in UNREAD_FOLDERS for p in application.rglob(name) if p.is_dir()]
    doomed += [path for name in UNREAD_FILES for path in application.rglob(name)]
    doomed += [path for pattern in OUR_TEST_KITS for path in application.glob(pattern)]
    doomed += [path for path in application.glob("bin/*") if path.name not in COMMANDS]
    for path in doomed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if (commands := application / "bin").exists() and not any(commands.iterdir()):
        commands.rmdir()


def finish(root: Path) -> None:
    """Trim, compile, and set every time to the same."""
    if (root / "app").exists():
        trim(root / "app")
    done = compileall.compile_dir(
        root,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        workers=0,
        maxlevels=30,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        sys.exit("finish: some sources do not compile")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (EPOCH_S, EPOCH_S), follow_symlinks=False)
    os.utime(root, (EPOCH_S, EPOCH_S))


if __name__ == "__main__":
    finish(Path(sys.argv[1]))
