"""`/docs`: the OpenAPI document as one page for people, which loads nothing from anywhere.

Style and script are inline and named by hash in the page's Content-Security-Policy.
"""

import base64
import hashlib
import html
import json
import re

from litestar.types import Scope

from svc_web_bff.openapi import ASSETS, document
from svc_web_bff.openapi_parts import Json

_HERE = "https://flotilla.invalid"
"""Stands where the page shows its own address, which only the request knows."""

_HOST = re.compile(rb"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


class DocsPage:
    """The page, rendered once."""

    def __init__(self) -> None:
        style = (ASSETS / "docs.css").read_text("utf-8")
        script = (ASSETS / "docs.js").read_text("utf-8")
        self._page = _page(document(), style, script).encode()
        self.content_security_policy = (
            f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ).encode()

    def render(self, scope: Scope) -> bytes:
        """Return the page, with commands that work from where it is read."""
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        scheme = b"https" if scope["scheme"] == "https" else b"http"
        if not _HOST.fullmatch(host):
            host = b"127.0.0.1"
        return self._page.replace(_HERE.encode(), scheme + b"://" + host)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _page(doc: Json, style: str, script: str) -> str:
    info = doc["info"]
    operations = [
        (path, method, operation)
        for path, methods in doc["paths"].items()
        for method, operation in methods.items()
    ]
    menu, sections = [], []
    for tag in doc["tags"]:
        members = [entry for entry in operations if tag["name"] in entry[2]["tags"]]
        menu.append(f"<h2>{_text(tag['name'])}</h2><ul>{''.join(map(_menu_entry, members))}</ul>")
        sections.append(f"<h2>{_text(tag['name'])}</h2>{_prose(tag['description'])}")
        sections.extend(_operation(doc, *entry) for entry in members)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_text(info['title'])} API</title><style>{style}</style></head><body>"
        f'<nav aria-label="Operations"><a class="brand" href="#top">{_text(info["title"])}</a>'
        f"{''.join(menu)}<h2>More</h2><ul>"
        '<li><a href="#problems">Error codes</a></li>'
        '<li><a href="/openapi.json">openapi.json</a></li>'
        f'</ul></nav><main id="top"><header><h1>{_text(info["title"])} <small>API'
        f" {_text(info['version'])}</small></h1>{_prose(info['description'])}{_start(doc)}</header>"
        f"{''.join(sections)}{_problems(doc)}</main><script>{script}</script></body></html>"
    )


def _menu_entry(entry: tuple[str, str, Json]) -> str:
    _, method, operation = entry
    return (
        f'<li><a href="#{operation["operationId"]}">{_badge(method)}'
        f"{_text(operation['summary'])}</a></li>"
    )


def _start(doc: Json) -> str:
    path = "/v1/counters/{counter_id}"
    count, read = doc["paths"][f"{path}/increment"]["post"], doc["paths"][path]["get"]
    return (
        '<section class="start"><h2>Try it</h2>'
        f"<p>Count, then read it back:</p>{_curl(doc, f'{path}/increment', 'post', count)}"
        f"{_curl(doc, path, 'get', read)}</section>"
    )


def _operation(doc: Json, path: str, method: str, operation: Json) -> str:
    shown_path = re.sub(r"(\{\w+\})", r"<em>\1</em>", _text(path))
    body = operation.get("requestBody")
    return (
        f'<section class="operation" id="{operation["operationId"]}">'
        f'<h3><a href="#{operation["operationId"]}">{_text(operation["summary"])}</a></h3>'
        f'<p class="route">{_badge(method)}<code>{shown_path}</code></p>'
        f"{_prose(operation['description'])}{_parameters(doc, operation)}"
        f"{_body(body) if body else ''}<h4>Example</h4>{_curl(doc, path, method, operation)}"
        f"<h4>Answers</h4>{''.join(_answer(*item) for item in operation['responses'].items())}"
        "</section>"
    )


