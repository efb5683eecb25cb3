"""The commands `flotilla secrets …`. No value is ever an argument, an output or a part of an error."""

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from json import dumps

import typer
from pydantic import SecretStr

from flotilla.clock import SystemClock
from flotilla_platform.answering import finish
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.options import DebugOption, JsonOption
from flotilla_platform.secrets.age import find_identities, key_file, make_identity
from flotilla_platform.secrets.checking import check
from flotilla_platform.secrets.command_line import (
    EXAMPLES,
    SECRETS_HELP,
    AddOption,
    CommandArgument,
    DeployableArgument,
    EnvironmentArgument,
    EnvironmentOption,
    FileArgument,
    NameArgument,
    OutputOption,
    RecipientOption,
    RemoveOption,
    RootOption,
    StdoutOption,
)
from flotilla_platform.secrets.errors import SecretRefused
from flotilla_platform.secrets.keeping import (
    init_environment,
    named,
    open_file,
    read_variables,
    rotate,
    set_secret,
)
from flotilla_platform.secrets.places import find_places, read_text, refuse_shared, write_text
from flotilla_platform.secrets.sealing import format_of, seal_text
from flotilla_platform.secrets.sops import Rules
from flotilla_platform.showing import make_console, plain

VALUE_CHARACTERS_MAX = 65_536


def _environment() -> Mapping[str, str]:
    return os.environ  # noqa: TID251 - where sops keeps keys, and what a child inherits


