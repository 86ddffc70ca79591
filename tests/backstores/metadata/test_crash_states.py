"""Every crash, at every write, leaves the old state or the new one (M6).

Each test records what really is written, lets the disk lose or tear all that was not flushed, and
opens every state that comes out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from backstores.metadata import region
from backstores.metadata.findings import Problem
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.store import AluMetadata, carry_out
from backstores.objects import AnyObject
from backstores.wwn import new_device_wwn
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, clock, flipped, mirror, partition, volume
from tests.support.params import cases
from tests.support.recording import Image, RecordingStorage, StorageFailed, crash_states, possible_states

OLD: tuple[AnyObject, ...] = (partition(1, 8),)
NEW: tuple[AnyObject, ...] = (partition(1, 8), volume(2, 3), mirror(3, [1, 4]), partition(4, 9, bitmap=10))
MANY: tuple[AnyObject, ...] = (*NEW, *(volume(number, 1) for number in range(10, 40)))  # a body of some 15 sectors
GROWN: tuple[AnyObject, ...] = (
    partition(1, 8),
    volume(2, 3, generation=2),
    mirror(3, [1, 4]),
    partition(4, 9, bitmap=10),
    partition(5, 12),
)
FAILED: tuple[AnyObject, ...] = (partition(9, 12),)
OTHER = "another appliance"
THIRD_ALU = new_device_wwn(lambda bits: 3)

UNIT = 4096
HEADER_OF_A_COMMIT = 7  # of its writes and flushes, where it reserves an entry first
FIRST_CRASHES = 60  # states, spread evenly, from which a change is begun again

View = tuple[Ownership, str, tuple[AnyObject, ...]]
Change = Callable[[AluMetadata], Coroutine[None, None, None]]


def look(image: Image, susid: str = SUSID) -> tuple[AluMetadata, Inspection, RecordingStorage]:
    storage = RecordingStorage(SIZE, dict(image))
    metadata = AluMetadata(storage, SIZE, clock(1_800_000_000_000_000_000))
    return metadata, asyncio.run(metadata.inspect(susid)), storage


def view(image: Image) -> View:
    _, inspection, _ = look(image)
    label = inspection.label
    return inspection.ownership, label.alu if label else "", inspection.state.objects if inspection.state else ()


def problems(image: Image) -> set[Problem]:
    return {finding.problem for finding in look(image)[1].findings}


def start(*commits: tuple[AnyObject, ...], susid: str = SUSID) -> Image:
    storage = RecordingStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())
    if commits:
        asyncio.run(metadata.format(susid, ALU))
    for objects in commits:
        asyncio.run(metadata.commit(objects))
    return storage.image


def full_log() -> Image:
    """Make an ALU that holds OLD, and whose log has no room for one change more."""
    metadata, inspection, storage = look(start(OLD))
    generation = 1
    while inspection.state is not None and inspection.state.end is not None:
        room = metadata.directory.region_bytes - inspection.state.end
        if room <= 5 * UNIT:
            return storage.image
        filler = tuple(volume(n, 1, generation=generation) for n in range(20, 20 + min(90, room // UNIT)))
        asyncio.run(metadata.commit((*OLD, *filler)))
        asyncio.run(metadata.commit(OLD))
        inspection = asyncio.run(metadata.inspect(SUSID))
        generation += 1
    raise AssertionError("the log went on in the other region before it was full")


def record(before: Image, change: Change) -> RecordingStorage:
    metadata, _, storage = look(before)
    asyncio.run(change(metadata))
    return storage


async def commit_new(metadata: AluMetadata) -> None:
    await metadata.commit(NEW)


async def commit_grown(metadata: AluMetadata) -> None:
    await metadata.commit(GROWN)


async def commit_many(metadata: AluMetadata) -> None:
    await metadata.commit(MANY)


async def commit_less(metadata: AluMetadata) -> None:
    """Change no partition: the table is left alone."""
    await metadata.commit(tuple(item for item in NEW if item != volume(2, 3)))


async def commit_old(metadata: AluMetadata) -> None:
    await metadata.commit(OLD)


async def claim(metadata: AluMetadata) -> None:
    """Claim it; a second time under a name that it can't have from the first."""
    inspection = await metadata.inspect(SUSID)
    newest = inspection.choice.newest
    await metadata.format(SUSID, OTHER_ALU if newest is None or newest.alu != OTHER_ALU else THIRD_ALU)


