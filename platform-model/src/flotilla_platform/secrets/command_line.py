"""The command line of `flotilla secrets`: what it teaches, and its options, each once."""

from pathlib import Path
from typing import Annotated

import typer

SECRETS_HELP = (
    "Keep the secrets of deployables encrypted in Git, in the SOPS format with age keys.\n\n"
    "deploy/secrets/templates/ says which secrets a deployable needs; "
    "deploy/secrets/<environment>/ has them encrypted, as Kubernetes Secrets: `run` hands them to a "
    "process of this machine, Flux to the pods of a cluster. The rules in .sops.yaml say who can "
    "open them. Keys are found where sops finds them: SOPS_AGE_KEY, SOPS_AGE_KEY_FILE, "
    "~/.config/sops/age/keys.txt."
)
EXAMPLES = {
    "keygen": ("flotilla secrets keygen                       your own key, once a person",),
    "init": ("flotilla secrets init dev                     a key, a rule and every file",),
    "run": (
        "flotilla secrets run counter -- flotilla serve counter --topology vps",
        "flotilla secrets run counter --environment prod -- env -0",
    ),
    "set": (
        "flotilla secrets set deploy/secrets/dev/counter.sops.yaml FLOTILLA_STORE_URL",
        "pass show nats | flotilla secrets set deploy/secrets/dev/counter.sops.yaml FLOTILLA_NATS_URL",
    ),
    "encrypt": (
        "flotilla secrets encrypt settings.yaml        in place, by the rules in .sops.yaml",
        "flotilla secrets encrypt plain.env --output deploy/secrets/dev/x.env --recipient age1…",
    ),
    "decrypt": (
        "flotilla secrets decrypt deploy/secrets/dev/counter.sops.yaml --stdout",
        "flotilla secrets decrypt deploy/secrets/dev/counter.sops.yaml --output ~/counter.yaml",
    ),
    "rotate": (
        "flotilla secrets rotate prod                             a new data key",
        "flotilla secrets rotate prod --add-recipient age1…       somebody comes",
        "flotilla secrets rotate prod --remove-recipient age1…    somebody leaves",
    ),
    "check": ("flotilla secrets check", "flotilla secrets check --json | jq '.findings[].code'"),
}

RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        exists=True,
        file_okay=False,
        help="The repository. Default: the nearest above with deploy/secrets/templates.",
    ),
]
EnvironmentArgument = Annotated[
    str, typer.Argument(metavar="ENVIRONMENT", help="dev, prod, …", show_default=False)
]
EnvironmentOption = Annotated[
    str,
    typer.Option("--environment", "-e", envvar="FLOTILLA_ENVIRONMENT", help="Whose secrets."),
]
DeployableArgument = Annotated[
    str, typer.Argument(metavar="DEPLOYABLE", help="counter, web-bff, …", show_default=False)
]
CommandArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="-- COMMAND…", help="What to run, with its arguments.", show_default=False
    ),
]
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", dir_okay=False, help="YAML or .env", show_default=False)
]
NameArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The variable: FLOTILLA_…", show_default=False)
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="Where to write it.")
]
StdoutOption = Annotated[
    bool, typer.Option("--stdout", help="Print the secrets on stdout: mind who reads along.")
]
RecipientOption = Annotated[
    list[str] | None,
    typer.Option("--recipient", help="To whom (age1…). Default: the rules in .sops.yaml."),
]
AddOption = Annotated[
    list[str] | None, typer.Option("--add-recipient", help="Who can open them too (age1…).")
]
RemoveOption = Annotated[
    list[str] | None, typer.Option("--remove-recipient", help="Who cannot any more (age1…).")
]