def keygen(*, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Make your own age key, where sops looks for it; print its recipient, never the key.

    The file is readable by you alone (0600). Keep a copy in your password safe: without it, and
    without another recipient, nobody opens the files again.

    Exit status: 0 when it is made, 40 when there is one already.
    """

    def run() -> ExitCode:
        file = key_file(_environment())
        recipient = make_identity(file, SystemClock().now().isoformat(timespec="seconds"))
        if json:
            typer.echo(dumps({"format": 1, "file": str(file), "recipient": recipient}))
        else:
            typer.echo(f"the key is in {file}; others encrypt to you with\n{recipient}")
        return ExitCode.OK

    finish(run, debug=debug)


def init(
    environment: EnvironmentArgument,
    *,
    root: RootOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make what an environment lacks: your key, its rule in .sops.yaml, a file a deployable.

    Values are generated as the templates say, or asked for. What is there is not touched; commit
    what it wrote.

    Exit status: 0 when everything is there, 3 when a template has mistakes.
    """

    def run() -> ExitCode:
        now, places = SystemClock().now(), find_places(root)
        places.templates()  # a mistake is told before a key is made
        if not (identities := find_identities(_environment())):
            make_identity(key_file(_environment()), now.isoformat(timespec="seconds"))
            identities = find_identities(_environment())
        changed = init_environment(
            places, environment, identities, ask=_ask, now=now, entropy=secrets.token_bytes
        )
        _show_changed(changed.model_dump_json(), changed.written, changed.recipients, json=json)
        return ExitCode.OK

    finish(run, debug=debug)


def run_command(
    deployable: DeployableArgument,
    command: CommandArgument,
    *,
    environment: EnvironmentOption = "dev",
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """Run a command with a deployable's secrets in its environment, and nowhere else.

    The command takes this process's place: its signals and its status are its own. It gets no age
    key. Nothing is written, printed or put on a command line.

    Exit status: the command's; 40 when the secrets are refused, 2 when there is no such command.
    """

    def run() -> ExitCode:
        identities = find_identities(_environment())
        variables = read_variables(find_places(root), environment, deployable, identities)
        keys = {"SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE"}
        inherited = {name: value for name, value in _environment().items() if name not in keys}
        given = {name: value.get_secret_value() for name, value in variables.items()}
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execvpe(command[0], command, inherited | given)  # noqa: S606 - what it is for
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a value has a null byte"
            message = f"{command[0]!r} cannot be run: {reason}"
            raise Failure(ExitCode.USAGE, message) from None

    finish(run, debug=debug)


def set_value(file: FileArgument, name: NameArgument, *, debug: DebugOption = False) -> None:
    """Set one value of an encrypted file: from stdin, or asked for without echo.

    One line break at the end of stdin is no part of it. The other values keep their ciphertext, so
    that Git shows what was changed.

    Exit status: 0 when it is set, 40 when the file is refused; then it is as it was.
    """

    def run() -> ExitCode:
        identities = find_identities(_environment())
        value = _ask(name, "its new value")
        now = SystemClock().now()
        set_secret(file, name, value, identities, now=now, entropy=secrets.token_bytes)
        return ExitCode.OK

    finish(run, debug=debug)


def encrypt(
    file: FileArgument,
    *,
    output: OutputOption = None,
    recipient: RecipientOption = None,
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """Encrypt a plain file, in place or to --output, as the rules in .sops.yaml say for that path.

    Exit status: 0 when it is encrypted, 40 when it cannot be; then it is as it was.
    """

    def run() -> ExitCode:
        target = output or file
        rule = find_places(root).creation_rule(target)
        text = read_text(file)
        try:
            sealed = seal_text(
                format_of(file),
                text,
                recipients=recipient or (rule.recipients if rule else ()),
                rules=rule.rules if rule else Rules(),
                now=SystemClock().now(),
                entropy=secrets.token_bytes,
            )
        except SecretRefused as error:
            raise named(file, error) from None
        write_text(target, sealed)
        return ExitCode.OK

    finish(run, debug=debug)


def decrypt(
    file: FileArgument,
    *,
    output: OutputOption = None,
    stdout: StdoutOption = False,
    debug: DebugOption = False,
) -> None:
    """Decrypt a file to stdout, or to a path that Git does not take.

    A path that is tracked, or in a repository and not ignored, is refused. The file is readable by
    you alone (0600).

    Exit status: 0 when it is decrypted, 40 when it, its key or the path is refused.
    """

    def run() -> ExitCode:
        if stdout == (output is not None):
            raise Failure(ExitCode.USAGE, "say where to: either --stdout or --output FILE")
        if output is not None:
            refuse_shared(output)
        opened = open_file(file, find_identities(_environment()))
        if output is not None:
            write_text(output, opened.text, mode=0o600)
        else:
            typer.echo(opened.text, nl=False)
        return ExitCode.OK

    finish(run, debug=debug)


def rotate_environment(
    environment: EnvironmentArgument,
    *,
    add_recipient: AddOption = None,
    remove_recipient: RemoveOption = None,
    root: RootOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Encrypt every file of an environment with a new data key, and say who can open them.

    The values stay: whoever could read them still knows them, and Git still has the old files. When
    somebody leaves, set new values too.

    Exit status: 0 when all are encrypted anew, 40 when one is refused; then none is touched.
    """

    def run() -> ExitCode:
        changed = rotate(
            find_places(root),
            environment,
            find_identities(_environment()),
            add=add_recipient or (),
            remove=remove_recipient or (),
            now=SystemClock().now(),
            entropy=secrets.token_bytes,
        )
        _show_changed(changed.model_dump_json(), changed.written, changed.recipients, json=json)
        return ExitCode.OK

    finish(run, debug=debug)


def check_secrets(
    *, root: RootOption = None, json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Check that every secret is there, encrypted, whole, to the right people, and nowhere in plain.

    Files that a key of this machine opens are verified to the last byte; of others, names, form and
    recipients are. Everything below deploy/ that Git takes is searched for plain secrets.

    Exit status: 0 when nothing is found, 41 when something is, 3 when a template has mistakes.
    """

    def run() -> ExitCode:
        found = check(find_places(root), find_identities(_environment()))
        if json:
            typer.echo(found.model_dump_json())
        else:
            for finding in found.findings:
                typer.echo(str(finding))
            make_console().print(
                plain(
                    f"{len(found.findings)} findings; {found.files} encrypted files, "
                    f"{found.opened} opened; {found.scanned} files searched"
                )
            )
        return ExitCode.SECRETS_UNSAFE if found.findings else ExitCode.OK

    finish(run, debug=debug)


def _ask(name: str, description: str) -> SecretStr:
    """Return a value from stdin, or from a person who types it unseen."""
    if sys.stdin.isatty():
        return SecretStr(str(typer.prompt(f"{name} ({description})", hide_input=True, err=True)))
    value = sys.stdin.read(VALUE_CHARACTERS_MAX + 1)
    if len(value) > VALUE_CHARACTERS_MAX:
        raise Failure(ExitCode.USAGE, f"{name} is longer than {VALUE_CHARACTERS_MAX} characters")
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise Failure(ExitCode.USAGE, f"there is no value of {name} on stdin: pipe it, or type it")
    return SecretStr(value)


def _show_changed(
    document: str, written: tuple[str, ...], recipients: tuple[str, ...], *, json: bool
) -> None:
    if json:
        typer.echo(document)
        return
    for file in written:
        typer.echo(f"wrote {file}")
    typer.echo(f"{len(written)} files written; who can open them: {', '.join(recipients)}")


def secrets_app(make: Callable[..., str]) -> typer.Typer:
    """Return `flotilla secrets`; `make` makes an epilog of example lines."""
    commands = typer.Typer(help=SECRETS_HELP, no_args_is_help=True, rich_markup_mode="rich")
    functions: dict[str, Callable[..., None]] = {
        "keygen": keygen,
        "init": init,
        "run": run_command,
        "set": set_value,
        "encrypt": encrypt,
        "decrypt": decrypt,
        "rotate": rotate_environment,
        "check": check_secrets,
    }
    for name, function in functions.items():
        commands.command(name, epilog=make(*EXAMPLES[name]))(function)
    return commands
