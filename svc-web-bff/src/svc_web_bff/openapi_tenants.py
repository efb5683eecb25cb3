"""The paths of tenants in the OpenAPI document."""

from dataclasses import dataclass

from flotilla_contracts import ErrorCode
from flotilla_contracts.message import Reply
from flotilla_contracts.tenant import (
    InvitationReply,
    InvitationsReply,
    MemberPage,
    MemberRemovedReply,
    MemberReply,
    QuotasReply,
    TenantReply,
)
from flotilla_contracts.tenant_views import AuditPage, MembershipPage
from svc_web_bff.openapi_parts import Json, answer, bodiless, content, problems, ref, refs
from svc_web_bff.openapi_tenant_examples import EXAMPLES, TOKEN
from svc_web_bff.tenants import ACCEPT, ONE

_WHO = ("User", "CorrelationId")
_USER_CODES = (ErrorCode.USER_MISSING, ErrorCode.USER_INVALID)
_READ_CODES = (
    *_USER_CODES,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.UNAVAILABLE,
    ErrorCode.ROUTE_NOT_FOUND,
)
_COMMAND_CODES = (
    *_READ_CODES,
    ErrorCode.MALFORMED_JSON,
    ErrorCode.IDEMPOTENCY_KEY_MISSING,
    ErrorCode.IDEMPOTENCY_KEY_INVALID,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.IF_MATCH_INVALID,
    ErrorCode.VERSION_MISMATCH,
    ErrorCode.CONFLICT,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.EVENT_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.UNSTORABLE,
)
_MEMBER_CODES = (
    ErrorCode.TENANT_NOT_FOUND,
    ErrorCode.TENANT_NOT_ACTIVE,
    ErrorCode.ROLE_NOT_ALLOWED,
)
_PERSONAL_CODES = (ErrorCode.SUBJECT_ERASED, ErrorCode.PERSONAL_TEXT_TOO_LONG)
_DONE = ("ETag", "X-Consistency-Token", "Idempotency-Replayed")


@dataclass(frozen=True, slots=True)
class _Command:
    """What the document says of a route that changes a tenant."""

    operation: str
    summary: str
    description: str
    example: Json
    codes: tuple[ErrorCode, ...] = ()
    reply: type[Reply] = TenantReply
    path: tuple[str, ...] = ()


_COMMANDS = {
    "/rename": _Command(
        "renameTenant",
        "Rename a tenant",
        "Gives it another name. For owners and admins.",
        {"name": "Acme & Sons"},
    ),
    "/suspend": _Command(
        "suspendTenant",
        "Suspend a tenant",
        "Nothing in it may change until it is resumed. For owners.",
        {"reason": "unpaid"},
    ),
    "/resume": _Command("resumeTenant", "Resume a tenant", "Lets it go on. For owners.", {}),
    "/close": _Command("closeTenant", "Close a tenant", "Ends it for good. For owners.", {}),
    "/plan": _Command(
        "assignPlan",
        "Change the plan",
        "Changes its limits; refused when more is used than the plan allows. For owners.",
        {"plan": "team"},
        (ErrorCode.QUOTA_EXCEEDED,),
    ),
    "/members/{user_id}/role": _Command(
        "changeRole",
        "Change a member's role",
        "For owners; for admins between `admin` and `member`. A tenant keeps an owner.",
        {"role": "admin"},
        (ErrorCode.MEMBER_NOT_FOUND, ErrorCode.LAST_OWNER),
        MemberReply,
        ("UserId",),
    ),
    "/members/{user_id}/remove": _Command(
        "removeMember",
        "Remove a member",
        "For owners and admins. To leave oneself, `leave`: that can be sent again.",
        {},
        (ErrorCode.MEMBER_NOT_FOUND, ErrorCode.LAST_OWNER),
        MemberRemovedReply,
        ("UserId",),
    ),
    "/invitations": _Command(
        "inviteMember",
        "Invite somebody",
        "Makes an invitation. Its `token` is in this answer and nowhere else: hand it over to whom"
        " it is for. For owners and admins; only owners invite owners.",
        {"email": "carol@example.org", "role": "member"},
        (ErrorCode.INVITATIONS_TOO_MANY, ErrorCode.QUOTA_EXCEEDED, *_PERSONAL_CODES),
        InvitationReply,
    ),
    "/invitations/{invitation_id}/revoke": _Command(
        "revokeInvitation",
        "Revoke an invitation",
        "Makes its token worthless. For owners and admins.",
        {},
        (ErrorCode.INVITATION_NOT_FOUND,),
        TenantReply,
        ("InvitationId",),
    ),
    "/leave": _Command(
        "leaveTenant",
        "Leave a tenant",
        "The user is no member from then on. The last owner stays.",
        {},
        (ErrorCode.LAST_OWNER, ErrorCode.MEMBER_NOT_FOUND),
        MemberRemovedReply,
    ),
}


def tenant_paths() -> Json:
    """Return the paths of tenants and invitations."""
    paths: Json = {
        "/v1/tenants": {"get": _mine(), "post": _create()},
        ONE: {"get": _get()},
        f"{ONE}/members": {"get": _members()},
        f"{ONE}/quotas": {"get": _quotas()},
        f"{ONE}/audit": {"get": _audit()},
        f"{ONE}/invitations": {"get": _invitations()},
        ACCEPT: {"post": _accept()},
    }
    for path, said in _COMMANDS.items():
        codes = (*_MEMBER_CODES, *said.codes)
        paths.setdefault(ONE + path, {})["post"] = _command(
            said, ("TenantId", *said.path), body_name(said.operation), *codes
        )
    return paths


