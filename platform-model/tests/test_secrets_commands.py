"""`flotilla secrets …`: what each command does, refuses, and never shows."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flotilla_platform.cli import app
from flotilla_platform.exit_codes import ExitCode
from flotilla_platform.secrets import yaml_files
from flotilla_platform.secrets.age import parse_identities
from flotilla_platform.secrets.places import Places
from flotilla_platform.secrets.sealing import metadata_of, open_text
from flotilla_platform.testing import run_flotilla
from flotilla_platform.testing.secret_files import make_key, plain_data

CANARY = "Kn4ry8hZq2vT6wXc9bLm"
SHIPPED = Path(__file__).parents[2] / "deploy" / "secrets" / "templates"
COUNTER = "deploy/secrets/dev/counter.sops.yaml"
VARIABLES = {
    "counter": ["FLOTILLA_STORE_URL", "FLOTILLA_NATS_URL"],
    "nats": ["NATS_PASSWORDS_CONF"],
    "outbox-relay": ["FLOTILLA_STORE_URL", "FLOTILLA_NATS_URL"],
    "postgres": [
        "POSTGRES_SUPERUSER_PASSWORD",
        "POSTGRES_COUNTER_PASSWORD",
        "POSTGRES_OUTBOX_RELAY_PASSWORD",
        "POSTGRES_PROJECTOR_PASSWORD",
        "POSTGRES_TENANT_PASSWORD",
        "POSTGRES_WORKFLOW_PASSWORD",
        "POSTGRES_OPERATOR_PASSWORD",
    ],
    "projector": ["FLOTILLA_STORE_URL", "FLOTILLA_NATS_URL"],
    "tenant": ["FLOTILLA_STORE_URL", "FLOTILLA_NATS_URL", "FLOTILLA_MASTER_KEY"],
    "web-bff": ["FLOTILLA_NATS_URL"],
    "workflow": ["FLOTILLA_STORE_URL", "FLOTILLA_NATS_URL"],
}
NAMES = ["keygen", "init", "run", "set", "encrypt", "decrypt", "rotate", "check"]

Secrets = Callable[..., Result]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository with the shipped templates, and no key anywhere."""
    root = tmp_path / "repository"
    templates = root / "deploy" / "secrets" / "templates"
    templates.mkdir(parents=True)
    for file in SHIPPED.glob("*.yaml"):
        (templates / file.name).write_text(file.read_text())
    git(root, "init", "--quiet")
    monkeypatch.chdir(root)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(tmp_path / "keys" / "keys.txt"))
    monkeypatch.delenv("SOPS_AGE_KEY", raising=False)
    return root


@pytest.fixture
def secrets(repository: Path) -> Secrets:
    """Run `flotilla secrets …` in the repository; an unexpected error fails the test."""

    def run(*arguments: object, value: str | None = None) -> Result:
        result = CliRunner().invoke(app, ["secrets", *map(str, arguments)], input=value)
        assert result.exit_code != ExitCode.UNEXPECTED, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    assert repository.is_dir()
    return run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `flotilla secrets init dev` makes: a key and a repository, to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(SHIPPED, folder / "repository" / "deploy" / "secrets" / "templates")
    result = CliRunner().invoke(
        app,
        ["secrets", "init", "dev", "--root", str(folder / "repository")],
        env={"SOPS_AGE_KEY_FILE": str(folder / "keys" / "keys.txt"), "SOPS_AGE_KEY": None},
    )
    assert result.exit_code == ExitCode.OK, result.output
    return folder