def _parameters(doc: Json, operation: Json) -> str:
    rows = []
    for parameter in (_resolve(doc, found) for found in operation["parameters"]):
        need = '<b class="required">required</b>' if parameter.get("required") else "optional"
        rows.append(
            f"<tr><td><code>{_text(parameter['name'])}</code><br><small>{parameter['in']},"
            f" {need}</small></td><td>{_inline(parameter['description'])}"
            f"{_limits(parameter['schema'])}</td></tr>"
        )
    return f"<h4>Parameters</h4><table>{''.join(rows)}</table>"


def _limits(schema: Json) -> str:
    """Return what a schema demands, for people: `1 to 200, 50 if left out`."""
    said = []
    if "minimum" in schema:
        said.append(f"{schema['minimum']} to {schema['maximum']}")
    if "default" in schema:
        said.append(f"{schema['default']} if left out")
    return f" <small>({', '.join(said)})</small>" if said else ""


def _body(body: Json) -> str:
    media = body["content"]["application/json"]
    need = "required" if body["required"] else "may be left out"
    return f"<h4>Body <small>JSON, {need}</small></h4>{_code(_json(media['example']))}"


def _answer(status: str, response: Json) -> str:
    kind = "good" if status < "400" else "bad"
    headers = ", ".join(f"<code>{_text(name)}</code>" for name in response["headers"])
    media: Json = next(iter(response.get("content", {}).values()), {})
    example = media.get("example")
    if example is None and "examples" in media:
        example = next(iter(media["examples"].values()))["value"]
    shown = _code(_json(example)) if example is not None else ""
    return (
        f'<details class="{kind}"{" open" if status in ("200", "201") and shown else ""}>'
        f"<summary><b>{status}</b> {_inline(response['description'])}</summary>"
        f"<p><small>Headers: {headers}</small></p>{shown}</details>"
    )


def _problems(doc: Json) -> str:
    found: dict[str, tuple[int, str]] = {}
    for methods in doc["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for media in response.get("content", {}).values():
                    for code, example in media.get("examples", {}).items():
                        found[code] = (example["value"]["status"], example["summary"])
    rows = "".join(
        f"<tr><td>{status}</td><td><code>{_text(code)}</code></td><td>{_text(title)}</td></tr>"
        for code, (status, title) in sorted(found.items(), key=lambda item: (item[1], item[0]))
    )
    return f'<section id="problems"><h2>Error codes</h2><table>{rows}</table></section>'


def _curl(doc: Json, path: str, method: str, operation: Json) -> str:
    lines = []
    url = _HERE + path
    for parameter in (_resolve(doc, found) for found in operation["parameters"]):
        if not parameter.get("required"):
            continue
        if parameter["in"] == "path":
            url = url.replace("{" + parameter["name"] + "}", str(parameter["example"]))
        elif parameter["name"] == "Idempotency-Key":
            lines.append('-H "Idempotency-Key: $(uuidgen)"')
        else:
            lines.append(f"-H '{parameter['name']}: {parameter['example']}'")
    if body := operation.get("requestBody", {}).get("content"):
        example = body["application/json"]["example"]
        if example:
            lines.append("-H 'Content-Type: application/json'")
            lines.append(f"-d '{json.dumps(example)}'")
    verb = "curl -X POST" if method == "post" else "curl"
    return _code(" \\\n  ".join([f"{verb} {url}", *lines]), copy=True)


def _code(text: str, *, copy: bool = False) -> str:
    button = '<button type="button" class="copy">Copy</button>' if copy else ""
    return f'<div class="code">{button}<pre><code>{_text(text)}</code></pre></div>'


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _badge(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _resolve(doc: Json, found: Json) -> Json:
    node: Json = doc
    for part in found["$ref"].removeprefix("#/").split("/"):
        node = node[part]
    return node


def _text(text: str) -> str:
    return html.escape(text)


def _inline(text: str) -> str:
    """Return one paragraph of the document's Markdown: `code` and **bold** is all we use."""
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n"))
