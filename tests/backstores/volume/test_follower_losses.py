"""A follower whose lead is lost, or a leg, or power (D4, D2, D3, D7)."""

from __future__ import annotations

import asyncio

import pytest

from backstores.alu.base import AluOp
from backstores.block import BlockError, Busy, Offline, ReadFailed, WriteFailed
from backstores.device import BlockDevice
from backstores.objects import LegState, MirrorObject
from backstores.scsi.lead import Wanted
from backstores.volume.follower import Follower
from backstores.volume.volume import Volume
from tests.support.following import AT_ONCE, BLOCKS, Site, cancelled, pattern, read, run, site, turns, until, write
from tests.support.tiers import LONG, Tiers, in_sync
from tests.support.volumes import BLOCK_BYTES, DATA

# The lead is lost


def test_without_a_lead_it_reads_and_its_writes_wait() -> None:
    async def scenario(here: Site) -> None:
        here.port.lose()
        tasks = [asyncio.create_task(write(here.follower, seed)) for seed in (2, 3)]
        await turns()
        assert here.tiers.leads_lost == 1, "it is told once"
        assert await read(here.follower) == pattern(1)
        assert not any(task.done() for task in tasks)
        here.tiers.fenced.set()
        here.follower.resume(lead=here.tiers.port(here.lead))
        await asyncio.gather(*tasks)
        assert here.tiers.equal
        assert await read(here.volume) in (pattern(2), pattern(3))

    run(scenario)


def test_without_a_lead_for_too_long_it_is_busy() -> None:
    """D7."""

    async def scenario(here: Site) -> None:
        here.port.lose()
        for seed in (2, 3):
            with pytest.raises(Busy):
                await write(here.follower, seed)
        assert await read(here.follower) == pattern(1)

    run(scenario, AT_ONCE)


def test_another_lead_copies_what_the_first_has_left() -> None:
    """D2: the lead dies with ranges granted; the follower is held before another one looks at the legs."""

    async def scenario(here: Site) -> None:
        gate = list(here.tiers.alus.values())[1].hold(AluOp.WRITE)
        task = asyncio.create_task(write(here.follower, 2))
        await gate.reached.wait()
        here.port.lose()
        hold = asyncio.create_task(here.follower.hold_all(LONG))
        await turns()
        assert not hold.done(), "its write is on the way"
        gate.open()
        await hold
        here.volume.abandon()
        await here.lead.close()
        volume, lead = await here.tiers.lead(here.t1, fresh=False)
        assert volume.pin_reads()
        await volume.resynchronize()
        here.follower.resume(lead=here.tiers.port(lead))
        await task
        await write(here.follower, 3)
        assert await read(volume) == pattern(3)
        assert here.tiers.equal

    run(scenario)


def test_a_range_of_another_lead_is_borrowed_anew() -> None:
    """The first lead may have given it to somebody else by now."""

    async def scenario(here: Site) -> None:
        await here.follower.hold_all(LONG)
        gate = asyncio.create_task(write(here.follower, 2))
        await turns()  # its range is granted; it waits for the volume to be resumed
        port = here.tiers.port(here.lead)
        here.port.lose()
        here.tiers.fenced.set()
        here.follower.resume(lead=port)
        await gate
        assert port.calls
        assert here.tiers.equal

    run(scenario)


@pytest.mark.parametrize(("part", "failure"), [(False, Busy), (True, WriteFailed)], ids=["not begun", "in part"])
def test_a_compare_and_write_does_not_outlive_its_lead(part: bool, failure: type[BlockError]) -> None:
    """Between the comparison and the write somebody else may have been let in."""

    async def scenario(here: Site) -> None:
        async with here.follower.hold(0, BLOCKS) as held:
            await read(held)
            if part:
                next(iter(here.tiers.alus.values())).fail(AluOp.WRITE, offset=DATA)
                task = asyncio.create_task(write(held, 2))
                await until(lambda: bool(here.tiers.lost))
            here.port.lose()
            here.follower.resume(lead=here.tiers.port(here.lead))
            with pytest.raises(failure) as caught:
                await (task if part else write(held, 2))
            assert caught.value.lba == 0

    run(scenario)


