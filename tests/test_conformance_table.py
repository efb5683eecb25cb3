"""What the README says of the topologies is what was measured."""

from flotilla_contracts.generate import ROOT

REPOSITORY = ROOT.parent


def test_the_readme_has_the_table_that_make_conformance_wrote() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    shown = readme.partition("<!-- conformance -->")[2].partition("<!-- /conformance -->")[0]
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    page = (REPOSITORY / "docs" / "conformance.md").read_text().splitlines()

    assert [line for line in page if line.startswith("|")] == rows
    assert {"single", "single-postgres", "vps", "compose"} == {
        row.split("`")[1] for row in rows[2:]
    }
    assert all("| the same |" in row for row in rows[2:])
