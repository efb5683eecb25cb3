"""The schemas of the OpenAPI document, generated from the contracts."""

from pydantic.json_schema import models_json_schema

from flotilla_contracts import Command, Problem
from flotilla_contracts.counter import (
    ActivityPage,
    CounterPage,
    CounterReply,
    DecrementCounter,
    HistoryPage,
    IncrementCounter,
    TenantTotals,
)
from flotilla_contracts.health import LagReply
from flotilla_contracts.tenant import (
    AcceptInvitation,
    AssignPlan,
    ChangeRole,
    CreateTenant,
    InviteMember,
    RenameTenant,
    SuspendTenant,
)
from svc_web_bff.openapi_parts import Json, ref
from svc_web_bff.openapi_tenant_examples import EXAMPLES

_BODIES: dict[str, type[Command]] = {
    "IncrementBody": IncrementCounter,
    "DecrementBody": DecrementCounter,
    "CreateTenantBody": CreateTenant,
    "RenameTenantBody": RenameTenant,
    "SuspendTenantBody": SuspendTenant,
    "AssignPlanBody": AssignPlan,
    "ChangeRoleBody": ChangeRole,
    "InviteMemberBody": InviteMember,
    "AcceptInvitationBody": AcceptInvitation,
}
_PAGES = {"MemberPage": "cursor", "MembershipPage": "cursor", "AuditPage": "before"}
_ELSEWHERE = {"counter_id", "actor_id", "owner_id", "user_id"}
"""Fields of commands that no body has."""


def schemas() -> Json:
    """Return all schemas, generated from the contracts."""
    _, generated = models_json_schema(
        [
            (CounterReply, "serialization"),
            (CounterPage, "serialization"),
            (HistoryPage, "serialization"),
            (TenantTotals, "serialization"),
            (ActivityPage, "serialization"),
            (Problem, "serialization"),
            (LagReply, "serialization"),
            *((reply, "serialization") for reply in EXAMPLES),
        ],
        ref_template="#/components/schemas/{model}",
    )
    found: Json = generated["$defs"]
    # The page of the API carries an opaque cursor where the projector's carries an id.
    found["CounterPage"]["properties"]["next_cursor"]["description"] = (
        "Give it back as `cursor` to get the next page; null on the last one. Opaque."
    )
    found["HistoryPage"]["properties"]["next_after"]["description"] = (
        "Give it back as `after` to get the next page; null on the last one."
    )
    found["ActivityPage"]["properties"]["next_before"]["description"] = (
        "Give it back as `before` to get the next page; null on the last one."
    )
    for page, parameter in _PAGES.items():
        found[page]["properties"][f"next_{parameter}"]["description"] = (
            f"Give it back as `{parameter}` to get the next page; null on the last one."
        )
    for name, model in _BODIES.items():
        found[name] = _body_schema(name, model.model_json_schema())
    found["ResetBody"] = {
        "title": "ResetBody",
        "description": "Nothing to say; the body may also be left out.",
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    found["Readiness"] = _readiness_schema()
    found["Liveness"] = {
        "title": "Liveness",
        "type": "object",
        "properties": {"status": {"const": "ok"}},
        "required": ["status"],
    }
    return dict(sorted(found.items()))


def _body_schema(name: str, contract: Json) -> Json:
    """Return the contract command without what the path and the headers say."""
    fields = {key: value for key, value in contract["properties"].items() if key not in _ELSEWHERE}
    return {
        "title": name,
        "description": contract["description"],
        "type": "object",
        "properties": fields,
        "required": sorted(fields.keys() & set(contract["required"])),
        "additionalProperties": False,
    }


def _readiness_schema() -> Json:
    return {
        "title": "Readiness",
        "description": "Whether all services can do their work.",
        "type": "object",
        "properties": {
            "ready": {"type": "boolean"},
            "missing": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What is missing, in words, one line each: `<service>: <what>`.",
            },
            "lag": {
                "type": "object",
                "description": "How far behind, by service and by what lags in it.",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": ref("schemas", "LagReply"),
                },
            },
        },
        "required": ["ready", "missing", "lag"],
    }
