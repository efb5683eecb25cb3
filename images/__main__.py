"""The command line: `python -m images` (see `make images`)."""

import argparse
import sys

from rich.markup import escape

from images import build, engine, fleet, stand_ins
from images.shell import Unable, console

EPILOG = """examples:
  python -m images build --only counter    base images and engine first, where they are missing
  python -m images build --verify          build twice, without a cache; fail when anything differs
  python -m images engine                  print DOCKER_HOST of an engine; start one where none is
"""


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m images",
        description="Container images of the fleet.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    tasks.add_parser("engine", help="find or start a Docker engine")
    tasks.add_parser("engine-stop", help="stop the engine that we started; images stay")
    tasks.add_parser("base", help="pull the base images, or make stand-ins")
    building = tasks.add_parser("build", help="build the images")
    building.add_argument("--only", action="append", default=[], metavar="DEPLOYABLE")
    building.add_argument("--verify", action="store_true", help="build again and compare")
    tasks.add_parser("up", help="run the fleet in containers and wait until it is healthy")
    tasks.add_parser("down", help="stop it and remove its containers and data")
    chosen = parser.parse_args()
    try:
        return _run(chosen)
    except Unable as error:
        console.print(f"[red]✗[/] {escape(str(error))}")
        return 1


def _run(chosen: argparse.Namespace) -> int:
    if chosen.task == "engine-stop":
        console.print("stopped" if engine.stop() else "it did not run")
        return 0
    host = engine.ensure()
    if chosen.task == "base":
        made = stand_ins.provide(host)
        console.print(f"stand-ins: {', '.join(made) or 'none had to be made'}")
    elif chosen.task == "build":
        stand_ins.provide(host)
        images = build.build(host, chosen.only)
        if chosen.verify:
            build.verify(host, images)
    elif chosen.task == "up":
        fleet.up(host)
    elif chosen.task == "down":
        fleet.down(host)
    console.print(f"export DOCKER_HOST={host}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
