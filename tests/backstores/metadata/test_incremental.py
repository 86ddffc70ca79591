"""What looks only at what a change changes finds and writes what looking at everything would (R3, M6)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.errors import UsageError
from backstores.metadata import records, region, witness
from backstores.metadata.layout import data_area
from backstores.metadata.region import BODY_OFFSET, Difference, RegionState
from backstores.metadata.store import AluMetadata
from backstores.metadata.table import Table, update
from backstores.objects import AnyObject
from tests.support.metadata import ALU, DIRECTORY, LABEL, OTHER_ALU, SIZE, SUSID, clock, partition, volume
from tests.support.recording import RecordingStorage, StorageFailed

DATA = data_area(SIZE)
Objects = tuple[AnyObject, ...]

parts = st.builds(
    partition,
    st.integers(1, 6),
    st.integers(7, 15),  # the data area is 8 to 14
    st.integers(1, 3),
    alu=st.sampled_from([ALU, ALU, ALU, ALU, ALU, OTHER_ALU]),
    bitmap=st.none() | st.integers(8, 15),
)
heads = st.builds(volume, st.integers(1, 9), st.integers(1, 9), generation=st.integers(0, 3))
some_objects = st.lists(parts | heads, max_size=6).map(tuple)


def sound(objects: Objects) -> Objects:
    """Leave out what is wrong, one by one."""
    good: Objects = ()
    for item in objects:
        if not records.check((*good, item), ALU, DATA):
            good = (*good, item)
    return good


@given(some_objects, some_objects)
def test_what_is_wrong_is_found_by_looking_at_what_is_new(others: Objects, new: Objects) -> None:
    """Duplicates, overlaps, and what is wrong with an object by itself."""
    others = sound(others)
    whole = records.check((*others, *new), ALU, DATA)
    found = records.check_new(new, others, ALU, DATA)
    assert set(whole) <= set(found)
    assert bool(whole) == bool(found)


@given(some_objects, some_objects, st.data())
def test_a_change_is_refused_by_either_or_by_neither(before: Objects, new: Objects, data: st.DataObject) -> None:
    before = sound(before)
    after = data.draw(st.permutations([*before, *new]).map(lambda objects: tuple(objects[: len(before) + 1])))
    state = RegionState(before, 1, 1, 0, 0, 2 * BODY_OFFSET)
    outcomes = []
    for known_sound in (False, True):
        try:
            made = region.commit(replace(state, sound=known_sound), after, DIRECTORY, DATA, 2, 0)
        except UsageError:
            outcomes.append(None)
        else:
            outcomes.append(made)
            assert made.after.sound
            assert set(made.after.objects) == set(after)
    assert outcomes[0] == outcomes[1]


@given(some_objects, some_objects)
def test_a_difference_makes_one_of_the_other(before: Objects, after: Objects) -> None:
    before, after = sound(before), sound(after)
    by_name = {item.wwn: item for item in before}
    found = Difference.of(by_name, after)
    assert set(region.applied(by_name, found.come, found.dropped).values()) == set(after)
    assert set(found.same) == set(before) & set(after)
    assert set(found.come) == set(after) - set(before)
    assert set(found.gone) == set(before) - set(after)


@given(some_objects, some_objects)
def test_the_table_becomes_the_same(before: Objects, after: Objects) -> None:
    """R1: what is written of it, too."""
    before, after = sound(before), sound(after)
    table = update(Table(), witness.settled(before, {}, DATA), LABEL, 1, 0).after
    change = Difference.of({item.wwn: item for item in before}, after)
    whole = witness.around(table, before, after, {}, LABEL, 2, 0)
    part = witness.around_change(table, change.gone, change.come, {}, LABEL, 2, 0)
    assert [set(one.after.entries) for one in part] == [set(one.after.entries) for one in whole]
    assert [len(one.steps) for one in part] == [len(one.steps) for one in whole]


@pytest.mark.parametrize("seed", range(8))
def test_a_history_leaves_what_is_there_and_nothing_wrong(seed: int) -> None:
    """R1, R3: failed commits among the others; whoever reads the ALU then finds objects and table agreed."""
    dice = random.Random(seed)
    storage = RecordingStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    wanted: Objects = ()
    for _ in range(40):
        places = dice.sample(range(8, 15), dice.randint(0, 6))
        fresh = [partition(at, at) if dice.random() < 0.7 else volume(at, 1) for at in places]
        kept = [item for item in metadata.objects if dice.random() < 0.6]
        names = {item.wwn for item in kept}
        wanted = (*kept, *(item for item in fresh if item.wwn not in names))
        storage.fail_after = dice.randrange(12) if dice.random() < 0.3 else None
        try:
            asyncio.run(metadata.commit(wanted))
        except StorageFailed:
            assert storage.fail_after is not None
        storage.fail_after = None
    asyncio.run(metadata.commit(wanted))
    found = asyncio.run(AluMetadata(storage, SIZE, clock()).inspect(SUSID))
    assert found.findings == ()
    assert found.state is not None
    assert set(found.state.objects) == set(wanted)
    assert found.agreement.settled
