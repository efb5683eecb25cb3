"""The AsyncAPI 3.0 document of everything that travels over NATS."""

from typing import Any

from pydantic import BaseModel

from flotilla_contracts.catalog import ASKS, EVENTS
from flotilla_contracts.envelope import CONTENT_TYPE, SPEC_VERSION, Envelope
from flotilla_contracts.message import Event
from flotilla_contracts.wire import event_stream, event_subject

_TENANT = "{tenant}"


def asyncapi_document() -> dict[str, Any]:
    """Return the document: a channel a subject, an operation a side that a service takes."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for service, events in EVENTS.items():
        for event in events:
            name = event.__name__
            channels[name] = _event_channel(service, event)
            operations[f"publish{name}"] = _operation("send", name)
            messages[name] = _message(event, headers={"$ref": "#/components/schemas/EventHeaders"})
    for request in ASKS:
        name, reply = request.__name__, request.reply
        channels[name] = _channel(request.subject, request)
        channels[f"{name}Reply"] = {"address": None, "messages": _message_refs(reply.__name__)}
        operations[f"answer{name}"] = {
            **_operation("receive", name),
            "reply": {"channel": {"$ref": f"#/channels/{name}Reply"}},
        }
        messages[name] = _message(request)
        messages[reply.__name__] = _message(reply)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Flotilla",
            "version": "1",
            "description": "Events, commands and queries over NATS.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {"EventHeaders": _event_headers()}},
    }


def _event_channel(service: str, event: type[Event]) -> dict[str, Any]:
    subject = event_subject(service, "tenant", event.type)
    return {
        **_channel(subject.replace(".tenant.", f".{_TENANT}."), event),
        "parameters": {"tenant": {"description": "Whose event it is, percent-encoded."}},
        "bindings": {"nats": {"bindingVersion": "0.1.0"}},
        "description": f"On the JetStream stream {event_stream(service)}.",
    }


def _channel(address: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"address": address, "messages": _message_refs(model.__name__)}


def _message_refs(name: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"}}


def _operation(action: str, name: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{name}"}}


def _message(model: type[BaseModel], headers: dict[str, Any] | None = None) -> dict[str, Any]:
    name = model.type if issubclass(model, Event) else model.__name__
    message: dict[str, Any] = {
        "name": name,
        "summary": (model.__doc__ or "").strip().splitlines()[0],
        "contentType": CONTENT_TYPE,
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-07",
            "schema": _inlined(model),
        },
    }
    return message | ({"headers": headers} if headers else {})


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's schema with its definitions in place, so that no reference leaves it."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if reference := node.get("$ref"):
                return resolve(definitions[reference.rsplit("/", 1)[1]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _event_headers() -> dict[str, Any]:
    """Return the schema of an event's message headers: CloudEvents in binary mode."""
    fields = Envelope.model_json_schema()
    properties: dict[str, Any] = {"ce-specversion": {"const": SPEC_VERSION}}
    for name, field in fields["properties"].items():
        if name != "traceparent":
            text = {"type": "string", "description": field.get("description", "")}
            properties[f"ce-{name}"] = text
    properties["content-type"] = {"const": CONTENT_TYPE}
    properties["traceparent"] = {"type": "string", "description": "W3C trace context."}
    required = ["ce-specversion", "content-type", *(f"ce-{name}" for name in fields["required"])]
    return {"type": "object", "properties": properties, "required": required}
