"""What a new service is made from: a few names, one aggregate, what it can be told."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flotilla_platform.exit_codes import ExitCode, Failure

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=32)]
FieldName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=32)
]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n\"\\:#{}\[\]]+[.]$", max_length=90)]
FieldType = Literal["text", "integer"]
_TAKEN = {"status", "version", "type", "class", "from", "import", "is", "in", "def", "pass", "not"}
_ASKED = re.compile(r"(?P<command>[a-z0-9-]+)=(?P<event>[a-z0-9-]+)(?:\((?P<fields>[^)]*)\))?")


class Told(BaseModel):
    """A command, and the event that follows from it; both have the same fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Name
    event: Name
    fields: dict[FieldName, FieldType] = {}


class ServiceAnswers(BaseModel):
    """The answer set of `flotilla new service`. The first command creates the aggregate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Name
    summary: Line
    owner: Name
    contact: str = "mailto:team@flotilla.example"
    aggregate: Name
    commands: Annotated[tuple[Told, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        kinds: dict[str, str] = {}
        for told in self.commands:
            for name, kind in told.fields.items():
                if name in _TAKEN or name == f"{self.aggregate.replace('-', '_')}_id":
                    raise ValueError(f"{name!r} cannot be a field's name: take another one")
                if kinds.setdefault(name, kind) != kind:
                    raise ValueError(f"{name!r} is text and integer: give one of them another name")
        for what in ("command", "event"):
            names = [getattr(told, what) for told in self.commands]
            if len({*names}) < len(names):
                raise ValueError(f"every {what} needs a name of its own")
        return self

    @property
    def fields(self) -> dict[str, FieldType]:
        """Every field of the aggregate, by name."""
        return {name: kind for told in self.commands for name, kind in told.fields.items()}


def read_answers(file: Path) -> ServiceAnswers:
    """Return the answer set in a YAML file.

    Raises:
        Failure: it is not there, no YAML, or no answer set: each mistake is named.

    """
    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise Failure(ExitCode.USAGE, f"{file}: cannot be read: {error}") from error
    return checked(content)


def told(text: str) -> dict[str, object]:
    """Return `issue=issued(amount:integer,customer:text)` as data. Raises `Failure`."""
    found = _ASKED.fullmatch(text.replace(" ", ""))
    if found is None:
        wrong = f"{text!r}: write --command 'issue=issued(amount:integer,customer:text)'"
        raise Failure(ExitCode.USAGE, wrong)
    pairs = [pair.partition(":") for pair in (found["fields"] or "").split(",") if pair]
    fields = {name: kind or "text" for name, _, kind in pairs}
    return {"command": found["command"], "event": found["event"], "fields": fields}


def checked(content: object) -> ServiceAnswers:
    """Return data as an answer set. Raises `Failure` with every mistake on a line of its own."""
    try:
        return ServiceAnswers.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc'])) or 'answers'}: {one['msg']}" for one in error.errors()
        ]
        raise Failure(ExitCode.USAGE, "\n".join(lines)) from error
