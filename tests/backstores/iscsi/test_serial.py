"""Serial number arithmetic of RFC 1982."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.iscsi.serial import MASK, after, distance

serials = st.integers(0, MASK)


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [(0, 1, 1), (1, 0, -1), (5, 5, 0), (0xFFFFFFFF, 0, 1), (0, 0xFFFFFFFF, -1), (0xFFFFFFF0, 0x10, 0x20)],
)
def test_distance(first: int, second: int, steps: int) -> None:
    assert distance(first, second) == steps


@given(serials, st.integers(-0x7FFFFFFF, 0x7FFFFFFF))
def test_distance_undoes_after(start: int, steps: int) -> None:
    assert distance(start, after(start, steps)) == steps
