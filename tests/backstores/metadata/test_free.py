"""Free extents are what partitions leave."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.errors import UsageError
from backstores.metadata.free import allocate, free_extents
from backstores.objects import MIB, Extent
from tests.support.metadata import partition

DATA = Extent(8 * MIB, 40 * MIB)


def mib(start: int, length: int) -> Extent:
    return Extent(start * MIB, length * MIB)


def test_bitmaps_take_room_too() -> None:
    """R8."""
    assert free_extents(DATA, [partition(1, 8, 2, bitmap=12)]) == (mib(10, 2), mib(13, 35))


def test_a_full_alu_has_no_free_extents() -> None:
    assert free_extents(DATA, [partition(1, 8, 40)]) == ()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12))
def test_each_unit_is_free_or_used(parts: list[tuple[int, int]]) -> None:
    """Even where damaged metadata has partitions overlap or leave the data area."""
    objects = [partition(number, at, units) for number, (at, units) in enumerate(parts)]
    used = {unit for at, units in parts for unit in range(at, at + units)}
    free = free_extents(DATA, objects)
    assert [unit for e in free for unit in range(e.start_bytes // MIB, e.end_bytes // MIB)] == [
        unit for unit in range(8, 48) if unit not in used
    ]
    assert all(before.end_bytes < after.start_bytes for before, after in itertools.pairwise(free))


@pytest.mark.parametrize(
    ("free", "length", "taken"),
    [
        ([mib(8, 4)], 4 * MIB, [mib(8, 4)]),
        ([mib(8, 4)], 1, [mib(8, 1)]),
        ([mib(8, 2), mib(20, 3), mib(30, 9)], 3 * MIB, [mib(20, 3)]),
        ([mib(8, 2), mib(20, 3)], 4 * MIB, [mib(8, 2), mib(20, 2)]),
        ([mib(8, 2), mib(20, 3)], 5 * MIB, [mib(8, 2), mib(20, 3)]),
    ],
    ids=["all", "rounded-up", "first-that-fits", "in-pieces", "everything"],
)
def test_allocation(free: list[Extent], length: int, taken: list[Extent]) -> None:
    """R8: first fit, in one piece where that is possible."""
    assert allocate(free, length) == taken


@pytest.mark.parametrize("length", [0, -1, 6 * MIB], ids=str)
def test_allocation_that_cannot_be(length: int) -> None:
    with pytest.raises(UsageError, match=str(length)):
        allocate([mib(8, 2), mib(20, 3)], length)
