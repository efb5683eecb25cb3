"""Data as text, always the same way: YAML, JSON, comments."""

import json
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from flotilla_platform.generating.artifact import NOTICE

WIDTH = 110

type Data = Mapping[str, Any] | Sequence[Any]


def yaml_text(*documents: Data, notice: str = NOTICE) -> str:
    """Return documents of plain data as YAML, in the order of their keys, below a comment."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = WIDTH
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda *_: True
    stream = StringIO()
    yaml.explicit_start = len(documents) > 1
    yaml.dump_all(documents, stream)
    return comment(notice) + stream.getvalue()


def json_text(document: Data) -> str:
    """Return plain data as JSON, in the order of its keys."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def comment(text: str, mark: str = "#") -> str:
    """Return text as comment lines."""
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in text.splitlines())
