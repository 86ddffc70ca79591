"""The object region: what a commit writes, and when a new base is written (R3, M3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.errors import UsageError
from backstores.metadata.region import BODY_OFFSET, END_BYTES, Commit, RegionState, applied, base, capacity, commit
from backstores.metadata.steps import Flush, Step, Write
from backstores.objects import MIB, AnyObject
from tests.support.metadata import ALU, DIRECTORY, LABEL, name, partition, volume

FIRST: tuple[AnyObject, ...] = (partition(1, 8),)
SECOND: tuple[AnyObject, ...] = (partition(1, 8), volume(2, 1))
BLANK = RegionState((), 1, 10, 0, 0, None)
FRESH = base(BLANK, DIRECTORY).after
A, B = DIRECTORY.regions
UNIT = 4096


def committed(previous: RegionState, objects: tuple[AnyObject, ...], now_ns: int = 0, epoch: int = 0) -> Commit:
    return commit(previous, objects, DIRECTORY, LABEL.data, now_ns, epoch)


def shape(steps: tuple[Step, ...]) -> list[int | None]:
    return [getattr(step, "offset", None) for step in steps]


def test_a_base_is_written_body_first() -> None:
    """M3: body and the zeros behind it, flush, header, flush."""
    steps = base(replace(BLANK, objects=SECOND, live=1), DIRECTORY).steps
    assert shape(steps) == [B + BODY_OFFSET, None, B, None]
    assert [type(step) for step in steps] == [Write, Flush, Write, Flush]
    assert isinstance(steps[0], Write)
    assert steps[0].data[-END_BYTES:] == bytes(END_BYTES)


def test_a_change_is_appended_behind_the_last() -> None:
    """M3, R3: into the live region, where zeros were; nothing that counts is overwritten."""
    first = committed(FRESH, FIRST, 20, epoch=3)
    assert FRESH.end is not None
    at = A + FRESH.end
    assert shape(first.steps) == [at + BODY_OFFSET, None, at, None]
    assert (first.after.generation, first.after.time_ns, first.after.epoch, first.after.live) == (2, 20, 3, 0)
    second = committed(first.after, SECOND)
    assert shape(second.steps) == [at + 3 * UNIT, None, at + 2 * UNIT, None]
    assert second.after.objects == SECOND
    assert second.after.time_ns == 21


def test_a_change_does_not_grow_with_the_number_of_objects() -> None:
    """The cost of one more object is the same on an ALU of thousands."""
    many = tuple(volume(number, 1) for number in range(1, 8000))
    few, lots = (
        committed(FRESH, (volume(9000, 1),)),
        committed(base(replace(BLANK, objects=many), DIRECTORY).after, (*many, volume(9000, 1))),
    )
    assert [len(step.data) for step in few.steps if isinstance(step, Write)] == [
        len(step.data) for step in lots.steps if isinstance(step, Write)
    ]


def test_what_is_there_already_is_not_written() -> None:
    state = committed(FRESH, SECOND).after
    assert committed(state, SECOND[::-1]) == Commit((), (), state)


@pytest.mark.parametrize("end", [None, DIRECTORY.region_bytes - END_BYTES], ids=["damaged", "full"])
def test_a_new_base_goes_into_the_other_region(end: int | None) -> None:
    """M3: the live one stays as it is until the new one counts."""
    made = committed(replace(FRESH, objects=FIRST, generation=7, end=end), SECOND)
    assert shape(made.steps) == [B + BODY_OFFSET, None, B, None]
    assert (made.after.live, made.after.generation, made.after.objects) == (1, 8, SECOND)


def test_a_base_without_room_for_a_log_is_followed_by_another() -> None:
    filling = tuple(volume(number, 1) for number in range(1, 11_750))
    made = base(replace(FRESH, objects=filling), DIRECTORY)
    assert made.after.end is not None
    assert made.after.end + END_BYTES > DIRECTORY.region_bytes
    after = committed(made.after, filling[1:])
    assert (after.after.live, after.after.objects) == (1, filling[1:])


def test_the_log_keeps_room_for_the_zeros_that_end_it() -> None:
    room = replace(FRESH, end=DIRECTORY.region_bytes - 2 * UNIT - END_BYTES)
    made = committed(room, FIRST)
    assert made.after.live == 0
    assert made.after.end == DIRECTORY.region_bytes - END_BYTES


@pytest.mark.parametrize(
    ("made", "at"),
    [
        (committed(FRESH, FIRST), A + (FRESH.end or 0)),
        (committed(replace(FRESH, end=None), FIRST), B),
    ],
    ids=["change", "base"],
)
def test_undo_takes_the_header_back(made: Commit, at: int) -> None:
    """What a failed commit may have left must not count, nor look like damage."""
    assert shape(made.undo) == [at, None]


def test_changed_objects_keep_their_place_and_new_ones_come_last() -> None:
    before = {item.wwn: item for item in (volume(1, 9), volume(2, 9), volume(3, 9))}
    after = applied(before, [volume(4, 9), volume(1, 9, generation=2)], [name(2)])
    assert tuple(after.values()) == (volume(1, 9, generation=2), volume(3, 9), volume(4, 9))


@pytest.mark.parametrize(
    "objects",
    [(partition(1, 8), partition(1, 9)), (partition(1, 8), partition(3, 8)), (partition(1, 15),)],
    ids=["twice", "overlapping", "outside"],
)
def test_nothing_that_contradicts_is_committed(objects: tuple[AnyObject, ...]) -> None:
    with pytest.raises(UsageError, match=ALU):
        committed(FRESH, objects)


def test_objects_beyond_the_room_of_a_base_are_refused_with_sizes() -> None:
    """Though each change would still fit the log: the next base would not."""
    many = tuple(volume(number, 1) for number in range(1, 15_000))
    assert capacity(DIRECTORY) == 2 * MIB - UNIT
    with pytest.raises(UsageError, match=str(2 * MIB - UNIT)):
        committed(FRESH, many)


def test_thousands_of_objects_have_room() -> None:
    many = tuple(volume(number, 1) for number in range(1, 9_000))
    assert committed(FRESH, many).after.objects == many