# A leg is lost


async def go_on_without(here: Site, leg: int) -> None:
    """Do what the system does: hold all, commit the tree, resume all."""
    await here.follower.hold_all(LONG)
    await here.volume.hold_all(LONG)
    here.tiers.without(here.tiers.lost[0])
    here.volume.resume(tree_of(here.volume, here.tiers))
    here.follower.resume(tree_of(here.follower, here.tiers))
    assert in_sync(here.follower.objects) == [tuple(number != leg for number in range(2))]


def tree_of(instance: Volume | Follower, tiers: Tiers) -> list[object]:
    """Give the committed tree as an instance sees it."""
    newer = {item.wwn: item for item in tiers.objects if isinstance(item, MirrorObject)}
    return [newer.get(item.wwn, item) for item in instance.objects]


def test_a_leg_that_fails_is_told_once_and_the_write_waits_for_the_tree_without_it() -> None:
    """D3: it is acknowledged when the survivors say durably that the leg is gone."""

    async def scenario(here: Site) -> None:
        second = list(here.tiers.alus.values())[1]
        second.fail(AluOp.WRITE, offset=DATA)
        tasks = [asyncio.create_task(write(here.follower, seed, lba=seed * 16)) for seed in range(3)]
        await until(lambda: bool(here.tiers.lost))
        reading = asyncio.create_task(read(here.follower))
        await turns()
        assert len(here.tiers.lost) == 1
        assert not any(task.done() for task in (*tasks, reading)), "it holds itself"
        await go_on_without(here, leg=1)
        await asyncio.gather(*tasks, reading)
        assert await read(here.volume, 32) == pattern(2)
        assert len(here.tiers.lost) == 1

    run(scenario)


def test_a_leg_that_only_the_lead_can_reach_is_told_again_if_the_tree_stays() -> None:
    async def scenario(here: Site) -> None:
        fault = list(here.tiers.alus.values())[1].fail(AluOp.WRITE, offset=DATA)
        task = asyncio.create_task(write(here.follower, 2))
        for count in (1, 2):
            await until(lambda count=count: len(here.tiers.lost) == count)  # type: ignore[misc]
            await here.follower.hold_all(LONG)
            if count == 2:
                list(here.tiers.alus.values())[1].mend(fault)
            here.follower.resume()
        await task
        assert here.tiers.equal

    run(scenario)


def test_a_leg_that_nobody_can_spare_is_the_hosts_error() -> None:
    """What it left different is mended: two reads never differ (D2)."""

    async def scenario(here: Site) -> None:
        await here.follower.hold_all(LONG)
        await here.volume.hold_all(LONG)
        [mirror] = here.tiers.mirrors
        here.tiers.without({mirror.wwn: {mirror.legs[1].child}})
        here.volume.resume(tree_of(here.volume, here.tiers))
        here.follower.resume(tree_of(here.follower, here.tiers))
        first = next(iter(here.tiers.alus.values()))
        first.fail(AluOp.WRITE, offset=DATA, times=1)
        with pytest.raises(WriteFailed):
            await write(here.follower, 2)
        first.fail(AluOp.READ, times=1)
        with pytest.raises(ReadFailed):
            await read(here.follower)
        assert not here.tiers.lost

    run(scenario)


def test_held_for_too_long_after_a_leg_was_lost_it_is_busy_and_its_range_is_mended() -> None:
    """D7, D2."""

    async def scenario(here: Site) -> None:
        list(here.tiers.alus.values())[1].fail(AluOp.WRITE, offset=DATA, times=1)
        with pytest.raises(Busy):
            await write(here.follower, 2)
        await write(here.volume, 3, lba=4)  # has waited for that
        assert here.tiers.equal

    run(scenario, AT_ONCE)


