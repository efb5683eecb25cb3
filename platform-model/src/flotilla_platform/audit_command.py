"""The commands `flotilla audit …`: what happened to tenants, and the proof that nothing of it lacks."""

import asyncio
import json as jsons
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import typer

from flotilla import telemetry
from flotilla.audit import AuditEntry, AuditTrail
from flotilla.auditing import FIRST, LAST, Audit, Difference, Kind, Log, Verified
from flotilla.clock import Clock, SystemClock
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.folding import Found, Opened, opened, projections_of
from flotilla_platform.options import (
    TOPOLOGY,
    AfterOffsetOption,
    AuditedTenantOption,
    AuditTenantOption,
    DataOption,
    DebugOption,
    HeadOption,
    JsonLinesOption,
    JsonOption,
    ParkedLimitOption,
    StreamCopyOption,
    TopologyOption,
    data_directory,
)
from flotilla_platform.progress import Words, reporting
from flotilla_platform.runtime import Runtime, find_running
from flotilla_platform.showing import make_console, plain, table_of

AUDIT_HELP = (
    "What happened to tenants, in chains of hashes: show it, and prove that nothing lacks.\n\n"
    "Keep a tenant's head somewhere else (`head`), and give it to `verify` later: then not even who "
    "could change all databases alike can have changed what was before it."
)
SHOW_EXAMPLES = ("flotilla audit show --tenant acme", "flotilla audit show --tenant acme --json")
HEAD_EXAMPLES = ("flotilla audit head --tenant acme --json | jq -r .hash > acme.head",)
VERIFY_EXAMPLES = (
    "flotilla audit verify                                        all tenants, store and view",
    "flotilla audit verify --stream                               and JetStream's copy",
    'flotilla audit verify --tenant acme --head "$(cat acme.head)"',
)
_HASH = re.compile(r"[0-9a-f]{64}")
_WORDS = Words(subject="audit", counted="entries")


@dataclass(frozen=True, slots=True)
class Trail:
    """An audit trail of a running fleet, opened."""

    trail: AuditTrail
    found: Found
    these: Opened


@asynccontextmanager
async def _opened(runtime: Runtime, clock: Clock) -> AsyncIterator[Trail]:
    for found in projections_of(runtime):
        if isinstance(found.projection, AuditTrail):
            async with opened(runtime, found, clock) as these:
                yield Trail(found.projection, found, these)
            return
    raise Failure(ExitCode.NOT_FOUND, "no service of this fleet keeps an audit trail")


def _run(
    work: Callable[[Trail, Runtime, Clock], Coroutine[Any, Any, ExitCode]],
    data: DataOption,
    topology: str,
    *,
    debug: bool,
) -> None:
    async def with_trail(runtime: Runtime, clock: Clock) -> ExitCode:
        async with _opened(runtime, clock) as trail:
            return await work(trail, runtime, clock)

    def run() -> ExitCode:
        telemetry.configure("flotilla-audit", log_level="error")
        runtime = find_running(data_directory(data, topology))
        return asyncio.run(with_trail(runtime, SystemClock()))

    finish(run, debug=debug)


def audit_show(
    *,
    tenant: AuditTenantOption,
    after: AfterOffsetOption = 0,
    limit: ParkedLimitOption = 100,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonLinesOption = False,
    debug: DebugOption = False,
) -> None:
    """Show who did what to a tenant, in order. No name or address is in it.

    Exit status: 0; 11 when there is no such tenant; 7 when nothing is running.
    """

    async def work(trail: Trail, _: Runtime, __: Clock) -> ExitCode:
        views = trail.these.places.live
        if await trail.trail.last(views, tenant) is None:
            raise _no_tenant(tenant)
        entries = await trail.trail.entries(
            views, after=after or FIRST, upto=LAST, tenant=tenant, limit=limit
        )
        if json:
            for entry in entries:
                typer.echo(jsons.dumps(describe(entry)))
            return ExitCode.OK
        table = table_of("number", "offset", "when", "what", "about", "who", "hash")
        for entry in entries:
            table.add_row(
                *(str(entry.number), str(entry.offset), f"{entry.recorded_at:%Y-%m-%d %H:%M:%S}"),
                *map(plain, (entry.type, entry.about or "", entry.actor_id or "", entry.hash[:16])),
            )
        make_console().print(table)
        return ExitCode.OK

    _run(work, data, topology, debug=debug)


