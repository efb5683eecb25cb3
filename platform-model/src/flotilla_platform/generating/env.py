"""What can be set of each deployable: a template of its environment, every line a comment.

The settings of a service are its code's: the class that its `settings` names, with names, defaults,
limits and descriptions. Where servers are found is the same for everybody. Secrets are in files.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from textwrap import wrap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flotilla_platform.generating.artifact import NOTICE, Artifacts, Generator
from flotilla_platform.generating.running import Runs, running
from flotilla_platform.generating.writing import comment
from flotilla_platform.model import Platform, Service

WIDTH = 100
UNITS = {
    "_ms": "milliseconds",
    "_s": "seconds",
    "_bytes": "bytes",
    "_events": "events",
    "_entries": "entries",
    "_messages": "messages",
    "_percent": "percent",
}
"""By how a name ends, without `_max` or `_min`."""


def settings_class(service: Service) -> type[BaseModel] | None:
    """Return the class with a service's settings; None when it has none.

    Raises `TypeError` when what is named is no class of settings, ImportError when it is not there.
    """
    if service.settings is None:
        return None
    module, _, name = service.settings.partition(":")
    found = getattr(import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise TypeError(f"{service.settings} is no class of settings")
    return found


def generate(platform: Platform) -> Artifacts:
    """Return a template a deployable that is a process of its own."""
    return {
        f"env/{one.name}.env.example": comment(
            f"{NOTICE}\nWhat can be set of {one.name}. What is not set is as it says here."
        )
        + "\n"
        + "\n".join(_entries(one))
        for one in running(platform)
    }


def _entries(one: Runs) -> Iterator[str]:
    """Yield an entry a setting: its description as comment lines, and its default, commented out."""
    form_store = "postgresql://user:password@host:5432/database"
    if one.uses_store:
        text = f"A file that holds where its store is: {form_store}"
        yield _entry("FLOTILLA_STORE_URL_FILE", "", text)
    form = "nats://user:password@host:4222, several with commas between them"
    yield _entry("FLOTILLA_NATS_URL_FILE", "", f"A file that holds where the broker is: {form}")
    if one.uses_keys:
        text = "A file that holds the master key of personal data: 32 bytes of base64url."
        yield _entry("FLOTILLA_MASTER_KEY_FILE", "", text)
        text = f"A file that holds where the data keys are, if not beside its store: {form_store}"
        yield _entry("FLOTILLA_KEYS_URL_FILE", "", text)
    if port := one.deployable.http_port:
        yield _entry("FLOTILLA_HTTP_HOST", "0.0.0.0", "Where it listens for requests.")  # noqa: S104 - as it is
        yield _entry("FLOTILLA_HTTP_PORT", str(port), "The port for requests.")
    yield _entry("FLOTILLA_ADMIN_HOST", "127.0.0.1", "Where /healthz, /readyz and /metrics are.")
    yield _entry("FLOTILLA_ADMIN_PORT", "0", "Their port; 0: any that is free.")
    for service in one.services:
        settings = settings_class(service)
        for name, field in settings.model_fields.items() if settings else ():
            yield _setting(f"{service.settings_prefix}{name.upper()}", name, field)


def _setting(variable: str, name: str, field: FieldInfo) -> str:
    described = " ".join((field.description or "").split())
    said = [described, _allowed(field), _unit(name)]
    return _entry(variable, _value(field.default), " ".join(filter(None, said)))


def _entry(variable: str, value: str, text: str) -> str:
    return comment("\n".join(wrap(text, WIDTH))) + f"#{variable}={value}\n"


def _value(default: Any) -> str:
    if default is PydanticUndefined or default is None:
        return ""
    return default if isinstance(default, str) else json.dumps(default)


def _unit(name: str) -> str:
    stem = name.removesuffix("_max").removesuffix("_min")
    return next((f"In {unit}." for end, unit in UNITS.items() if stem.endswith(end)), "")


def _allowed(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = [
        f"{word} {value}"
        for limit in field.metadata
        for key, word in words.items()
        if (value := getattr(limit, key, None)) is not None
    ]
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        limits.append(f"one of {', '.join(choices)}")
    text = ", ".join(limits)
    return f"{text[0].upper()}{text[1:]}." if text else ""


ENV = Generator("env", "what can be set of each deployable", ("env",), generate)
