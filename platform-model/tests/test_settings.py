"""What a deployable reads from its environment: all mistakes at once, and never a value."""

import os
from pathlib import Path

import pytest

from flotilla.master_key import new_master_key
from flotilla_platform.exit_codes import ExitCode, Failure
from flotilla_platform.settings import inherited, read_places

STORE = "postgresql://app:hunter2@db:5432/flotilla"
NATS = "nats://app:hunter2@one:4222,nats://app:hunter2@two:4222"
OTHER = "postgresql://app:hunter2@elsewhere:5432/keys"
MASTER = new_master_key(bytes(range(32)))
ALL = frozenset({"store", "bus", "http"})


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLOTILLA_")]:
        monkeypatch.delenv(name)


def refused(needs: frozenset[str] = ALL) -> list[str]:
    with pytest.raises(Failure) as caught:
        read_places(needs, {"counter", "web-bff"})  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.SETTING_INVALID
    assert "hunter2" not in str(caught.value)
    return str(caught.value).splitlines()


def test_everything_is_read_once_and_nothing_shows_its_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOTILLA_STORE_URL", STORE)
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    monkeypatch.setenv("FLOTILLA_ADMIN_PORT", "9090")
    places = read_places(ALL, set())  # type: ignore[arg-type]
    assert (places.store, places.nats) == (STORE, NATS)
    assert (places.http.host, places.http.port) == ("0.0.0.0", 8080)
    assert (places.admin.host, places.admin.port) == ("127.0.0.1", 9090)
    assert "hunter2" not in f"{places!r} {places} {places.model_dump()}"


def test_a_value_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "store").write_text(f"{STORE}\n")
    monkeypatch.setenv("FLOTILLA_STORE_URL_FILE", str(tmp_path / "store"))
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    monkeypatch.setenv("FLOTILLA_STORE_URL", "")  # as compose files leave it
    assert read_places(ALL, set()).store == STORE  # type: ignore[arg-type]


def test_only_what_is_needed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    assert read_places({"bus", "http"}, set()).store == ""
    assert refused(frozenset({"logs", "bus"})) == [
        (
            "FLOTILLA_STORE_URL is missing: set it to "
            "postgresql://user:password@host:5432/database, or FLOTILLA_STORE_URL_FILE to a file "
            "that holds it"
        )
    ]


def test_who_needs_keys_is_told_how_to_make_a_master_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    monkeypatch.setenv("FLOTILLA_KEYS_URL", STORE)
    [line] = refused(frozenset({"bus", "keys"}))
    assert line.startswith("FLOTILLA_MASTER_KEY is missing: set it to 32 bytes of base64url")
    assert "openssl rand -base64 32" in line


def test_keys_are_beside_the_store_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = frozenset({"store", "bus", "keys"})
    monkeypatch.setenv("FLOTILLA_STORE_URL", STORE)
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    monkeypatch.setenv("FLOTILLA_MASTER_KEY", MASTER)
    beside = read_places(needs, set())  # type: ignore[arg-type]
    monkeypatch.setenv("FLOTILLA_KEYS_URL", OTHER)
    apart = read_places(needs, set())  # type: ignore[arg-type]

    assert beside.keys and apart.keys
    assert (STORE, OTHER) == (beside.keys.url, apart.keys.url)
    assert beside.keys.master.ids == apart.keys.master.ids
    for text in (f"{apart!r} {apart.keys!r} {apart.model_dump()}", repr(inherited())):
        assert "hunter2" not in text
        assert MASTER not in text


@pytest.mark.parametrize("value", ["hunter2", f"{'A' * 42}", f"{'A' * 43},hunter2"])
def test_what_is_no_master_key_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    monkeypatch.setenv("FLOTILLA_KEYS_URL", STORE)
    monkeypatch.setenv("FLOTILLA_MASTER_KEY", value)
    [line] = refused(frozenset({"bus", "keys"}))
    assert "is not 32 bytes of base64url" in line
    assert "AAAA" not in line


