"""What a scaffolding writes: all of it is known, and checked, before the first file is touched."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flotilla_platform.exit_codes import ExitCode, Failure


@dataclass(slots=True)
class Changes:
    """New files and edited ones of a checkout, by path from its root."""

    root: Path
    created: dict[str, str] = field(default_factory=dict)
    edited: dict[str, str] = field(default_factory=dict)

    def create(self, path: str, text: str) -> None:
        """Add a file.

        Raises:
            Failure: there is one already; nothing is ever overwritten.

        """
        if (self.root / path).exists() or path in self.created:
            wrong = f"{path} is there already: take another name, or remove it first"
            raise Failure(ExitCode.REFUSED, wrong)
        self.created[path] = text

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        """Change a file by a function of its text.

        Raises:
            Failure: it is not there, or has not the list that is to be extended.

        """
        try:
            text = self.edited.get(path) or (self.root / path).read_text(encoding="utf-8")
            self.edited[path] = change(text)
        except (OSError, KeyError, ValueError) as error:
            wrong = f"{path} cannot be extended ({error}): is this a checkout of Flotilla?"
            raise Failure(ExitCode.REFUSED, wrong) from error

    def write(self) -> None:
        """Write all of it: new files first, so that what lists them never lists nothing."""
        for path, text in (self.created | self.edited).items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
