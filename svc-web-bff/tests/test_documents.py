import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from litestar import Litestar

from svc_web_bff.docs import DocsPage
from svc_web_bff.openapi import PATH, document, document_bytes, main


def test_the_committed_document_is_fresh() -> None:
    assert PATH.read_bytes() == document_bytes(), "run: python -m svc_web_bff.openapi"


def test_a_stale_document_is_shown_with_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "openapi.json"
    assert main([str(path)]) == 0
    assert main([str(path), "--check"]) == 0
    path.write_text(path.read_text("utf-8").replace("1.0.0", "0.9.9"), "utf-8")
    assert main([str(path), "--check"]) == 1
    shown = capsys.readouterr().err
    assert '-    "version": "0.9.9"' in shown
    assert "python -m svc_web_bff.openapi" in shown
    assert main([str(tmp_path / "none.json"), "--check"]) == 1


async def test_the_served_document_is_the_committed_one(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.content == PATH.read_bytes()
    assert response.headers["content-type"] == "application/json"


def test_every_route_is_documented_and_every_documented_route_exists(app: Litestar) -> None:
    served = {
        (re.sub(r":str\}", "}", route.path), method.lower())
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method not in ("HEAD", "OPTIONS")
    }
    documented = {
        (path, method) for path, methods in document()["paths"].items() for method in methods
    }
    assert served == documented


def test_every_operation_is_described_and_has_an_example() -> None:
    for methods in document()["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["operationId"]
            for response in operation["responses"].values():
                for media_type, media in response.get("content", {}).items():
                    if media_type.endswith("json"):
                        assert "example" in media or media["examples"]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.pieces: list[str] = []
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert "style" not in values, "the CSP would refuse it"
        assert not any(name.startswith("on") for name in values), "the CSP would refuse it"
        self.loads += [values[name] for name in ("src", "data", "action") if name in values]
        self.ids |= {values["id"]} if "id" in values else set()
        self.targets |= {values["href"]} if "href" in values else set()
        if tag not in ("meta", "br"):
            self.opened.append(tag)
        if tag == "pre":
            self.pieces.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" in self.opened:
            self.pieces[-1] += data


async def _page(client: httpx.AsyncClient, host: str = "example.org:8080") -> _Page:
    page = _Page()
    page.feed((await client.get("/docs", headers={"Host": host})).text)
    return page


async def test_the_page_loads_nothing_from_anywhere(client: httpx.AsyncClient) -> None:
    page = await _page(client)
    assert page.loads == []
    assert not page.opened
    inside = {target[1:] for target in page.targets if target.startswith("#")}
    assert inside <= page.ids
    assert {target for target in page.targets if not target.startswith("#")} == {"/openapi.json"}
    policy = (await client.get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


async def test_every_operation_is_on_the_page(client: httpx.AsyncClient) -> None:
    page = await _page(client)
    for methods in document()["paths"].values():
        for operation in methods.values():
            assert operation["operationId"] in page.ids


async def test_the_curl_commands_work_as_they_are_copied(client: httpx.AsyncClient) -> None:
    commands = [piece for piece in (await _page(client)).pieces if piece.startswith("curl")]
    assert len(commands) == 33
    for command in commands:
        words = shlex.split(command.replace("\\\n", "").replace("$(uuidgen)", "one-key"))
        url = next(word for word in words if word.startswith("http"))
        assert url.startswith("http://example.org:8080/")
        headers = [words[n + 1].split(": ", 1) for n, word in enumerate(words) if word == "-H"]
        sent = next((words[n + 1] for n, word in enumerate(words) if word == "-d"), "")
        response = await client.request(
            "POST" if "POST" in words else "GET",
            url.replace("http://example.org:8080", ""),
            headers={**dict(headers), "Idempotency-Key": command[:200].encode().hex()[:250]},
            content=sent,
        )
        assert response.is_success, command


@pytest.mark.parametrize("host", ['"><script>', "evil.org/x", "evil org", "x" * 300, "[::1"])
async def test_a_host_header_is_not_echoed_unless_it_is_one(host: str) -> None:
    scope = {"headers": [(b"host", host.encode())], "scheme": "javascript"}
    text = DocsPage().render(scope).decode()  # type: ignore[arg-type] # a part of a scope
    assert host not in text
    assert "http://127.0.0.1/v1/counters" in text


def test_the_service_imports_no_other_service() -> None:
    code = "import sys, svc_web_bff.main; print([m for m in sys.modules if m.startswith('svc_')])"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all("svc_web_bff" in name for name in out.strip("[]\n").split(", "))