def foreign() -> Image:
    return start(OLD, susid=OTHER)


CASES = {
    "commit": (start(OLD), commit_new),
    "commit-to-the-other-copy": (start(OLD, OLD), commit_new),
    "commit-of-more": (start(OLD, OLD), commit_many),
    "commit-of-less": (start(MANY), commit_new),
    "delete": (start(NEW), commit_old),
    "delete-of-more": (start(MANY), commit_old),
    "grow": (start(NEW), commit_grown),
    "into-the-other-region": (full_log(), commit_new),
    "claim-of-a-blank-alu": (start(), claim),
    "claim-of-a-foreign-alu": (foreign(), claim),
    "claim-of-an-own-alu": (start(OLD, OLD), claim),
}


@pytest.mark.parametrize(("before", "change"), CASES.values(), ids=CASES)
def test_a_crash_leaves_old_or_new(before: Image, change: Change) -> None:
    """M3, M6, R1: label directory, MDR directory and object region."""
    storage = record(before, change)
    old, new = view(before), view(storage.image)
    assert old != new
    seen = []
    for number, image in crash_states(before, storage.events):
        seen.append(view(image))
        assert seen[-1] in (old, new), number
        assert not problems(image) & {Problem.LOST, Problem.CONTRADICTION, Problem.MISSING}, number
    assert seen[0] == old
    assert seen[-1] == new


@pytest.mark.parametrize(("before", "change"), cases(CASES, slow=[name for name in CASES if name != "commit"]))
def test_a_second_crash_while_it_is_done_again(before: Image, change: Change) -> None:
    """M6: the repeated change starts from every state that the first crash can leave, and crashes, too."""
    storage = record(before, change)
    first = {frozenset(image.items()): image for _, image in possible_states(before, storage.events)}
    step = max(1, len(first) // FIRST_CRASHES)
    for image in list(first.values())[::step]:
        again = record(image, change)
        old, new = view(image), view(again.image)
        assert new[2] == view(storage.image)[2]
        for number, twice in crash_states(image, again.events):
            assert view(twice) in (old, new), number


@pytest.mark.slow
@pytest.mark.parametrize(("before", "change"), CASES.values(), ids=CASES)
def test_the_next_commit_mends_what_a_crash_left(before: Image, change: Change) -> None:
    """R1: after it the partition table agrees with the objects, and no copy of anything lags behind."""
    storage = record(before, change)
    for number, image in crash_states(before, storage.events):
        metadata, inspection, mended = look(image)
        if inspection.ownership is Ownership.OWNED:
            asyncio.run(metadata.fence(1))
            asyncio.run(metadata.commit((partition(50, 14, alu=metadata.label.alu),), 1))
            asyncio.run(metadata.commit((), 1))
            metadata, inspection, _ = look(mended.image)
            assert metadata.table.entries == (), number
            assert inspection.findings == (), number


async def fence(metadata: AluMetadata) -> None:
    await metadata.fence(5)


def test_a_crash_of_a_fence_leaves_the_older_epoch_or_the_newer() -> None:
    """M5, M6: and the objects as they are."""
    before = start(NEW)
    storage = record(before, fence)
    epochs = []
    for number, image in crash_states(before, storage.events):
        metadata, inspection, _ = look(image)
        assert metadata.objects == NEW, number
        assert {finding.problem for finding in inspection.findings} <= {Problem.UNFINISHED}
        epochs.append(metadata.epoch)
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 5}


async def renew(metadata: AluMetadata) -> None:
    await metadata.renew(metadata.epoch)


