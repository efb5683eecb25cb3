"""The definitions that this service is given, checked against the contracts before anything runs."""

from collections.abc import Mapping
from typing import Any

from flotilla.settings import StartRefused
from flotilla.workflow.book import Book, VersionChanged
from flotilla.workflow.checking import Contract, check
from flotilla.workflow.definition import Definition, DefinitionInvalid, definition_from
from flotilla_contracts.catalog import COMMANDS, EVENTS


def contract() -> Contract:
    """Return all that may be asked, and all that happens."""
    return Contract.of(COMMANDS, (event for group in EVENTS.values() for event in group))


def definitions(
    documents: Mapping[str, Any], environment: str, known: Contract
) -> tuple[Definition, ...]:
    """Return those that run in this environment.

    Raises:
        StartRefused: some cannot work (`workflow-invalid`); every mistake of every file is named.

    """
    found, wrong = list[Definition](), list[str]()
    for file, document in sorted(documents.items()):
        try:
            definition = definition_from(document, where=file)
            check(definition, known)
        except DefinitionInvalid as error:
            wrong.append(str(error) if str(error).startswith(file) else f"{file}: {error}")
        else:
            if not definition.environments or environment in definition.environments:
                found.append(definition)
    if wrong:
        raise StartRefused(DefinitionInvalid.default_code, "; ".join(wrong))
    return tuple(found)


async def publish(book: Book, found: tuple[Definition, ...]) -> None:
    """Make them known to every replica, now and later.

    Raises:
        StartRefused: a version was published with other content (`workflow-version-changed`).

    """
    try:
        await book.publish(found)
    except VersionChanged as error:
        raise StartRefused(error.code, str(error)) from error