def test_all_that_is_missing_is_told_at_once() -> None:
    assert [line.split(" ")[0] for line in refused()] == [
        "FLOTILLA_STORE_URL",
        "FLOTILLA_NATS_URL",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLOTILLA_STORE_URL", "mysql://app:hunter2@db/x"),
        ("FLOTILLA_STORE_URL", "hunter2"),
        ("FLOTILLA_STORE_URL", "postgresql://app:hunter2/@db:5432/x"),
        ("FLOTILLA_STORE_URL", "postgresql:///nowhere"),
        ("FLOTILLA_NATS_URL", "http://app:hunter2@nats:4222"),
        ("FLOTILLA_NATS_URL", "nats://app:hunter2@one:4222,two"),
        ("FLOTILLA_NATS_URL", "nats://app:hunter2@one:port"),
        ("FLOTILLA_HTTP_PORT", "hunter2"),
        ("FLOTILLA_HTTP_PORT", "70000"),
        ("FLOTILLA_ADMIN_PORT", "-1"),
        ("FLOTILLA_STORE_URL_FILE", "/no/such/file"),
        ("FLOTILLA_STORE_URL_FILE", "postgresql://app:hunter2@db/x"),
        ("FLOTILLA_STORE_URL_FILE", "/dev/null"),
        ("FLOTILLA_STORE_URL_FILE", "/dev/zero"),
    ],
)
def test_a_malformed_value_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    right = {"FLOTILLA_STORE_URL": STORE, "FLOTILLA_NATS_URL": NATS}
    for key, well in {**right, name: value}.items():
        monkeypatch.setenv(key, well)
    if name.endswith("_FILE"):
        monkeypatch.delenv("FLOTILLA_STORE_URL")
    told = refused()
    assert all(name.removesuffix("_FILE") in line for line in told), told


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("FLOTILLA_STORE_ULR", "FLOTILLA_STORE_URL"),
        ("FLOTILLA_STORE_URL_FIEL", "FLOTILLA_STORE_URL_FILE"),
        ("FLOTILLA_NAT_URL", "FLOTILLA_NATS_URL"),
        ("FLOTILLA_ADMIN_PROT", "FLOTILLA_ADMIN_PORT"),
    ],
)
def test_a_typing_error_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, typo: str, meant: str
) -> None:
    monkeypatch.setenv("FLOTILLA_STORE_URL", STORE)
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    monkeypatch.setenv(typo, "hunter2")
    assert refused() == [f"there is no setting {typo}: did you mean {meant}?"]


def test_variables_of_services_and_of_the_command_line_are_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("COUNTER_UPPER_BOUND", "WEB_BFF_HTTP_PORT", "TOPOLOGY", "DATA", "PORT", "MODEL"):
        monkeypatch.setenv(f"FLOTILLA_{name}", "x")
    monkeypatch.setenv("FLOTILLA_STORE_URL", STORE)
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    assert read_places(ALL, {"counter", "web-bff"}).store == STORE  # type: ignore[arg-type]


def test_a_value_and_its_file_are_one_too_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text(STORE)
    monkeypatch.setenv("FLOTILLA_STORE_URL", STORE)
    monkeypatch.setenv("FLOTILLA_STORE_URL_FILE", str(tmp_path / "store"))
    monkeypatch.setenv("FLOTILLA_NATS_URL", NATS)
    assert refused() == [
        "FLOTILLA_STORE_URL and FLOTILLA_STORE_URL_FILE are both set: keep one of them"
    ]


def test_children_inherit_everything_but_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE_URL", "STORE_URL_FILE", "ADMIN_PORT", "COUNTER_UPPER_BOUND"):
        monkeypatch.setenv(f"FLOTILLA_{name}", "x")
    found = {name for name in inherited() if name.startswith("FLOTILLA_")}
    assert found == {"FLOTILLA_COUNTER_UPPER_BOUND"}
