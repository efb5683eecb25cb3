"""Every option of the command line, once: its names, its environment variable, what it is for."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flotilla_platform.limits import EVENTS_MAX, LIMIT_EVENTS, PARTITIONS_MAX, VERSION_MAX

TOPOLOGY = "single"
"""What runs when nobody chooses."""
HOST = "127.0.0.1"
PORT = 8080
PORT_MAX = 65_535

LogFormat = Literal["auto", "json", "pretty"]
LogLevel = Literal["debug", "info", "warning", "error"]

TopologyOption = Annotated[
    str,
    typer.Option(
        "--topology", "-t", envvar="FLOTILLA_TOPOLOGY", help="Which one: see `flotilla topologies`."
    ),
]
DeployableArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEPLOYABLE", help="Which part of the topology this process is.", show_default=False
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "-d",
        envvar="FLOTILLA_DATA",
        file_okay=False,
        help="Where everything is kept. Default: .flotilla/<topology>",
    ),
]
PortOption = Annotated[
    int,
    typer.Option(
        "--port",
        "-p",
        envvar="FLOTILLA_PORT",
        min=0,
        max=PORT_MAX,
        help="Where the REST API listens; 0 takes any free port.",
    ),
]
HostOption = Annotated[
    str, typer.Option("--host", help="On which address the REST API listens; 0.0.0.0 is all.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="auto: pretty on a terminal, JSON everywhere else."),
]
LogLevelOption = Annotated[
    LogLevel,
    typer.Option(
        "--log-level", envvar="FLOTILLA_LOG_LEVEL", help="The least important lines to write."
    ),
]
OtlpOption = Annotated[
    str | None,
    typer.Option(
        "--otlp-endpoint",
        envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
        help="Send traces to this OTLP/HTTP collector.",
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        envvar="FLOTILLA_MODEL",
        exists=True,
        file_okay=False,
        help="The folder with services/, topologies/ … Default: the one that came with flotilla.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one stable JSON document instead, for programs.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch", "-w", help="Show it again every second, until Ctrl-C.")
]
LagOption = Annotated[
    float,
    typer.Option("--lag-max-s", min=0, help="More seconds behind than this is unhealthy (8)."),
]
StreamArgument = Annotated[
    str,
    typer.Argument(
        metavar="STREAM", help="Which one: <tenant>/<aggregate>/<key>", show_default=False
    ),
]
ServiceOption = Annotated[
    str | None,
    typer.Option("--service", help="Whose log has it. Default: every log is asked."),
]
AfterOption = Annotated[
    int | None,
    typer.Option("--after", min=0, max=VERSION_MAX, help="Only versions after this one."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", min=1, max=EVENTS_MAX, help=f"So many at most. Default: {LIMIT_EVENTS}"
    ),
]
AtVersionOption = Annotated[
    int | None,
    typer.Option(
        "--at-version", min=1, max=VERSION_MAX, help="Only what had happened by this version."
    ),
]
AtTimeOption = Annotated[
    str | None,
    typer.Option(
        "--at-time",
        metavar="ISO",
        help="Only what had happened by this time: 2026-05-17T12:00:00Z",
    ),
]
DiffOption = Annotated[
    str | None,
    typer.Option(
        "--diff",
        metavar="A..B",
        help="The events A to B, and what they did to each field that several carry.",
    ),
]
JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="Print stable JSON documents instead, one a line.")
]
ProjectionArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROJECTION", help="Which one: see `flotilla status`.", show_default=False
    ),
]
ProjectionOption = Annotated[
    str | None, typer.Option("--projection", help="Only this one. Default: all of them.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="Only this key; most projections park by stream: acme/counter/x"),
]
OffsetArgument = Annotated[
    int, typer.Argument(metavar="OFFSET", min=1, help="Its place in the log.", show_default=False)
]
OffsetOption = Annotated[
    int | None, typer.Option("--offset", min=1, help="Only the event at this place in the log.")
]
ParkedLimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=100_000, help="So many at most.")
]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Really do it: the view lacks these events from then on.")
]
SourceOption = Annotated[
    Literal["store", "stream"],
    typer.Option(
        "--source",
        help="Where the log is read from: store is fast and always complete; stream is JetStream.",
    ),
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Build and compare only; swap nothing. 13 when different.")
]
DiscardOption = Annotated[
    bool, typer.Option("--discard", help="Begin anew instead of going on with what was built.")
]
CancelOption = Annotated[
    bool, typer.Option("--cancel", help="Drop what an interrupted rebuild has built, and end.")
]
RollbackOption = Annotated[
    bool, typer.Option("--rollback", help="Make the view before the last swap live again, and end.")
]
ForgetOldOption = Annotated[
    bool, typer.Option("--forget-old", help="Drop the view kept for --rollback, and end.")
]
PartitionsOption = Annotated[
    int | None,
    typer.Option(
        "--partitions",
        min=1,
        max=PARTITIONS_MAX,
        help="Fold it in so many parts after the swap; its projectors are started with as many.",
    ),
]
FromOffsetOption = Annotated[
    int | None,
    typer.Option("--from-offset", min=1, max=VERSION_MAX, help="This offset and all after it."),
]
FromTimeOption = Annotated[
    str | None,
    typer.Option(
        "--from-time",
        metavar="ISO",
        help="What was recorded since then: 2026-05-17T12:00:00Z",
    ),
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="This tenant's rows, from all of its events.")
]
StreamOption = Annotated[
    str | None,
    typer.Option(
        "--stream", metavar="STREAM", help="One stream's rows: <tenant>/<aggregate>/<key>"
    ),
]
FromDataOption = Annotated[
    Path | None,
    typer.Option("--from-data", file_okay=False, help="The data directory to take it from."),
]
FromStoreOption = Annotated[
    str | None,
    typer.Option(
        "--from-store",
        envvar="FLOTILLA_FROM_STORE",
        metavar="URL",
        help="Or the PostgreSQL database to take it from: postgresql://…",
    ),
]
ToDataOption = Annotated[
    Path | None,
    typer.Option(
        "--to-data",
        file_okay=False,
        help="A new data directory to put it into. Default: .flotilla/<topology>",
    ),
]
ToStoreOption = Annotated[
    str | None,
    typer.Option(
        "--to-store",
        envvar="FLOTILLA_TO_STORE",
        metavar="URL",
        help="Or the PostgreSQL database to put it into: postgresql://…",
    ),
]
ToTopologyOption = Annotated[
    str | None,
    typer.Option("--topology", "-t", help="Which one will run there: see `flotilla topologies`."),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show where an error comes from, as a traceback.")
]
VersionOption = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]


def data_directory(data: Path | None, topology: str) -> Path:
    """Return the data directory that was asked for, or the topology's own."""
    return data if data is not None else Path(".flotilla") / topology


AuditTenantOption = Annotated[
    str, typer.Option("--tenant", help="Whose chain.", show_default=False)
]
AuditedTenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Only this tenant's chain; without it, all of them.")
]
AfterOffsetOption = Annotated[
    int, typer.Option("--after", min=0, max=VERSION_MAX, help="Entries behind this offset.")
]
HeadOption = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="HASH",
        help="A head of --tenant that was kept elsewhere: the history up to it has to be in there.",
    ),
]
StreamCopyOption = Annotated[
    bool, typer.Option("--stream", help="Compare with the copy that JetStream has, too.")
]