def test_a_crash_while_a_region_is_written_again_loses_nothing() -> None:
    """M3, M6: a repair of the region that is not live leaves the live one alone until the new one is whole."""
    before = flipped(start(OLD, NEW), region_that_is_not_live(start(OLD, NEW)) + 90)
    storage = record(before, renew)
    for number, image in crash_states(before, storage.events):
        assert view(image)[2] == NEW, number
        assert not problems(image) & {Problem.LOST, Problem.CONTRADICTION, Problem.MISSING}, number
    assert problems(before) == {Problem.DAMAGED}
    assert problems(storage.image) == set()


def region_that_is_not_live(image: Image) -> int:
    metadata, inspection, _ = look(image)
    assert inspection.state is not None
    return metadata.directory.regions[1 - inspection.state.live]


def some_objects(dice: random.Random) -> tuple[AnyObject, ...]:
    """Make what an ALU could hold: partitions beside each other, with and without bitmaps, and objects over them."""
    places = sorted(dice.sample(range(8, 15), dice.randint(0, 5)))
    parts = [partition(number, at) for number, at in enumerate(places, 1)]
    heads = [volume(20 + number, 1, generation=dice.randint(1, 9)) for number in range(dice.randint(0, 4))]
    return (*parts, *heads)


HISTORIES = 240


@pytest.mark.parametrize(
    "history", cases({str(n): n for n in range(HISTORIES)}, slow=[str(n) for n in range(4, HISTORIES)])
)
def test_many_commits_with_a_crash_in_each(history: int) -> None:
    """M2, M6: over a history, what is read is always the last finished commit or the one under way."""
    dice = random.Random(history)
    storage = RecordingStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    for step in range(6):
        base, before = dict(storage.image), metadata.objects
        storage.events.clear()
        if dice.random() < 0.2:
            asyncio.run(metadata.fence(step))
        asyncio.run(metadata.commit(some_objects(dice)))
        for number, image in crash_states(base, storage.events):
            assert view(image)[2] in (before, metadata.objects), number
            assert not problems(image) & {Problem.LOST, Problem.CONTRADICTION, Problem.MISSING}, number


@pytest.mark.parametrize("failing", range(14))
def test_a_commit_after_a_failed_one_survives_a_crash(failing: int) -> None:
    """A failed commit may have left anything of itself: the next one is old or new all the same."""
    before = start(OLD, OLD)
    metadata, _, storage = look(before)
    storage.fail_after = failing
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit(FAILED))
    tried = metadata.objects == FAILED  # it failed behind its commit point
    storage.fail_after = None
    asyncio.run(metadata.commit(NEW))
    for number, image in crash_states(before, storage.events):
        found = view(image)[2]
        assert found in (OLD, NEW, FAILED), number
        assert tried or failing >= HEADER_OF_A_COMMIT or found != FAILED, number
        assert Problem.LOST not in problems(image), number


def test_a_header_before_its_body_would_be_noticed() -> None:
    """These proofs can fail: the wrong order leaves a header that promises what is not there."""
    body, flush, header, _ = record(start(NEW), commit_less).events
    states = crash_states(start(NEW), [header, flush, body, flush])
    assert any(Problem.LOST in problems(image) for _, image in states)


def test_a_write_to_what_counts_would_be_noticed() -> None:
    """These proofs can fail: writing over the last change leaves a state that is neither old nor new."""
    metadata, inspection, storage = look(start(OLD, NEW))
    assert inspection.state
    assert inspection.state.end
    last = inspection.state.end - 2 * UNIT
    wrong = replace(inspection.state, end=last, objects=OLD, generation=inspection.state.generation - 1)
    change = region.commit(wrong, (volume(2, 3),), metadata.directory, metadata.label.data, 0, 0)
    asyncio.run(carry_out(storage, change.steps))
    views = {view(image) for _, image in crash_states(start(OLD, NEW), storage.events)}
    assert not views <= {view(start(OLD, NEW)), view(storage.image)}


def test_an_entry_behind_its_object_would_be_noticed() -> None:
    """These proofs can fail: an object that is committed before its entry is there is told as missing one."""
    before = start(OLD)
    storage = record(before, commit_new)
    table, log = storage.events[:5], storage.events[5:9]
    assert any(Problem.MISSING in problems(image) for _, image in crash_states(before, [*log, *table]))