@pytest.fixture
def made(prepared: Path, repository: Path, tmp_path: Path) -> Path:
    """The repository with secrets for `dev`."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return repository


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


def key_text() -> str:
    return Path(os.environ["SOPS_AGE_KEY_FILE"]).read_text()


def opened(file: Path) -> Any:
    identities = parse_identities(key_text(), "the test")
    return open_text(yaml_files, file.read_text(), identities).tree


def codes(result: Result) -> set[str]:
    """Return the codes of the findings of `check --json`."""
    return {finding["code"] for finding in json.loads(result.stdout)["findings"]}


def changed(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("command", NAMES)
def test_help_teaches(secrets: Secrets, command: str) -> None:
    result = secrets(command, "--help")
    assert result.exit_code == ExitCode.OK
    assert f"$ flotilla secrets {command}" in result.stdout
    assert "Exit status" in result.stdout


def test_help_does_not_load_cryptography() -> None:
    code = (
        "import sys\nfrom flotilla_platform.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'cryptography', 'pyrage'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_init_makes_the_key_the_rule_and_a_secret_a_template(made: Path) -> None:
    file = Path(os.environ["SOPS_AGE_KEY_FILE"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [identity] = parse_identities(key_text(), "the test")
    [rule] = plain_data((made / ".sops.yaml").read_text())["creation_rules"]
    assert rule["age"] == identity.recipient
    assert rule["encrypted_regex"] == "^(data|stringData)$"
    for name, variables in VARIABLES.items():
        file = made / "deploy" / "secrets" / "dev" / f"{name}.sops.yaml"
        tree = opened(file)
        assert (tree["apiVersion"], tree["kind"]) == ("v1", "Secret")
        assert tree["metadata"]["name"] == f"flotilla-{name}"
        assert list(tree["stringData"]) == variables
        assert "metadata:\n    name: flotilla-" in file.read_text()  # Flux reads it without the key


def test_init_generates_a_password_of_its_own_for_each(made: Path) -> None:
    files = (made / "deploy" / "secrets" / "dev").glob("*.yaml")
    values = [value for file in files for value in opened(file)["stringData"].values()]
    passwords = [re.split(r"[: ]", value.split("@")[0])[-1].strip('"') for value in values]
    assert len(set(passwords)) == sum(map(len, VARIABLES.values()))
    assert {len(password) for password in passwords} == {32, 43}


def test_init_again_touches_nothing(secrets: Secrets, made: Path) -> None:
    before = {file: file.read_bytes() for file in made.rglob("*.yaml")}
    result = json.loads(secrets("init", "dev", "--json").stdout)
    assert result["written"] == []
    assert {file: file.read_bytes() for file in made.rglob("*.yaml")} == before


def test_keygen_shows_the_recipient_and_keeps_a_key_that_is_there(
    secrets: Secrets, tmp_path: Path
) -> None:
    first = secrets("keygen")
    assert first.stdout.splitlines()[-1].startswith("age1")
    assert "AGE-SECRET-KEY" not in first.output
    before = key_text()
    again = secrets("keygen")
    assert again.exit_code == ExitCode.SECRET_REFUSED
    assert "(identity-exists)" in again.stderr
    assert key_text() == before
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_run_gives_variables_to_the_child_and_keeps_the_key(made: Path) -> None:
    code = "import os; print(sorted(n for n in os.environ if n.startswith(('FLOTILLA_', 'SOPS_'))))"
    ran = run_flotilla(
        made,
        *("secrets", "run", "web-bff", "--", sys.executable, "-c", code),
        env={"SOPS_AGE_KEY_FILE": os.environ["SOPS_AGE_KEY_FILE"]},
    )
    assert (ran.stdout, ran.stderr) == ("['FLOTILLA_NATS_URL']\n", "")
    status = run_flotilla(made, *("secrets", "run", "counter", "--", "sh", "-c", "exit 41"))
    assert status.returncode == 41


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("counter", "-e", "prod", "--", "true"), 40, "flotilla secrets init prod"),
        (("countr", "--", "true"), 2, "did you mean 'counter'?"),
        (("counter", "-e", "../dev", "--", "true"), 2, "no name of an environment"),
        (("counter", "--", "no-such-command"), 2, "cannot be run"),
    ],
)
def test_run_refuses(
    secrets: Secrets, made: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert made.is_dir()
    result = secrets("run", *arguments)
    assert result.exit_code == status
    assert said in result.stderr


def test_run_refuses_a_variable_that_no_template_knows(secrets: Secrets, made: Path) -> None:
    assert secrets("set", COUNTER, "LD_PRELOAD", value="x").exit_code == ExitCode.OK
    result = secrets("run", "counter", "--", "true")
    assert result.exit_code == ExitCode.SECRET_REFUSED
    assert "LD_PRELOAD" in result.stderr
    assert "(names-differ)" in result.stderr
    assert made.is_dir()


def test_set_takes_the_value_from_stdin(secrets: Secrets, made: Path) -> None:
    result = secrets("set", COUNTER, "FLOTILLA_NATS_URL", value=f"{CANARY}\n")
    assert result.output == ""
    assert opened(made / COUNTER)["stringData"]["FLOTILLA_NATS_URL"] == CANARY
    assert CANARY not in (made / COUNTER).read_text()


@pytest.mark.parametrize("value", ["a: b # c", "two\nlines", "'\"\\", "ü\u2028\x07", " x "])
def test_set_keeps_any_value(secrets: Secrets, made: Path, value: str) -> None:
    assert secrets("set", COUNTER, "FLOTILLA_NATS_URL", value=value).exit_code == ExitCode.OK
    assert opened(made / COUNTER)["stringData"]["FLOTILLA_NATS_URL"] == value


def test_encrypt_and_decrypt_follow_the_rules(secrets: Secrets, made: Path, tmp_path: Path) -> None:
    plain = "# why\nkind: Secret\nstringData:\n    A: hunter2\n"
    file = made / "deploy" / "secrets" / "dev" / "other.sops.yaml"
    file.write_text(plain)
    assert secrets("encrypt", file).exit_code == ExitCode.OK
    assert "hunter2" not in file.read_text()
    assert "(encrypted-already)" in secrets("encrypt", file).stderr
    assert secrets("decrypt", file, "--stdout").stdout == plain
    outside = tmp_path / "plain.yaml"
    assert secrets("decrypt", file, "--output", outside).output == ""
    assert outside.read_text() == plain
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_decrypt_writes_no_plain_text_where_git_takes_it(secrets: Secrets, made: Path) -> None:
    (made / ".gitignore").write_text("*.plain.yaml\ntracked.plain.yaml\n")
    (made / "tracked.plain.yaml").write_text("a: b\n")
    git(made, "add", "--force", "tracked.plain.yaml")
    for name in ("new.yaml", "tracked.plain.yaml", COUNTER):
        before = (made / name).read_text() if (made / name).exists() else None
        result = secrets("decrypt", COUNTER, "--output", name)
        assert result.exit_code == ExitCode.SECRET_REFUSED
        assert "(plain-in-git)" in result.stderr
        assert ((made / name).read_text() if (made / name).exists() else None) == before
    assert secrets("decrypt", COUNTER, "--output", "ignored.plain.yaml").exit_code == ExitCode.OK
    assert secrets("decrypt", COUNTER).exit_code == ExitCode.USAGE


def test_rotate_encrypts_everything_with_a_new_key(secrets: Secrets, made: Path) -> None:
    before, plain = (made / COUNTER).read_text(), opened(made / COUNTER)
    assert secrets("rotate", "dev").exit_code == ExitCode.OK
    after = (made / COUNTER).read_text()
    assert opened(made / COUNTER) == plain
    lines = {line for line in before.splitlines() if "ENC[" in line}
    assert not lines & set(after.splitlines())
    assert secrets("check").exit_code == ExitCode.OK


def test_people_come_and_leave(secrets: Secrets, made: Path, monkeypatch: Any) -> None:
    [me] = parse_identities(key_text(), "the test")
    their_key, they = make_key()
    assert secrets("rotate", "dev", "--add-recipient", they.recipient).exit_code == ExitCode.OK
    metadata = metadata_of(yaml_files, (made / COUNTER).read_text())
    assert metadata.recipients == (me.recipient, they.recipient)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", "/nowhere")
    monkeypatch.setenv("SOPS_AGE_KEY", their_key)
    assert secrets("check").exit_code == ExitCode.OK
    assert secrets("rotate", "dev", "--remove-recipient", me.recipient).exit_code == ExitCode.OK
    old = open_text(yaml_files, (made / COUNTER).read_text(), [they])
    assert old.metadata.recipients == (they.recipient,)
    assert me.recipient not in (made / ".sops.yaml").read_text()


@pytest.mark.parametrize(
    ("option", "of", "slug"),
    [
        ("--remove-recipient", "me", "recipient-missing"),
        ("--remove-recipient", "stranger", "recipient-unknown"),
        ("--add-recipient", "age1nonsense", "recipient-invalid"),
        ("--add-recipient", "key", "recipient-invalid"),
    ],
)
def test_rotate_refuses_and_touches_nothing(
    secrets: Secrets, made: Path, option: str, of: str, slug: str
) -> None:
    [me] = parse_identities(key_text(), "the test")
    key, stranger = make_key()
    given = {"me": me.recipient, "stranger": stranger.recipient, "key": key}.get(of, of)
    before = {file: file.read_bytes() for file in made.rglob("*.yaml")}
    result = secrets("rotate", "dev", option, given)
    assert result.exit_code == ExitCode.SECRET_REFUSED
    assert f"({slug})" in result.stderr
    assert key not in result.output
    assert {file: file.read_bytes() for file in made.rglob("*.yaml")} == before


def test_rotate_touches_nothing_when_one_file_is_damaged(secrets: Secrets, made: Path) -> None:
    changed(made / "deploy/secrets/dev/web-bff.sops.yaml", "apiVersion: v1", "apiVersion: v2")
    before = {file: file.read_bytes() for file in made.rglob("*.yaml")}
    assert secrets("rotate", "dev").exit_code == ExitCode.SECRET_REFUSED
    assert {file: file.read_bytes() for file in made.rglob("*.yaml")} == before


def test_a_repository_as_init_leaves_it_is_safe(secrets: Secrets, made: Path) -> None:
    result = secrets("check", "--json")
    assert result.exit_code == ExitCode.OK
    found = json.loads(result.stdout)
    assert (found["files"], found["opened"], found["findings"]) == (8, 8, [])
    assert made.is_dir()


def test_what_is_shipped_is_safe() -> None:
    from flotilla_platform.secrets.checking import check  # noqa: PLC0415 - only this test

    places = Places(Path(__file__).parents[2])
    assert sorted(places.templates()) == sorted(VARIABLES)
    assert [str(finding) for finding in check(places, ()).findings] == []


def _write(path: str, text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    return write


def _change(path: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: changed(root / path, old, new)


def _other_recipient(root: Path) -> None:
    [me] = parse_identities(key_text(), "the test")
    changed(root / ".sops.yaml", me.recipient, make_key()[1].recipient)


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda root: (root / COUNTER).unlink(), "file-missing"),
        (_change(COUNTER, "apiVersion: v1", "apiVersion: v2"), "mac-mismatch"),
        (_change(COUNTER, "FLOTILLA_NATS_URL:", "FLOTILLA_BUS_URL:"), "names-differ"),
        (
            _change(COUNTER, "FLOTILLA_NATS_URL: ", f"FLOTILLA_NATS_URL: {CANARY} #"),
            "not-encrypted",
        ),
        (_write("deploy/secrets/dev/x.sops.yaml", "a: b\n"), "not-encrypted"),
        (_other_recipient, "recipients-differ"),
        (lambda root: (root / ".sops.yaml").unlink(), "rule-missing"),
        (_write("deploy/dev.agekey", "x\n"), "key-in-git"),
        (_write("deploy/x.txt", "AGE-SECRET-KEY-" + "1QQQQQQQQQQQQQ\n"), "key-in-git"),
        (_write("deploy/tls.pem", "-----BEGIN " + "PRIVATE KEY-----\n"), "key-in-git"),
        (
            _write("deploy/a.yaml", f"kind: Secret\nstringData: {{A: {CANARY}}}\n"),
            "secret-in-plain",
        ),
        (_write("deploy/a.yaml", f"a: 1\n---\ndb:\n  password: {CANARY}\n"), "password-in-plain"),
        (_write("deploy/a.env", f"# x\nDB_PASSWORD={CANARY}\n"), "password-in-plain"),
        (_write("deploy/a.env", f"URL=nats://x:{CANARY}@y:1\n"), "password-in-plain"),
        (
            _write("deploy/a.yaml", f"env: [{{name: API_TOKEN, value: {CANARY}}}]\n"),
            "password-in-plain",
        ),
        (_write("deploy/a.yaml", f"x: {CANARY}7Yp1Rs\n"), "chance-in-plain"),
    ],
)
def test_check_finds(secrets: Secrets, made: Path, harm: Callable[[Path], None], code: str) -> None:
    harm(made)
    result = secrets("check", "--json")
    assert result.exit_code == ExitCode.SECRETS_UNSAFE
    assert code in codes(result)
    told = secrets("check")
    assert f"({code})" in told.stdout
    assert CANARY not in result.output + told.output


@pytest.mark.parametrize(
    "text",
    [
        "password: ${DB_PASSWORD}\n",
        "POSTGRES_PASSWORD_FILE: /run/secrets/password\n",
        "password: /run/secrets/password\n",
        "url: postgresql://counter:${PASSWORD}@postgres/x\n",
        "automountServiceAccountToken: false\ntoken: false\n",
        "image: x@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n",
        "secretName: flotilla-counter\nsecretKeyRef: {name: flotilla-counter, key: A}\n",
        "name: flotilla_outbox_relay_leader_changes_total\npath: /srv/App1/data/current/Release\n",
    ],
)
def test_check_leaves_references_alone(secrets: Secrets, made: Path, text: str) -> None:
    _write("deploy/x.yaml", text)(made)
    result = secrets("check")
    assert result.exit_code == ExitCode.OK, result.output


def test_check_knows_file_line_and_column(secrets: Secrets, made: Path) -> None:
    _write("deploy/x.yaml", f"a: b\ndb:\n    password: {CANARY}\n")(made)
    [line, _] = secrets("check").stdout.splitlines()
    assert line.startswith("deploy/x.yaml:3:15: password is in plain; ")


def test_check_without_a_key_still_checks_what_it_can(
    secrets: Secrets, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", "/nowhere")
    found = json.loads(secrets("check", "--json").stdout)
    assert (found["files"], found["opened"], found["findings"]) == (8, 0, [])
    assert made.is_dir()


@pytest.mark.parametrize(
    "text",
    [
        "name: counter\nsecrets: {A: {description: x, generate: pasword 32}}\n",
        "name: counter\nsecrets: {A: {generate: ask}}\n",
        "name: other\nsecrets: {}\n",
    ],
)
def test_a_template_with_a_mistake_is_refused_with_its_place(
    secrets: Secrets, repository: Path, text: str
) -> None:
    _write("deploy/secrets/templates/counter.yaml", text)(repository)
    result = secrets("init", "dev")
    assert result.exit_code == ExitCode.MODEL_INVALID
    assert "deploy/secrets/templates/counter.yaml:" in result.stderr
    assert not Path(os.environ["SOPS_AGE_KEY_FILE"]).exists()


HARMS: list[Callable[[Path], None]] = [
    lambda _: None,
    _change(COUNTER, "apiVersion: v1", "apiVersion: v2"),
    _change(COUNTER, "FLOTILLA_NATS_URL:", "FLOTILLA_BUS_URL:"),
    _change(COUNTER, "-----BEGIN AGE", f"{CANARY}"),
    _change(COUNTER, "stringData:\n", f"stringData:\n    FLOTILLA_X: {CANARY}\n"),
    _write(COUNTER, f"kind: Secret\nstringData:\n  A: {CANARY}\n  A: {CANARY}\n"),
    _write(COUNTER, f"kind: Secret\nstringData: [\n  A: '{CANARY}\n"),
    _write(COUNTER, f"a: !!int {CANARY}\nb: !!binary {CANARY}-\nc: !!float {CANARY}\n"),
    _write(COUNTER, f"a: {CANARY}\nsops: {{mac: {CANARY}, age: {CANARY}}}\n"),
    lambda root: _write("keys/keys.txt", f"AGE-SECRET-KEY-1{CANARY}\n")(root.parent),
]
ARGUMENTS = [
    ("keygen",),
    ("init", "dev"),
    ("run", "counter", "--", "no-such-command"),
    ("set", COUNTER, "FLOTILLA_NATS_URL"),
    ("set", COUNTER, "not a name"),
    ("set", "deploy/nothing.txt", "A"),
    ("encrypt", COUNTER),
    ("encrypt", COUNTER, "--recipient", "age1nonsense"),
    ("decrypt", COUNTER),
    ("decrypt", COUNTER, "--output", "plain.yaml"),
    ("decrypt", COUNTER, "--output", "/proc/nothing/plain.yaml"),
    ("rotate", "dev"),
    ("rotate", "dev", "--remove-recipient", "age1nonsense"),
    ("check",),
    ("check", "--json"),
]


@pytest.mark.parametrize("harm", range(len(HARMS)))
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_no_command_ever_shows_a_secret(
    secrets: Secrets, made: Path, arguments: tuple[str, ...], harm: int
) -> None:
    """In no output, of no failure, not even with --debug."""
    secrets("set", COUNTER, "FLOTILLA_NATS_URL", value=CANARY)
    private = key_text().splitlines()[-1]
    HARMS[harm](made)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    debug = [] if "--debug" in arguments else ["--debug"]
    result = secrets(*arguments[:split], *debug, *arguments[split:], value=f"{CANARY}x\n")
    assert CANARY not in result.output
    assert private not in result.output
    assert "Warning" not in result.output
