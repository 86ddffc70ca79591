"""Dirty regions of a running mirror: what may be written when (D2)."""

from __future__ import annotations

from collections.abc import Coroutine

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backstores.metadata.bitmap import Geometry, Loaded, Place, Stamp, decode, merge
from backstores.metadata.dirty import ACTIVE, CLEAN, IDLE, Batch, DirtyRegions
from backstores.objects import MIB
from tests.support.metadata import ALU, name
from tests.support.recording import Image, RecordingStorage, crash_states, put, read

GEOMETRY = Geometry(name(6), 8 * 8192, 8192)
LEGS = (Place(ALU, name(7), 9 * MIB), Place(ALU, name(8), 11 * MIB))


def fresh(*dirty: int) -> DirtyRegions:
    return DirtyRegions(GEOMETRY, Loaded(frozenset(dirty), Stamp()))


def settle(regions: DirtyRegions) -> Batch | None:
    batch = regions.next_batch(1)
    if batch is not None:
        regions.written(batch)
    return batch


def settled(*dirty: int) -> DirtyRegions:
    regions = fresh(*dirty)
    settle(regions)
    return regions


def dirty_in(batch: Batch) -> set[int]:
    return {region for region in range(GEOMETRY.regions) if batch.bits[region // 8] >> region % 8 & 1}


def test_a_clean_region_waits_until_its_bit_is_durable() -> None:
    """D2."""
    regions = settled()
    assert not regions.mark(2, 3)
    assert regions.state[2] == CLEAN
    batch = regions.next_batch(1)
    assert batch is not None
    assert not regions.mark(2, 3)
    assert dirty_in(batch) == {2, 3}
    regions.written(batch)
    assert regions.mark(2, 3)
    assert regions.next_batch(1) is None


def test_marks_of_many_writes_share_a_batch() -> None:
    regions = settled()
    for region in (1, 4, 6):
        regions.mark(region, region)
    batch = settle(regions)
    assert batch is not None
    assert batch.marks == {1, 4, 6}
    assert regions.next_batch(1) is None


def test_marks_during_a_batch_wait_for_the_next() -> None:
    regions = settled()
    regions.mark(1, 1)
    first = regions.next_batch(1)
    assert first is not None
    regions.mark(1, 2)
    assert regions.next_batch(1) is None
    regions.written(first)
    assert regions.state[1] == ACTIVE
    assert regions.state[2] == CLEAN
    second = settle(regions)
    assert second is not None
    assert second.marks == {2}
    assert dirty_in(second) == {1, 2}
    assert second.stamp.generation == first.stamp.generation + 1


def test_marks_of_a_failed_batch_stay_wanted() -> None:
    regions = settled()
    regions.mark(1, 1)
    batch = regions.next_batch(1)
    assert batch is not None
    regions.failed(batch)
    assert regions.state[1] == CLEAN
    again = settle(regions)
    assert again is not None
    assert again.marks == {1}
    assert regions.mark(1, 1)


def test_the_first_batch_makes_the_legs_alike() -> None:
    """What was dirty on one leg is written to all before anything else is allowed."""
    regions = fresh(3)
    assert not regions.mark(3, 3)
    batch = settle(regions)
    assert batch is not None
    assert dirty_in(batch) == {3}
    assert regions.mark(3, 3)
    assert settle(fresh()) is not None


def test_a_region_at_rest_is_cleared_after_two_looks() -> None:
    regions = settled()
    regions.mark(1, 1)
    settle(regions)
    assert regions.age() == ()
    assert regions.state[1] == IDLE
    assert regions.age() == (1,)
    assert regions.clean((1,)) == 1
    assert not regions.mark(1, 1)
    batch = settle(regions)
    assert batch is not None
    assert dirty_in(batch) == {1}


def test_the_clearing_reaches_the_legs() -> None:
    regions = settled()
    regions.mark(1, 2)
    settle(regions)
    regions.age()
    regions.mark(2, 2)
    assert regions.clean(regions.age()) == 1
    batch = settle(regions)
    assert batch is not None
    assert dirty_in(batch) == {2}


@pytest.mark.parametrize("touch", ["mark", "hot-path", "pin"])
def test_a_candidate_that_was_touched_meanwhile_stays(touch: str) -> None:
    """A write between the look and the flush of the legs is not covered by that flush."""
    regions = settled()
    regions.mark(1, 1)
    settle(regions)
    regions.age()
    candidates = regions.age()
    if touch == "mark":
        regions.mark(1, 1)
    elif touch == "hot-path":
        regions.state[1] = ACTIVE
    else:
        regions.pin(1, 1)
    assert regions.clean(candidates) == 0
    assert regions.state[1] != CLEAN


def test_a_write_in_flight_keeps_its_regions() -> None:
    regions = settled()
    regions.pin(1, 2)
    regions.pin(2, 2)
    regions.mark(1, 2)
    settle(regions)
    for _ in range(3):
        assert regions.age() == ()
    regions.unpin(1, 2)
    assert regions.age() == ()
    assert regions.age() == (1,)
    regions.unpin(2, 2)
    assert regions.age() == (1,)
    assert regions.age() == (1, 2)


def test_a_region_left_dirty_stays_until_it_is_copied() -> None:
    """D2: until the legs agree, its bit must outlive another crash."""
    regions = settled(3, 4)
    for _ in range(3):
        assert regions.age() == ()
    assert regions.clean((3,)) == 0
    regions.copied([3])
    assert regions.unsynced == {4}
    assert regions.clean(regions.age()) == 1


def test_unpin_without_pin_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="region 1"):
        settled().unpin(1, 1)


def test_only_the_batch_on_its_way_can_end() -> None:
    regions = fresh()
    batch = settle(regions)
    assert batch is not None
    with pytest.raises(AssertionError):
        regions.written(batch)


def test_stamps_grow() -> None:
    """M2."""
    regions = DirtyRegions(GEOMETRY, Loaded(frozenset(), Stamp(8, 100)))
    batch = regions.next_batch(5)
    assert batch is not None
    assert batch.stamp == Stamp(9, 101)


class Mirror(RuleBasedStateMachine):
    """A mirror at work on a disk that remembers: each data write obliges the bitmap until its region is cleared.

    ``owed`` holds (region, first moment, last moment), moments being numbers of events begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = RecordingStorage(16 * MIB)
        self.regions = fresh()
        self.start: Image = {}
        self.batch: Batch | None = None
        self.running: list[tuple[int, int]] = []
        self.waiting: list[tuple[int, int]] = []
        self.candidates: tuple[int, ...] = ()
        self.owed: list[tuple[int, int, int | None]] = []
        for leg in LEGS:  # what lay on the legs before: all clean
            put(self.start, leg.start_bytes, next(iter(self._first_batch().writes(leg))).data)
        self.disk.image = dict(self.start)

    def _first_batch(self) -> Batch:
        batch = fresh().next_batch(0)
        assert batch is not None
        return batch

    def _write(self, first: int, last: int) -> None:
        for region in range(first, last + 1):
            self.owed.append((region, len(self.disk.events), None))

    @rule(first=st.integers(0, 7), length=st.integers(0, 2))
    def begin_write(self, first: int, length: int) -> None:
        last = min(first + length, 7)
        self.regions.pin(first, last)
        self.waiting.append((first, last))

    @rule()
    def let_writes_begin(self) -> None:
        for span in list(self.waiting):
            if self.regions.mark(*span):
                self.waiting.remove(span)
                self.running.append(span)
                self._write(*span)

    @rule(region=st.integers(0, 7))
    def hot_write(self, region: int) -> None:
        if self.regions.state[region]:
            self.regions.state[region] = ACTIVE
            self._write(region, region)

    @precondition(lambda self: self.running)
    @rule()
    def end_write(self) -> None:
        self.regions.unpin(*self.running.pop(0))

    @rule()
    def begin_batch(self) -> None:
        batch = self.regions.next_batch(0)
        if batch is not None:
            self.batch = batch
            for leg in LEGS:
                for write in batch.writes(leg):
                    _run(self.disk.write(write.offset, write.data))

    @precondition(lambda self: self.batch is not None)
    @rule(well=st.booleans())
    def end_batch(self, well: bool) -> None:
        assert self.batch is not None
        if well:
            _run(self.disk.flush())
            self.regions.written(self.batch)
        else:
            self.regions.failed(self.batch)
        self.batch = None

    @rule()
    def age(self) -> None:
        self.candidates = self.regions.age()

    @rule()
    def clean(self) -> None:
        """The data of all writes that had ended when ``age`` ran is flushed here."""
        before = {region for region, state in enumerate(self.regions.state) if state}
        self.regions.clean(self.candidates)
        cleared = {region for region in before if not self.regions.state[region]}
        running = {region for first, last in self.running for region in range(first, last + 1)}
        assert not cleared & running, "a region with a write in flight was cleared"
        now = len(self.disk.events)
        self.owed = [(r, a, now if b is None and r in cleared else b) for r, a, b in self.owed]

    @invariant()
    def state_has_only_its_values(self) -> None:
        assert set(self.regions.state) <= {CLEAN, IDLE, ACTIVE}

    def teardown(self) -> None:
        for moment, image in crash_states(self.start, self.disk.events):
            owed = {r for r, a, b in self.owed if a <= moment and (b is None or moment <= b)}
            for leg in LEGS:
                loaded = decode(read(image, leg.start_bytes, GEOMETRY.length_bytes), GEOMETRY, leg)
                assert owed <= loaded.dirty, f"after {moment} events, leg {leg.leg}"
                assert merge([loaded], GEOMETRY).dirty == loaded.dirty


def _run(step: Coroutine[None, None, None]) -> None:
    """Drive a coroutine of the recording disk, which never waits."""
    try:
        step.send(None)
    except StopIteration:
        return
    raise AssertionError("the disk waited")


Mirror.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestNoCrashForgetsADirtyRegion = Mirror.TestCase
