"""Results of gates for other programs: JSON, JUnit, SARIF."""

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from flotilla_platform.harness.running import Result

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_ILLEGAL = dict.fromkeys(n for n in range(32) if chr(n) not in "\t\n\r")
"""What XML does not allow: colours of a terminal begin with one."""


def as_data(results: Sequence[Result]) -> dict[str, Any]:
    """Return results as one stable document."""
    return {
        "format": 1,
        "green": not any(result.bad for result in results),
        "gates": [
            {
                "name": result.gate.name,
                "outcome": result.outcome,
                "cached": result.cached,
                "seconds": round(result.seconds, 1),
                "why": list(result.why),
                "argv": [list(command) for command in result.gate.run],
                "log": str(result.log) if result.log else None,
            }
            for result in results
        ],
    }


def as_junit(results: Sequence[Result]) -> str:
    """Return results as a JUnit document: a gate is a test case."""
    suite = ET.Element(
        "testsuite",
        name="flotilla gate",
        tests=str(len(results)),
        failures=str(sum(result.bad for result in results)),
        skipped=str(sum(result.outcome == "unaffected" for result in results)),
        time=f"{sum(result.seconds for result in results):.1f}",
    )
    for result in results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=result.gate.stage,
            name=result.gate.name,
            time=f"{result.seconds:.1f}",
        )
        if result.bad:
            failure = ET.SubElement(
                case, "failure", message=f"{result.outcome}: {result.gate.holds}"
            )
            failure.text = result.tail().translate(_ILLEGAL)
        elif result.outcome == "unaffected":
            ET.SubElement(case, "skipped", message="the change touches nothing that it reads")
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_sarif(results: Sequence[Result]) -> str:
    """Return results as a SARIF 2.1.0 log: a gate is a rule, one that is not green a result."""
    rules = [
        {"id": result.gate.name, "shortDescription": {"text": result.gate.holds}}
        for result in results
    ]
    found = [
        {
            "ruleId": result.gate.name,
            "level": "error",
            "message": {"text": result.tail() or f"{result.outcome}: {result.gate.holds}"},
        }
        for result in results
        if result.bad
    ]
    driver = {"name": "flotilla gate", "rules": rules}
    log = {
        "$schema": SARIF,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": found}],
    }
    return json.dumps(log, indent=2) + "\n"
