"""The diagrams in the documentation are those of the tables (R9)."""

from __future__ import annotations

from pathlib import Path

from appliance.vcm.document import document

DOCS = Path(__file__).parents[3] / "docs" / "control-plane.md"


def test_the_diagrams_are_those_of_the_tables() -> None:
    assert DOCS.read_text() == document(), "run: python -m appliance.vcm.document > docs/control-plane.md"
