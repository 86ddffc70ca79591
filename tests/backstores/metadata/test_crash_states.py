"""Every crash, at every write, leaves the old state or the new one (M6).

Each test records what really is written, lets the disk lose or tear all that was not flushed, and
opens every state that comes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from backstores.metadata import region
from backstores.metadata.findings import Problem
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.store import AluMetadata, carry_out
from backstores.objects import AnyObject
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, clock, mirror, partition, volume
from tests.support.params import cases
from tests.support.recording import Image, RecordingStorage, StorageFailed, crash_states

OLD: tuple[AnyObject, ...] = (partition(1, 8),)
NEW: tuple[AnyObject, ...] = (partition(1, 8), volume(2, 3), mirror(3, [1, 4]), partition(4, 9, bitmap=10))
MANY: tuple[AnyObject, ...] = (*NEW, *(volume(number, 1) for number in range(10, 100)))  # a body of 40 sectors
FAILED: tuple[AnyObject, ...] = (partition(9, 12),)
OTHER = "another appliance"

FIRST_CRASHES = 40  # states, spread evenly, from which a change is begun again

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


def record(before: Image, change: Change) -> RecordingStorage:
    metadata, _, storage = look(before)
    asyncio.run(change(metadata))
    return storage


async def commit_new(metadata: AluMetadata) -> None:
    await metadata.commit(NEW)


async def commit_many(metadata: AluMetadata) -> None:
    await metadata.commit(MANY)


async def claim(metadata: AluMetadata) -> None:
    await metadata.format(SUSID, OTHER_ALU)


def foreign() -> Image:
    return start(OLD, susid=OTHER)


CASES = {
    "commit": (start(OLD), commit_new),
    "commit-to-the-other-copy": (start(OLD, OLD), commit_new),
    "commit-of-more": (start(OLD, OLD), commit_many),
    "commit-of-less": (start(MANY), commit_new),
    "claim-of-a-blank-alu": (start(), claim),
    "claim-of-a-foreign-alu": (foreign(), claim),
    "claim-of-an-own-alu": (start(OLD, OLD), claim),
}


@pytest.mark.parametrize(("before", "change"), CASES.values(), ids=CASES)
def test_a_crash_leaves_old_or_new(before: Image, change: Change) -> None:
    """M3, M6, R1: label and object region."""
    storage = record(before, change)
    old, new = view(before), view(storage.image)
    assert old != new
    seen = []
    for number, image in crash_states(before, storage.events):
        seen.append(view(image))
        assert seen[-1] in (old, new), number
        assert Problem.LOST not in problems(image), number
    assert seen[0] == old
    assert seen[-1] == new


@pytest.mark.parametrize(("before", "change"), cases(CASES, slow=["commit-of-more"]))
def test_a_second_crash_while_it_is_done_again(before: Image, change: Change) -> None:
    """M6: the repeated change starts from every state that the first crash can leave, and crashes, too."""
    storage = record(before, change)
    allowed = {view(image) for _, image in crash_states(before, storage.events)}
    new = view(storage.image)
    first = {frozenset(image.items()): image for _, image in crash_states(before, storage.events)}
    step = max(1, len(first) // FIRST_CRASHES)
    for image in list(first.values())[::step]:
        again = record(image, change)
        assert view(again.image) == new
        for number, twice in crash_states(image, again.events):
            assert view(twice) in allowed, number


@pytest.mark.parametrize("history", range(8))
def test_many_commits_with_a_crash_in_each(history: int) -> None:
    """M2: over a history, what is read is always the last finished commit or the one under way."""
    storage = RecordingStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    before: tuple[AnyObject, ...] = ()
    for step in range(4):
        base = dict(storage.image)
        storage.events.clear()
        after = tuple(partition(number, 7 + number) for number in range(1, 2 + (history * 5 + step * 3) % 7))
        asyncio.run(metadata.commit(after))
        for _, image in crash_states(base, storage.events):
            assert view(image)[2] in (before, after)
        before = after


@pytest.mark.parametrize("failing", range(4), ids=["body", "first-flush", "header", "last-flush"])
def test_a_commit_after_a_failed_one_survives_a_crash(failing: int) -> None:
    """A failed commit may have left anything of itself: the next one is old or new all the same."""
    before = start(OLD, OLD)
    metadata, _, storage = look(before)
    storage.fail_after = failing
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit(FAILED))
    storage.fail_after = None
    asyncio.run(metadata.commit(NEW))
    allowed = (OLD, NEW) if failing < 2 else (OLD, NEW, FAILED)  # its header may be on the disk
    for number, image in crash_states(before, storage.events):
        assert view(image)[2] in allowed, number


def test_a_header_before_its_body_would_be_noticed() -> None:
    """These proofs can fail: the wrong order leaves a header that promises what is not there."""
    body, flush, header, _ = record(start(OLD), commit_new).events
    states = crash_states(start(OLD), [header, flush, body, flush])
    assert any(Problem.LOST in problems(image) for _, image in states)


def test_a_write_to_the_live_copy_would_be_noticed() -> None:
    """These proofs can fail: overwriting the live copy leaves a state that is neither old nor new."""
    _, inspection, storage = look(start(OLD, NEW, OLD))
    assert inspection.label
    assert inspection.state
    wrong = replace(inspection.state, live=1 - inspection.state.live)
    steps, _ = region.commit(wrong, FAILED, inspection.label, 0)
    asyncio.run(carry_out(storage, steps))
    views = {view(image) for _, image in crash_states(start(OLD, NEW, OLD), storage.events)}
    assert not views <= {view(start(OLD, NEW, OLD)), view(storage.image)}
