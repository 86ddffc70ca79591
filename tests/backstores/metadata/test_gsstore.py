"""The GS set at work: formed, taken up, mended, and refused where too few members answer (R4, M4, M5)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from backstores.errors import UsageError
from backstores.metadata.gscopy import POINTERS
from backstores.metadata.gsformat import MOST_MEMBERS, LegacyRecord, RosterEntry, Usage
from backstores.metadata.gsquorum import REFORMED_EPOCHS
from backstores.metadata.gsstore import BelowMajorityError, GsStore
from backstores.metadata.layout import GS_RESERVED
from backstores.wwn import Wwn
from tests.support.gs import Disks, alu, alus, copy_on, epoch_on, record, recorded, started
from tests.support.metadata import clock


async def formed(count: int, on: Sequence[str] = ()) -> Disks:
    """Make disks that hold a set with change 1 on it."""
    disks = Disks.blank(count)
    disks.on = dict(zip(disks.images, on, strict=False))
    store = await started(disks, disks.images)
    await store.change(legacy=record(1))
    return disks


@pytest.mark.parametrize("count", range(9))
def test_a_set_has_six_members_where_there_are_six_alus(count: int) -> None:
    """R4: fewer otherwise; none without any ALU, and that is no error."""

    async def scenario() -> None:
        disks = Disks.blank(count)
        store = await started(disks, disks.images)
        await store.tend()
        assert store.held is (count > 0)
        assert len(disks.found()) == min(count, MOST_MEMBERS)
        if store.image is not None:
            assert set(store.image.members) == set(alus(count)[:MOST_MEMBERS])
            assert {entry.alu: entry.epoch for entry in store.image.roster} == dict.fromkeys(alus(count), 1)
        assert {epoch_on(content) for content in disks.images.values()} == ({1} if count else set())

    asyncio.run(scenario())


def test_members_lie_on_different_disks_where_there_are_enough() -> None:
    disks = asyncio.run(formed(8, on=["d0", "d0", "d0", "d1", "d2", "d3", "d4", "d5"]))
    [image, *_] = disks.found()
    assert set(image.members) == {alu(n) for n in (0, 3, 4, 5, 6, 7)}


@pytest.mark.parametrize("count", range(1, MOST_MEMBERS + 1))
def test_a_start_with_any_of_the_members(count: int) -> None:
    """M4: all subsets. With a majority it goes on, under an epoch of its own; below it nothing at all is written."""
    disks = asyncio.run(formed(count))
    before = {name: dict(content) for name, content in disks.images.items()}
    for size in range(1, count + 1):
        for present in itertools.combinations(disks.images, size):
            disks.images = {name: dict(content) for name, content in before.items()}
            asyncio.run(start_with(disks, present, 2 * size > count))
            untouched = disks.images.keys() - set(present) if 2 * size > count else disks.images.keys()
            assert all(disks.images[name] == before[name] for name in untouched)


async def start_with(disks: Disks, present: Sequence[Wwn], majority: bool) -> None:
    store = GsStore(clock())
    disks_there = [disks.disk(name) for name in present]
    if majority:
        await store.start(disks_there)
        assert store.epoch == 2
        await store.change(legacy=record(2))
        assert recorded(store.image) == 2
        return
    with pytest.raises(BelowMajorityError) as refusal:
        await store.start(disks_there)
    assert refusal.value.missing.keys() == disks.images.keys() - set(present)
    for missing in refusal.value.missing:
        assert f"alu '/disks/{missing}' (not attached)" in str(refusal.value)
    for refused in (store.tend, store.change):
        with pytest.raises(BelowMajorityError):
            await refused()


@pytest.mark.parametrize("count", range(2, MOST_MEMBERS + 1))
def test_members_that_fail_while_it_runs(count: int) -> None:
    """M4: any minority at once, and the set goes on without; one more, and it is read only until they answer again."""
    for size in range(1, count + 1):
        for gone in itertools.combinations(range(count), size):
            asyncio.run(fail(count, [alu(number) for number in gone], 2 * size < count))


async def fail(count: int, gone: Sequence[Wwn], goes_on: bool) -> None:
    disks = await formed(count)
    store = await started(disks, disks.images)
    for name in gone:
        disks.storages[name].failing = True
    if goes_on:
        await store.tend()
        await store.change(legacy=record(2))
        assert recorded(store.image) == 2
        await store.tend()
        return
    for refused in (store.tend, store.change, store.tend):
        with pytest.raises(BelowMajorityError, match="input/output error"):
            await refused()
    for name in gone:
        disks.storages[name].failing = False
    await store.tend()
    assert store.error is None
    await store.change(legacy=record(2))
    assert {copy_on(name, content).image for name, content in disks.images.items()} == {store.image}


@pytest.mark.parametrize("count", range(2, 9))
def test_one_member_after_the_other_fails(count: int) -> None:
    """R4: the set mends itself with what is there, so that it outlives more failures than it has spare members."""

    async def scenario() -> int:
        disks = await formed(count)
        store = await started(disks, disks.images)
        for lost, name in enumerate(list(disks.images)):
            disks.storages[name].failing = True
            try:
                await store.tend()
            except BelowMajorityError:
                return lost
        return count

    survived = asyncio.run(scenario())
    assert survived == {2: 0, 3: 1, 4: 2, 5: 2, 6: 3, 7: 4, 8: 5}[count]


def test_a_set_that_is_well_is_not_written() -> None:
    """A change of the configuration that concerns neither roster nor members costs a look at the members."""

    async def scenario() -> None:
        disks = await formed(6)
        store = await started(disks, disks.images)
        disks.record()
        for _ in range(5):
            await store.tend()
        assert disks.journal == []

    asyncio.run(scenario())


@pytest.mark.parametrize("behind", range(3))
def test_a_member_that_lost_a_write_is_written_again(behind: int) -> None:
    """R4: whether it answered with an error, or has forgotten what it said it had."""

    async def scenario() -> None:
        disks = await formed(3)
        store = await started(disks, disks.images)
        name = alu(behind)
        was = dict(disks.images[name])
        await store.change(legacy=record(2))
        disks.images[name].clear()
        disks.images[name].update(was)
        await store.tend()
        assert copy_on(name, disks.images[name]).image == store.image

    asyncio.run(scenario())


def test_an_alu_that_comes_late_is_taken_in() -> None:
    """R4, R30: a new one and one that was away; each is fenced, listed, and a member while there is room."""

    async def scenario() -> None:
        disks = await formed(3)
        disks.images[alu(3)] = {}
        store = await started(disks, alus(2))
        assert set(store.image.members if store.image else ()) == set(alus(3)), "one of three may return"
        for number in (2, 3):
            await store.admit(disks.disk(alu(number)))
        assert store.image is not None
        assert set(store.image.members) == set(alus(4))
        assert {entry.epoch for entry in store.image.roster} == {2}
        assert {epoch_on(content) for content in disks.images.values()} == {2}

    asyncio.run(scenario())


def test_a_set_below_its_majority_goes_on_when_a_member_returns() -> None:
    async def scenario() -> None:
        disks = await formed(3)
        store = GsStore(clock())
        with pytest.raises(BelowMajorityError):
            await store.start([disks.disk(alu(0))])
        disks.images[alu(7)] = {}
        with pytest.raises(BelowMajorityError):
            await store.admit(disks.disk(alu(7)))
        await store.admit(disks.disk(alu(2)))
        await store.tend()
        assert recorded(store.image) == 1
        assert store.epoch == 2

    asyncio.run(scenario())


def test_a_set_that_could_not_be_taken_up_is_tried_again() -> None:
    """A disk that did not answer at the start answers later; nobody has to attach it anew."""

    async def scenario() -> None:
        disks = await formed(3)
        opened = [disks.disk(name) for name in disks.images]
        for name in (alu(1), alu(2)):
            disks.storages[name].failing = True
        store = GsStore(clock())
        with pytest.raises(BelowMajorityError, match="input/output error"):
            await store.start(opened)
        with pytest.raises(BelowMajorityError, match="input/output error"):
            await store.tend()
        disks.storages[alu(1)].failing = False
        await store.tend()
        assert store.held
        await store.change(legacy=record(2))

    asyncio.run(scenario())


STALE = {"epoch": (1, None), "generation": (None, 1)}


@pytest.mark.parametrize("late", [False, True], ids=["at-the-start", "late"])
@pytest.mark.parametrize("how", STALE)
def test_an_older_copy_is_named_and_left_alone(how: str, late: bool) -> None:
    """R4: the copy of a disk made earlier comes back in its place. It must not win, nor be written."""

    async def scenario() -> None:
        disks = await formed(4)
        copied = dict(disks.images[alu(1)])
        disks.generations = dict.fromkeys(disks.images, 8)
        store = await started(disks, disks.images)  # fences with the next epoch
        await store.change([disk.entry for disk in store.disks.values()], legacy=record(5))
        if how == "epoch":
            disks.images[alu(1)] = dict(copied)
        else:
            disks.generations[alu(1)] = 7
        kept = dict(disks.images[alu(1)])
        store = await started(disks, [name for name in disks.images if not (late and name == alu(1))])
        if late:
            await store.admit(disks.disk(alu(1)))
        assert list(store.stale) == [alu(1)]
        assert "an older copy" in store.stale[alu(1)]
        assert recorded(store.image) == 5
        await store.tend()
        assert disks.images[alu(1)] == kept

    asyncio.run(scenario())


def test_an_alu_that_is_let_go_is_no_member_and_is_remembered() -> None:
    async def scenario() -> None:
        disks = await formed(4)
        store = await started(disks, disks.images)
        gone = RosterEntry(alu(1), "/disks/b", Usage.DETACHED, epoch=2, generation=5)
        await store.release(alu(1), gone)
        assert store.image is not None
        assert set(store.image.members) == {alu(0), alu(2), alu(3)}
        assert store.image.entry(alu(1)) == gone
        await store.tend()

    asyncio.run(scenario())


def test_the_last_alu_takes_the_set_with_it() -> None:
    """Then there is none, which forbids nothing; the ALU knows it still."""

    async def scenario() -> None:
        disks = await formed(1)
        store = await started(disks, disks.images)
        await store.release(alu(0), store.disks[alu(0)].entry)
        await store.tend()
        assert not store.held
        assert store.image is None
        await store.admit(disks.disk(alu(0)))
        assert recorded(store.image) == 1

    asyncio.run(scenario())


def test_a_person_may_form_the_set_anew() -> None:
    """M4: what the lost members may have seen, in any epoch, is outvoted when they return after all."""

    async def scenario() -> None:
        disks = await formed(3)
        store = await started(disks, disks.images)
        await store.change(legacy=record(2))
        store = GsStore(clock())
        with pytest.raises(BelowMajorityError):
            await store.start([disks.disk(alu(0))])
        await store.reform()
        assert store.image is not None
        assert store.image.members == (alu(0),)
        assert recorded(store.image) == 2
        await store.change(legacy=record(3))
        store = await started(disks, disks.images)
        assert recorded(store.image) == 3
        assert store.epoch > REFORMED_EPOCHS

    asyncio.run(scenario())


def test_an_older_writer_is_refused_on_the_alus_themselves() -> None:
    """M5: it learns so at its next change, and nothing of it counts."""

    async def scenario() -> None:
        disks = await formed(3)
        older = await started(disks, disks.images)
        newer = await started(disks, disks.images)
        await newer.change(legacy=record(2))
        with pytest.raises(BelowMajorityError, match="fenced by epoch 3"):
            await older.change(legacy=record(9))
        assert {recorded(image) for image in disks.found()} == {2}

    asyncio.run(scenario())


def test_what_does_not_fit_is_refused_before_anything_is_written() -> None:
    """R5: the reserved region has an end."""

    async def scenario() -> None:
        disks = await formed(3)
        store = await started(disks, disks.images)
        disks.record()
        with pytest.raises(UsageError, match=str(GS_RESERVED[0].length_bytes)):
            await store.change(legacy=(LegacyRecord(alu(9), bytes(GS_RESERVED[0].length_bytes)),))
        assert disks.journal == []

    asyncio.run(scenario())


def test_a_look_costs_one_read_a_member() -> None:
    """What every change of the configuration waits for."""

    async def scenario() -> None:
        disks = await formed(6)
        store = await started(disks, disks.images)
        for storage in disks.storages.values():
            storage.reads.clear()
        await store.tend()
        for storage in disks.storages.values():
            assert storage.reads == [(POINTERS.start_bytes, POINTERS.length_bytes)]

    asyncio.run(scenario())
