"""Commands that are imported when somebody runs them, so that help and every other one start at once.

    class Flotilla(OnDemandGroup):
        later = (Later("events", "recounting:events", "Show what happened in one stream."),)

The line that help shows is written twice, here and in the command's docstring; a test holds them
equal.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

Epilog = Callable[..., str]
"""Makes the examples at the end of a command's help from one line each."""


class Later(NamedTuple):
    """A command, or a group of them, in a module of this package."""

    name: str
    where: str
    """`module:function`; beside it `<FUNCTION>_EXAMPLES`. Or `module:…_app`: makes a Typer app."""
    summary: str
    """What `flotilla --help` says of it: the first sentence of its own help."""

    def load(self, epilog: Epilog) -> typer.Typer:
        """Import it."""
        module_name, _, attribute = self.where.partition(":")
        module = import_module(f"{__package__}.{module_name}")
        found = getattr(module, attribute)
        if attribute.endswith("_app"):
            made: typer.Typer = found(epilog)
            return made
        alone = typer.Typer(rich_markup_mode="rich", add_completion=False)
        examples = getattr(module, f"{attribute.upper()}_EXAMPLES")
        alone.command(self.name, epilog=epilog(*examples))(found)
        return alone


class OnDemandGroup(TyperGroup):
    """A group that lists all of its commands, and imports the one that is run."""

    later: ClassVar[Sequence[Later]] = ()
    epilog_of: ClassVar[Epilog]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in self.later:
            self.add_command(TyperCommand(entry.name, help=entry.summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` begin with, as every group does; and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        for entry in self.later:
            if entry.name == name:
                command = typer.main.get_command(entry.load(type(self).epilog_of))
                command.name = name
        return name, command, rest
