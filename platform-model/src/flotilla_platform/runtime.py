"""What a running fleet tells other processes of itself: `runtime.json` in its data directory."""

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from flotilla.embedded import runtime_read
from flotilla_platform.exit_codes import ExitCode, Failure


class ProcessState(BaseModel):
    """One process of a fleet of several: a replica of a deployable."""

    model_config = ConfigDict(frozen=True)

    deployable: str
    replica: int
    """From 1 on."""
    state: Literal["starting", "running", "backing-off", "stopping"]
    since: AwareDatetime
    pid: int | None
    """None while none runs."""
    admin: str | None
    """Where its `/healthz`, `/readyz` and `/metrics` are; None until it serves."""
    restarts: int = 0
    """How often it was started again."""
    last_exit: int | None = None
    """With which status it ended last by itself; -n: by the signal n."""

    @property
    def name(self) -> str:
        """Return what it is called in logs: `<deployable>/<replica>`."""
        return f"{self.deployable}/{self.replica}"


class Runtime(BaseModel):
    """Where everything of a running fleet is. Programs may rely on these names."""

    model_config = ConfigDict(frozen=True)

    pid: int
    topology: str
    data: str
    """The data directory, absolute."""
    api: str | None
    """Where the REST API is; None when no service listens."""
    docs: str | None
    nats_url: str
    stores: dict[str, str]
    """The URL of each service's store."""
    logs: tuple[str, ...]
    """The services that publish a log."""
    views: tuple[str, ...]
    """The services that keep read models."""
    read_models: dict[str, str] = {}
    """Where the projections of these services are described: a module and the function in it."""
    keys: str | None = None
    """Where the data keys are; None when no service keeps personal data."""
    started_at: AwareDatetime
    processes: tuple[ProcessState, ...] = ()
    """The processes of its deployables; empty where the whole fleet is one process."""


class Serving(BaseModel):
    """What `flotilla serve --json` says of itself once it serves. Programs may rely on the names."""

    model_config = ConfigDict(frozen=True)

    deployable: str
    topology: str
    pid: int
    admin: str
    """Where `/healthz`, `/readyz` and `/metrics` of this process are."""
    api: str | None
    """Where its service that listens does; None when none does."""


def find_running(data: Path) -> Runtime:
    """Return what runs in the data directory `data`.

    Raises:
        Failure: nothing runs there, or something that this version cannot read.

    """
    path = data.resolve()
    content = runtime_read(path)
    if content is None:
        raise Failure(
            ExitCode.NOT_RUNNING,
            f"nothing is running in {path}: start it with `flotilla up --data {data}`, "
            "or name another directory with --data",
        )
    try:
        return Runtime.model_validate(content)
    except ValidationError as error:
        raise Failure(
            ExitCode.NOT_RUNNING,
            f"what runs in {path} is of another version of flotilla: use that one's `status`",
        ) from error
