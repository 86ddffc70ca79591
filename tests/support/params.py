"""Cases of a parametrized test, some of which take long."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest


def cases(rows: Mapping[str, Any], slow: Collection[str]) -> list[Any]:
    """Give the rows under their names; `make check` leaves the slow ones to `make test`."""
    assert set(slow) <= set(rows), "a name that no row has"
    marks = {name: [pytest.mark.slow] if name in slow else [] for name in rows}
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name, marks=marks[name])
        for name, row in rows.items()
    ]
