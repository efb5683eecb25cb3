"""Events as text: the stored event is the contract event."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from pydantic import BaseModel, TypeAdapter, ValidationError

from flotilla.errors import Corrupt, Unavailable
from flotilla.store import RecordedEvent

type Json = dict[str, object]

_TYPE = re.compile(r"[^.\s]+\.[^.\s]+\.v[1-9][0-9]*")
_JSON: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class UnknownEventType(Unavailable):
    """A newer version of this service wrote the event. What cannot be read must not be decided on.

    Nothing is damaged: the event stays as it is, everybody who only passes it on still does, and a
    replica that knows the type answers. So this is for callers to retry, not for them to give up.
    """

    default_code = "event-type-unknown"


class Codec[E](Protocol):
    """How one aggregate's events are written and read."""

    def encode(self, event: E) -> tuple[str, str]:
        """Return the event's type and its JSON text."""
        ...

    def decode(self, recorded: RecordedEvent) -> E:
        """Return the event, in its current version.

        Raises `UnknownEventType` when it knows no such type, `Corrupt` when it cannot be read.
        """
        ...

    def ignores(self, kind: str) -> bool:
        """Return whether events of this type count as versions and change no state."""
        ...


class ContractCodec[E: BaseModel]:
    """Reads and writes contract events: pydantic models with a `type` (`counter.opened.v1`).

    `upcasters` turn the JSON of a historic type into that of its successor: `{"counter.opened.v1":
    ("counter.opened.v2", add_owner)}`. Chains are followed until a current type is reached.

    `ignored` are types that a newer version may have written and that matter to no decision here.
    """

    def __init__(
        self,
        events: Iterable[type[E]],
        upcasters: Mapping[str, tuple[str, Callable[[Json], Json]]] | None = None,
        *,
        ignored: Iterable[str] = (),
    ) -> None:
        self._models: dict[str, type[E]] = {}
        for model in events:
            kind = _type_of(model)
            if not _TYPE.fullmatch(kind):  # it names a subject, and its version is read from it
                raise ValueError(f"{model.__name__}: {kind!r} is not <aggregate>.<event>.v<number>")
            self._models[kind] = model
        self._upcasters = dict(upcasters or {})
        for old in self._upcasters:
            self._check_path(old)
        self._ignored = frozenset(ignored)
        if both := self._ignored & (self._models.keys() | self._upcasters.keys()):
            raise ValueError(f"read or ignored, not both: {', '.join(sorted(both))}")

    def encode(self, event: E) -> tuple[str, str]:
        """Return the event's type and its JSON text."""
        return _type_of(type(event)), event.model_dump_json()

    def ignores(self, kind: str) -> bool:
        """Return whether events of this type count as versions and change no state."""
        return kind in self._ignored

    def decode(self, recorded: RecordedEvent) -> E:
        """Return the event, in its current version."""
        kind, payload = recorded.type, recorded.payload
        if kind not in self._models and kind not in self._upcasters:
            raise UnknownEventType(
                f"{recorded.stream}@{recorded.version}: {kind} was written by a newer version, which"
                " this one cannot decide on: deploy the version that knows it, or, if it matters to"
                " no decision, name it in the codec's `ignored`"
            )
        try:
            if kind in self._models:
                return self._models[kind].model_validate_json(payload)
            return self._upcast(kind, payload)
        except Exception as error:  # noqa: BLE001 - whatever an upcaster trips over, it is unreadable
            raise Corrupt(
                f"{recorded.stream}@{recorded.version}: cannot read {kind}: {_why(error)}"
            ) from (None if isinstance(error, ValidationError) else error)

    def _check_path(self, kind: str) -> None:
        path = [kind]
        while path[-1] not in self._models:
            if path[-1] not in self._upcasters:
                raise ValueError(
                    f"the upcaster of {path[-2]} leads to {path[-1]}, which nobody reads"
                )
            path.append(self._upcasters[path[-1]][0])
            if path[-1] in path[:-1]:
                raise ValueError(f"the upcasters go round in circles: {' → '.join(path)}")

    def _upcast(self, kind: str, payload: str) -> E:
        data = _JSON.validate_json(payload)
        while kind not in self._models:
            kind, step = self._upcasters[kind]
            data = step(data)
        return self._models[kind].model_validate(data, strict=False)


def _type_of(model: type[BaseModel]) -> str:
    kind = getattr(model, "type", None)
    if not isinstance(kind, str):
        raise TypeError(f"{model.__name__} needs a ClassVar `type`, such as 'counter.opened.v1'")
    return kind


def _why(error: Exception) -> str:
    """Return what is wrong, without the values: they are people's, and this goes into logs."""
    if not isinstance(error, ValidationError):
        return repr(error)
    lines = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in lines)