def audit_head(
    *,
    tenant: AuditTenantOption,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show where a tenant's chain ends: a hash to be kept somewhere else.

    Exit status: 0; 11 when there is no such tenant; 7 when nothing is running.
    """

    async def work(trail: Trail, _: Runtime, __: Clock) -> ExitCode:
        last = await trail.trail.last(trail.these.places.live, tenant)
        if last is None:
            raise _no_tenant(tenant)
        if json:
            typer.echo(jsons.dumps({"format": 1, **_head(tenant, last)}))
        else:
            typer.echo(f"{last.hash}  {tenant}, {last.number} entries, up to offset {last.offset}")
        return ExitCode.OK

    _run(work, data, topology, debug=debug)


def audit_verify(
    *,
    tenant: AuditedTenantOption = None,
    head: HeadOption = None,
    stream: StreamCopyOption = False,
    topology: TopologyOption = TOPOLOGY,
    data: DataOption = None,
    json: JsonLinesOption = False,
    debug: DebugOption = False,
) -> None:
    """Make every entry again from the event store, and compare it with the audit view.

    Names the first entry that is missing, changed, inserted or out of order, or
    where an end is cut off. With --stream the same against JetStream's copy: of
    store, view and stream the one that disagrees with the others was changed.

    Exit status: 0 when all is as it was recorded, 42 when not, 7 when nothing is running.
    """

    async def work(trail: Trail, runtime: Runtime, clock: Clock) -> ExitCode:
        if head is not None and (tenant is None or not _HASH.fullmatch(head)):
            raise Failure(ExitCode.USAGE, "--head is 64 hex digits, and --tenant says whose it is")
        these = trail.these
        audit = Audit(
            *(these.projection, trail.trail, these.places.live),
            *(_log(these), these.source),
            tenant=tenant,
            head=head,
        )
        audits = [audit]
        if stream:
            read = trail.found.models.read_stream(runtime.nats_url, these.projection.log)
            audits.append(audit.against("stream", read))
        sound = True
        for one in audits:
            started_s = clock.monotonic_s()
            with reporting(one.place, clock, as_json=json, words=_WORDS) as report:
                one.report = report
                verified = await one.run()
            tell(one, verified, clock.monotonic_s() - started_s, json=json)
            sound = sound and verified.difference is None
        return ExitCode.OK if sound else ExitCode.AUDIT_BROKEN

    _run(work, data, topology, debug=debug)


def _log(these: Opened) -> Log:
    ledger = these.ledger
    if not isinstance(ledger, Log):
        raise TypeError(f"{ledger!r} has no streams")
    return ledger


def tell(audit: Audit, verified: Verified, took_s: float, *, json: bool) -> None:
    """Print what came of a verification: its document, or a few lines."""
    if json:
        typer.echo(jsons.dumps(_document(audit, verified, took_s)))
        return
    rate = verified.entries / max(took_s, 1e-6)
    typer.echo(
        f"{audit.place}: {verified.entries} entries up to offset {verified.upto} are as recorded"
        f" ({rate:,.0f} a second)"
    )
    if verified.head_at is not None:
        typer.echo(f"the head that was kept elsewhere is at offset {verified.head_at}")
    if (found := verified.difference) is not None:
        for line in in_words(found):
            typer.echo(line)


def in_words(found: Difference) -> Sequence[str]:
    """Say what is wrong with the first entry that is not what it should be."""
    if found.kind == Kind.HEAD_UNKNOWN:
        said = "BROKEN: no entry of the chain has the hash that was kept elsewhere"
        return [said, "  what was before it was changed in all copies, or cut off"]
    said = f"BROKEN at offset {found.offset}: {found.kind} in the {found.place}"
    if found.fields:
        said += f" ({', '.join(found.fields)})"
    sides = [("the log has", found.expected), ("the view has", found.found)]
    return [said, *(f"  {who}: {_line(entry)}" for who, entry in sides)]


def _line(entry: AuditEntry | None) -> str:
    if entry is None:
        return "nothing there"
    text = (
        f"{entry.type} of {entry.stream}@{entry.version}, number {entry.number} of {entry.tenant},"
        f" by {entry.actor_id}, {entry.recorded_at.isoformat()}, {entry.hash[:16]}"
    )
    return "".join(c if c.isprintable() else "?" for c in text)


def _document(audit: Audit, verified: Verified, took_s: float) -> dict[str, object]:
    """Return what `--json` prints last of each copy; fields are only added."""
    found = verified.difference
    return {
        "kind": "verified",
        "place": audit.place,
        "sound": found is None,
        "entries": verified.entries,
        "upto": verified.upto,
        "took_s": round(took_s, 3),
        "head_at": verified.head_at,
        "heads": [_head(tenant, entry) for tenant, entry in verified.heads.items()],
        "difference": found
        and {
            "kind": found.kind,
            "place": found.place,
            "offset": found.offset,
            "fields": found.fields,
            "expected": found.expected and describe(found.expected),
            "found": found.found and describe(found.found),
        },
    }


def describe(entry: AuditEntry) -> dict[str, object]:
    """Return an entry for programs; fields are only added."""
    return {
        "tenant": entry.tenant,
        "number": entry.number,
        "offset": entry.offset,
        "stream": entry.stream,
        "version": entry.version,
        "event_id": entry.event_id,
        "type": entry.type,
        "actor_id": entry.actor_id,
        "about": entry.about,
        "recorded_at": entry.recorded_at.isoformat(),
        "hash": entry.hash,
    }


def _head(tenant: str, last: AuditEntry) -> dict[str, object]:
    return {
        "tenant": tenant,
        "entries": last.number,
        "offset": last.offset,
        "hash": last.hash,
    }


def _no_tenant(tenant: str) -> Failure:
    return Failure(ExitCode.NOT_FOUND, f"nothing is known of a tenant {tenant!r}")


def audit_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla audit`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=AUDIT_HELP, no_args_is_help=True, rich_markup_mode="rich")
    commands.command("show", epilog=make(*SHOW_EXAMPLES))(audit_show)
    commands.command("head", epilog=make(*HEAD_EXAMPLES))(audit_head)
    commands.command("verify", epilog=make(*VERIFY_EXAMPLES))(audit_verify)
    return commands