def test_a_leg_that_fails_at_its_end_does_not_keep_it() -> None:
    async def scenario(here: Site) -> None:
        list(here.tiers.alus.values())[1].fail(AluOp.FLUSH, times=1)
        with pytest.raises(WriteFailed):
            await here.follower.close()
        with pytest.raises(Offline):
            await read(here.follower)

    run(scenario)


def test_a_reader_and_a_writer_on_both_sides_of_a_loss_agree() -> None:
    """The lead loses a leg at the same time: the system makes one tree of it."""

    async def scenario(here: Site) -> None:
        second = list(here.tiers.alus.values())[1]
        second.fail(AluOp.WRITE, offset=DATA)
        asked = asyncio.Event()
        go_on = asyncio.Event()

        async def persist(changed: object) -> None:
            asked.set()
            await go_on.wait()

        here.volume._persist = persist
        tasks = [asyncio.create_task(write(device, 2, lba)) for device, lba in ((here.volume, 0), (here.follower, 64))]
        await asked.wait()
        await until(lambda: bool(here.tiers.lost))
        await go_on_without(here, leg=1)
        go_on.set()
        await asyncio.gather(*tasks)
        assert in_sync(here.volume.objects) == [(True, False)]
        assert {leg.state for leg in here.tiers.mirrors[0].legs} == {LegState.IN_SYNC, LegState.FAILED}
        for lba in (0, 64):
            assert await read(here.volume, lba) == await read(here.follower, lba) == pattern(2)

    run(scenario)


# Everything, power included


@pytest.mark.parametrize("seed", range(30))
def test_power_fails_while_two_write(seed: int) -> None:
    """D2: legs differ only where a bitmap says so, whichever sectors have survived; then they are made equal."""

    async def scenario() -> Tiers:
        async with site(seed=seed) as here:
            chance = here.tiers.chance
            devices: tuple[BlockDevice, ...] = (here.volume, here.follower)
            tasks = [
                asyncio.create_task(write(chance.choice(devices), n, lba=chance.randrange(0, 4000, 3)))
                for n in range(40)
            ]
            await turns(chance.randrange(600))
            for alu in here.tiers.alus.values():
                share = chance.choice((0.0, 0.5, 1.0))
                alu.crash(lambda sector, share=share: chance.random() < share)  # type: ignore[misc]
            images = [(alu, bytes(alu.content)) for alu in here.tiers.alus.values()]
            for task in tasks:
                await cancelled(task)
        for alu, image in images:
            alu.content[:] = image
            alu.crash(lambda sector: True)
        return here.tiers

    async def restarted(tiers: Tiers) -> None:
        async with tiers.engine() as t1:
            volume, _ = await tiers.lead(t1, fresh=False)
            [log] = tiers.logs.values()
            size = log.geometry.region_blocks * BLOCK_BYTES
            for region in set(range(log.geometry.regions)) - set(log.dirty_at_open):
                part = slice(region * size, (region + 1) * size)
                assert tiers.data(0)[part] == tiers.data(1)[part], f"region {region} is clean, and differs"
            if volume.pin_reads():
                await volume.resynchronize()
            assert tiers.equal

    tiers = asyncio.run(scenario())
    asyncio.run(restarted(tiers))


def test_a_lead_that_ends_leaves_its_ranges_in_doubt() -> None:
    """What a follower held, and nobody has heard the end of, is made equal before the volume is clean (D2)."""

    async def scenario(here: Site) -> None:
        await here.port.hold(Wanted(7, 64, 8), [])
        here.tiers.alus[here.tiers.partitions[0].alu].content[DATA + 64 * BLOCK_BYTES] ^= 1  # its write, on one leg
        await here.lead.close()
        with pytest.raises(Offline):
            await here.lead.hold("sp3", "n", Wanted(1, 0, 8))
        assert not here.tiers.equal
        await here.volume.close()
        assert here.tiers.equal
        assert not any(any(log.hot.states) for log in here.tiers.logs.values())

    run(scenario)