def body_name(operation: str) -> str:
    """Return the name of the schema of an operation's body."""
    return f"{operation[0].upper()}{operation[1:]}Body"


def _create() -> Json:
    said = _Command(
        "createTenant",
        "Begin a tenant",
        "Whoever asks owns it. Its id is made here, from the user and the `Idempotency-Key`: nobody"
        " chooses one, so nobody learns which there are. It is `onboarding` until it is ready.",
        {"name": "Acme & Sons", "plan": "team", "owner_email": "ann@example.org"},
        (ErrorCode.TENANT_EXISTS, *_PERSONAL_CODES),
    )
    operation = _command(said, (), body_name(said.operation), *said.codes)
    created = operation["responses"].pop("200")
    created["headers"] = {"Location": ref("headers", "Location"), **created["headers"]}
    return operation | {"responses": {"201": created, **operation["responses"]}}


def _accept() -> Json:
    said = _Command(
        "acceptInvitation",
        "Accept an invitation",
        "The user becomes a member. A token that is wrong, late, revoked or used is one and the"
        " same: there is no such invitation. It is in the body because addresses are logged.",
        {"token": TOKEN, "display_name": "Carol"},
        (
            ErrorCode.INVITATION_NOT_FOUND,
            ErrorCode.MEMBER_EXISTS,
            ErrorCode.QUOTA_EXCEEDED,
            *_PERSONAL_CODES,
        ),
        MemberReply,
    )
    return _command(said, (), body_name(said.operation), *said.codes)


def _command(said: _Command, path: tuple[str, ...], body: str, *codes: ErrorCode) -> Json:
    schema = ref("schemas", body if said.example else "ResetBody")
    done = answer(
        "Done, and durable.", ref("schemas", said.reply.__name__), EXAMPLES[said.reply], _DONE
    )
    return {
        "operationId": said.operation,
        "tags": ["Tenants"],
        "summary": said.summary,
        "description": said.description,
        "parameters": refs("parameters", *path, "IdempotencyKey", "IfMatch", *_WHO),
        "requestBody": {
            "required": bool(said.example),
            "content": content("application/json", schema, said.example),
        },
        "responses": {"200": done, **problems(*_COMMAND_CODES, *codes)},
    }


def _mine() -> Json:
    return _read(
        ("listTenants", "My tenants", "The tenants that the user belongs to, by id."),
        ("Limit", "Cursor", "ConsistencyToken"),
        MembershipPage,
        ErrorCode.CURSOR_INVALID,
        ErrorCode.CONSISTENCY_TOKEN_INVALID,
        ErrorCode.VIEW_BEHIND,
    )


def _get() -> Json:
    operation = _read(
        ("getTenant", "One tenant", "What it is now, from its own events. For members."),
        ("TenantId", "IfNoneMatch"),
        TenantReply,
        ErrorCode.TENANT_NOT_FOUND,
    )
    found = answer("The tenant.", ref("schemas", "TenantReply"), EXAMPLES[TenantReply], ("ETag",))
    unchanged = bodiless("You have it already.", ("ETag",))
    return operation | {"responses": operation["responses"] | {"200": found, "304": unchanged}}


def _members() -> Json:
    return _read(
        ("listMembers", "Members", "A tenant's members in order of their ids. For members."),
        ("TenantId", "Limit", "Cursor"),
        MemberPage,
        ErrorCode.TENANT_NOT_FOUND,
        ErrorCode.CURSOR_INVALID,
    )


def _invitations() -> Json:
    return _read(
        ("listInvitations", "Invitations", "Those that wait, without tokens. For owners, admins."),
        ("TenantId",),
        InvitationsReply,
        ErrorCode.TENANT_NOT_FOUND,
        ErrorCode.ROLE_NOT_ALLOWED,
    )


def _quotas() -> Json:
    return _read(
        ("getQuotas", "Quotas", "How much of each quota is taken, of how much. For members."),
        ("TenantId",),
        QuotasReply,
        ErrorCode.TENANT_NOT_FOUND,
    )


def _audit() -> Json:
    return _read(
        (
            "listAudit",
            "Audit",
            "Every change: who, what, when, and a hash over all before. For owners and admins.",
        ),
        ("TenantId", "Limit", "Before", "ConsistencyToken"),
        AuditPage,
        ErrorCode.TENANT_NOT_FOUND,
        ErrorCode.ROLE_NOT_ALLOWED,
        ErrorCode.CONSISTENCY_TOKEN_INVALID,
        ErrorCode.VIEW_BEHIND,
    )


def _read(
    name: tuple[str, str, str], parameters: tuple[str, ...], reply: type[Reply], *codes: ErrorCode
) -> Json:
    """Return a read; `name` is the operation's id, its summary and its description."""
    found = answer("Here it is.", ref("schemas", reply.__name__), EXAMPLES[reply])
    return {
        "operationId": name[0],
        "tags": ["Tenants"],
        "summary": name[1],
        "description": name[2],
        "parameters": refs("parameters", *parameters, *_WHO),
        "responses": {"200": found, **problems(*_READ_CODES, *codes)},
    }
