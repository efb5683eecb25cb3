import pytest
from pydantic import ValidationError

from flotilla.service import Bindings
from flotilla.settings import StartRefused
from svc_web_bff.main import compose
from svc_web_bff.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_WEB_BFF_REQUEST_TIMEOUT_S", "2.5")
    assert Settings.read() == Settings(request_timeout_s=2.5)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().profile = "production"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("REQUEST_TIMEOUT", "did you mean FLOTILLA_WEB_BFF_REQUEST_TIMEOUT_S?"),
        ("BODY_MAX_BYTES", "did you mean FLOTILLA_WEB_BFF_BODY_BYTES_MAX?"),
        ("ZZZ", "known are FLOTILLA_WEB_BFF_BODY_BYTES_MAX"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, name: str, cure: str
) -> None:
    monkeypatch.setenv(f"FLOTILLA_WEB_BFF_{name}", "1")
    with pytest.raises(StartRefused, match=cure.replace("?", r"\?")) as refused:
        Settings.read()
    assert refused.value.code == "setting-unknown"


def test_a_value_that_is_not_allowed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOTILLA_WEB_BFF_BODY_BYTES_MAX", "lots")
    with pytest.raises(StartRefused, match="FLOTILLA_WEB_BFF_BODY_BYTES_MAX: ") as refused:
        Settings.read()
    assert refused.value.code == "setting-invalid"


async def test_the_production_profile_does_not_start(
    monkeypatch: pytest.MonkeyPatch, bindings: Bindings
) -> None:
    monkeypatch.setenv("FLOTILLA_WEB_BFF_PROFILE", "production")
    with pytest.raises(StartRefused, match="OIDC") as refused:
        async with compose(bindings):
            raise AssertionError
    assert refused.value.code == "profile-not-ready"
