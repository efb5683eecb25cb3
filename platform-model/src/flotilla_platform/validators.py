"""What `flotilla model check` runs: each validator holds one thing, and has an exit status of its own.

A new one is one entry in `VALIDATORS`, and one in `ExitCode`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.loading import Mistake
from flotilla_platform.model import Platform
from flotilla_platform.placing import check_topologies
from flotilla_platform.referring import check_references


@dataclass(frozen=True, slots=True)
class Validator:
    """Something that a model must be, and the function that finds where it is not."""

    name: str
    holds: str
    """What is true of a model in which it finds nothing."""
    code: ExitCode
    check: Callable[[Platform], Sequence[Mistake]]
    tolerant: bool = False
    """Whether `check` can be given a model of which parts are missing or refer to nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a validator found; None when it was not run, because the model could not be read."""

    validator: Validator
    mistakes: tuple[Mistake, ...] | None

    @property
    def passed(self) -> bool:
        """Return whether it was run and found nothing."""
        return self.mistakes == ()


def _lint(platform: Platform) -> Sequence[Mistake]:
    return [*platform.unread, *check_references(platform)]


def _dependencies(platform: Platform) -> Sequence[Mistake]:
    from flotilla_platform.evidence.depending import check_dependencies  # noqa: PLC0415 - only then

    return check_dependencies(platform)


def _contracts(platform: Platform) -> Sequence[Mistake]:
    from flotilla_platform.evidence.drifting import check_contracts  # noqa: PLC0415 - only then

    return check_contracts(platform)


def _security(platform: Platform) -> Sequence[Mistake]:
    from flotilla_platform.evidence.securing import check_security  # noqa: PLC0415 - only then

    return check_security(platform)


def _observability(platform: Platform) -> Sequence[Mistake]:
    from flotilla_platform.evidence.observing import check_observability  # noqa: PLC0415 - only then

    return check_observability(platform)


def _declarations(platform: Platform) -> Sequence[Mistake]:
    from flotilla_platform.evidence.declaring import check_declarations  # noqa: PLC0415 - only then

    return check_declarations(platform)


VALIDATORS: tuple[Validator, ...] = (
    Validator(
        "model-lint",
        "Every file can be read, and every name in it is that of something.",
        ExitCode.MODEL_INVALID,
        _lint,
        tolerant=True,
    ),
    Validator(
        "topology-check",
        "Every topology runs every service once, with what it needs, no more often than it may.",
        ExitCode.TOPOLOGY_INVALID,
        check_topologies,
        tolerant=True,
    ),
    Validator(
        "dependency-graph",
        "Services ask of each other what their policies say, no less and no more, and never in circles.",
        ExitCode.DEPENDENCIES_WRONG,
        _dependencies,
    ),
    Validator(
        "contract-drift",
        "Schemas and documents are those of the contracts, and so is what services really send.",
        ExitCode.CONTRACTS_DRIFTED,
        _contracts,
    ),
    Validator(
        "security",
        "No secret is in plain, nobody may more than it does, and everything has a limit.",
        ExitCode.INSECURE,
        _security,
    ),
    Validator(
        "observability",
        "Every service has an SLO, and every alert a metric of the code and a runbook.",
        ExitCode.UNOBSERVABLE,
        _observability,
    ),
    Validator(
        "model-to-code",
        "What the model says of a service is in its code, and the reverse.",
        ExitCode.CODE_DIFFERS,
        _declarations,
    ),
)
"""In the order in which they run: the first is that the model can be read at all."""


def run_validators(platform: Platform, validators: Sequence[Validator]) -> list[Finding]:
    """Return what each of `validators` finds in a model that `inspect_platform` returned."""
    sound = not _lint(platform)
    return [
        Finding(one, tuple(one.check(platform)) if sound or one.tolerant else None)
        for one in validators
    ]


def exit_code_of(findings: Sequence[Finding]) -> ExitCode:
    """Return the status of the first that found something.

    When none did, but one could not be run, it is the status of an unreadable model.
    """
    failed = [finding.validator.code for finding in findings if finding.mistakes]
    if failed:
        return failed[0]
    ran = all(finding.passed for finding in findings)
    return ExitCode.OK if ran else ExitCode.MODEL_INVALID
