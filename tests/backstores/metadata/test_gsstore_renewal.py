"""A set takes a new epoch while it is at work: copies made before are told, and nobody's ALUs are taken (R4, M5)."""

from __future__ import annotations

import asyncio

import pytest

from backstores.metadata.gsstore import BelowMajorityError, GsStore
from backstores.wwn import Wwn
from tests.support.gs import Disks, Images, alu, alus, copy_on, epoch_on, record, recorded, started


async def at_work(count: int = 3) -> tuple[Disks, GsStore]:
    """Start a set that holds change 1."""
    disks = Disks.blank(count)
    store = await started(disks, disks.images)
    await store.change(legacy=record(1))
    return disks, store


def epochs(disks: Disks) -> dict[Wwn, int]:
    return {name: epoch_on(content) for name, content in disks.images.items()}


def contents(disks: Disks) -> Images:
    return {name: dict(content) for name, content in disks.images.items()}


def test_all_alus_and_the_image_have_the_new_epoch() -> None:
    async def scenario() -> None:
        disks, store = await at_work()
        await store.renew()
        await store.change(legacy=record(2))
        assert store.image is not None
        assert (store.epoch, store.image.epoch) == (2, 2)
        assert {entry.epoch for entry in store.image.roster} == {2}
        assert epochs(disks) == dict.fromkeys(alus(3), 2)
        assert {copy_on(name, content).image for name, content in disks.images.items()} == {store.image}

    asyncio.run(scenario())


def test_a_copy_from_before_it_is_stale_after_a_crash() -> None:
    """R4: nothing else has changed since the copy was made that could tell it."""

    async def scenario() -> None:
        disks, store = await at_work()
        copy = contents(disks)[alu(0)]
        await store.renew()
        disks.images[alu(0)] = copy
        again = await started(disks, disks.images)
        assert again.held
        assert "epoch 1, while the appliance has fenced it with 2" in again.stale[alu(0)]

    asyncio.run(scenario())


def test_a_writer_that_was_superseded_renews_nothing() -> None:
    """M5: the epoch that it would take next is the one that the newer writer has."""

    async def scenario() -> None:
        disks, older = await at_work()
        newer = await started(disks, disks.images)
        before = contents(disks)
        for _ in range(3):
            with pytest.raises(BelowMajorityError, match="fenced by epoch 2"):
                await older.renew()
        with pytest.raises(BelowMajorityError):
            await older.tend()
        assert disks.images == before
        await newer.change(legacy=record(2))
        assert recorded(newer.image) == 2

    asyncio.run(scenario())


def test_an_alu_that_the_superseded_writer_never_fenced_is_not_taken_either() -> None:
    async def scenario() -> None:
        disks, older = await at_work()
        older.disks[alu(2)].fenced = None  # as after an error at the start
        await started(disks, disks.images)
        before = contents(disks)
        with pytest.raises(BelowMajorityError):
            await older.renew()
        assert disks.images == before

    asyncio.run(scenario())


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_what_fails_meanwhile_is_fenced_when_it_answers_again(failing: int) -> None:
    """M4: below a majority nothing is changed until then."""

    async def scenario() -> None:
        disks, store = await at_work()
        for name in alus(failing):
            disks.storages[name].failing = True
        if failing > 1:
            with pytest.raises(BelowMajorityError, match="input/output error"):
                await store.renew()
            with pytest.raises(BelowMajorityError):
                await store.change(legacy=record(2))
        else:
            await store.renew()
        for name in alus(failing):
            disks.storages[name].failing = False
        await store.tend()
        await store.change(legacy=record(3))
        assert epochs(disks) == dict.fromkeys(alus(3), 2)
        assert {recorded(image) for image in disks.found()} == {3}

    asyncio.run(scenario())
