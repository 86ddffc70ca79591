"""What docs/security.md names must be there: a table of defences that are gone would be worse than none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(
    set(
        re.findall(
            r"`((?:tests|backstores|appliance)/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/security.md").read_text()
        )
    )
)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part.rpartition("/")[2] or "module")
def test_what_is_named_is_there(path: str, name: str) -> None:
    assert re.search(rf"def {name}\(" if name else "", (ROOT / path).read_text())


def test_the_document_names_tests() -> None:
    assert len(NAMED) > 30
