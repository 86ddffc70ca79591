"""A follower, and all that can go wrong between it, its lead and its legs (D4, D2, D3, D7)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from backstores.alu.base import AluOp
from backstores.block import BlockError, Busy, Offline, Op, ReadFailed, Request, WriteFailed
from backstores.device import BlockDevice, Submit
from backstores.engine.engine import Engine
from backstores.objects import LegState, MirrorObject
from backstores.scsi.lead import Wanted
from backstores.volume.follower import Follower
from backstores.volume.gate import HoldLimits
from backstores.volume.lead import Lead
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.tiers import LONG, DirectLead, Rrn, Tiers, in_sync
from tests.support.volumes import BLOCK_BYTES, DATA

BLOCKS = 8
SECOND_STEP = 2048  # blocks from here on are read from the second leg
AT_ONCE = HoldLimits(longest_s=0)


@dataclass
class Site:
    """A lead and a follower at work."""

    tiers: Tiers
    t1: Engine
    volume: Volume
    lead: Lead
    port: DirectLead
    rrns: dict[Wwn, Rrn]
    follower: Follower

    def rrn(self, leg: int) -> Rrn:
        """Give the follower's way to a leg."""
        return self.rrns[self.tiers.partitions[leg].wwn]

    def kill(self) -> None:
        """Have the follower's process die: nothing of it gets anywhere any more."""
        for rrn in self.rrns.values():
            rrn.cut = True
        self.port.lose()


@asynccontextmanager
async def site(limits: HoldLimits = LONG, seed: int = 0) -> AsyncIterator[Site]:
    tiers = Tiers(seed=seed, immediate=False)
    async with tiers.engine() as t1, Engine() as t2:
        volume, lead = await tiers.lead(t1)
        port = tiers.port(lead)
        rrns = {wwn: driver for wwn, driver in tiers.rrns(t1).items() if isinstance(driver, Rrn)}
        follower = tiers.follower(t2, rrns, port, limits)
        await write(follower, 1)
        yield Site(tiers, t1, volume, lead, port, rrns, follower)
        for rrn in rrns.values():
            rrn.cut = False


def run(scenario: Callable[[Site], Awaitable[None]], limits: HoldLimits = LONG) -> None:
    async def within() -> None:
        async with site(limits) as here:
            await asyncio.wait_for(scenario(here), 20)

    asyncio.run(within())


def pattern(seed: int) -> memoryview:
    return memoryview(random.Random(seed).randbytes(BLOCKS * BLOCK_BYTES))


async def write(device: Submit, seed: int, lba: int = 0) -> None:
    await device.submit(Request(Op.WRITE, lba, BLOCKS, pattern(seed)))


async def read(device: Submit, lba: int = 0) -> bytes:
    data = bytearray(BLOCKS * BLOCK_BYTES)
    await device.submit(Request(Op.READ, lba, BLOCKS, memoryview(data)))
    return bytes(data)


async def turns(count: int = 100) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# What it does when nothing is wrong


def test_the_dirty_bit_is_durable_on_all_legs_before_it_writes_any() -> None:
    """D2: in the order in which operations arrive at each ALU, though another storage processor marks."""

    async def scenario(here: Site) -> None:
        for alu in here.tiers.alus.values():
            alu.log.clear()
        await write(here.follower, 2, lba=1024)
        for alu in here.tiers.alus.values():
            bitmap, data = alu.seen(AluOp.WRITE)
            assert bitmap.offset < DATA <= data.offset
            assert bitmap.durable

    run(scenario)


def test_a_region_it_writes_to_is_not_cleared_meanwhile() -> None:
    async def scenario(here: Site) -> None:
        gate = next(iter(here.tiers.alus.values())).hold(AluOp.WRITE)
        task = asyncio.create_task(write(here.follower, 2))
        await gate.reached.wait()
        [log] = here.tiers.logs.values()
        for _ in range(4):
            await here.volume.clean()
        assert log.hot.states[0]
        gate.open()
        await task
        await here.follower.hold_all(LONG)
        await turns()
        for _ in range(4):
            await here.volume.clean()
        assert not log.hot.states[0], "it has given the range back"

    run(scenario)


def test_it_reads_the_first_leg_until_it_is_told_that_all_are_equal() -> None:
    """D2: the lead copies from there."""

    async def scenario(here: Site) -> None:
        second = list(here.tiers.alus.values())[1]
        second.log.clear()
        await read(here.follower, SECOND_STEP)
        assert not second.seen(AluOp.READ)
        await here.follower.hold_all(LONG)
        here.follower.legs_equal()
        here.follower.resume()
        await read(here.follower, SECOND_STEP)
        assert second.seen(AluOp.READ)
        here.follower.resume(lead=here.tiers.port(here.lead))
        second.log.clear()
        await read(here.follower, SECOND_STEP)
        assert not second.seen(AluOp.READ), "another lead has yet to say so"

    run(scenario)


def test_ranges_are_given_back_together() -> None:
    """A HOLD carries what was written before; nothing is said twice."""

    async def scenario(here: Site) -> None:
        before = here.port.calls
        for number in range(10):
            await write(here.follower, number, lba=number * BLOCKS)
        assert here.port.calls - before <= 22, "two passages for each HOLD, and few more"
        await here.follower.hold_all(LONG)
        async with here.volume.hold(0, 10 * BLOCKS):
            pass

    run(scenario)


def test_its_own_writers_of_one_range_take_turns() -> None:
    async def scenario(here: Site) -> None:
        await asyncio.gather(*(write(here.follower, seed, lba=seed % 3) for seed in range(12)))
        assert here.tiers.equal

    run(scenario)


def test_a_request_past_the_end_or_for_nothing_asks_nobody() -> None:
    async def scenario(here: Site) -> None:
        before = here.port.calls
        await here.follower.submit(Request(Op.DISCARD, 5, 0))
        with pytest.raises(BlockError):
            await write(here.follower, 1, here.follower.blocks)
        assert here.port.calls == before

    run(scenario)


@pytest.mark.parametrize("op", [Op.DISCARD, Op.ZERO], ids=lambda op: op.value)
def test_zeros_reach_all_legs(op: Op) -> None:
    async def scenario(here: Site) -> None:
        await here.follower.submit(Request(op, 0, BLOCKS, fua=True))
        assert here.tiers.equal
        assert await read(here.volume) == bytes(BLOCKS * BLOCK_BYTES)

    run(scenario)


def test_a_flush_reaches_all_legs_and_hears_of_losses() -> None:
    """D1: though the lead has flushed before, and was told of it."""

    async def scenario(here: Site) -> None:
        await here.follower.submit(Request(Op.FLUSH, 0, 0))
        assert all(alu.seen(AluOp.FLUSH) for alu in here.tiers.alus.values())
        for alu in here.tiers.alus.values():
            alu.fail(AluOp.FLUSH, times=1)
        for device in (here.volume, here.follower):
            with pytest.raises(WriteFailed):
                await device.submit(Request(Op.FLUSH, 0, 0))

    run(scenario)


def test_it_stops_when_what_it_has_is_given_back() -> None:
    async def scenario(here: Site) -> None:
        await write(here.follower, 2)
        await here.follower.close()
        with pytest.raises(Offline):
            await read(here.follower)
        async with here.volume.hold(0, here.volume.blocks):
            await here.follower.close()

    run(scenario)


# It dies, or is cut off


@pytest.mark.parametrize("reached", [0, 1], ids=["first leg", "second leg"])
def test_killed_between_the_legs_it_leaves_them_equal(reached: int) -> None:
    """D2: and nobody gets the range before, or as long as anything of it may still arrive."""

    async def scenario(here: Site) -> None:
        here.rrn(1 - reached).cut = True
        task = asyncio.create_task(write(here.follower, 2))
        await until(lambda: here.tiers.data(reached)[: len(pattern(2))] == pattern(2))
        here.kill()
        await cancelled(task)
        other = asyncio.create_task(write(here.volume, 3, lba=4))
        await turns()
        assert here.tiers.fences == ["sp2"]
        assert not other.done()
        assert not here.tiers.equal
        here.tiers.fenced.set()
        await other
        assert here.tiers.equal
        assert (await read(here.volume))[4 * BLOCK_BYTES :] == pattern(3)[: 4 * BLOCK_BYTES]

    run(scenario)


def test_what_it_waited_for_when_it_died_is_nobodys() -> None:
    """A HOLD that was not granted has written nothing: others don't wait for a fence."""

    async def scenario(here: Site) -> None:
        await here.follower.hold_all(LONG)
        here.follower.resume()
        async with here.volume.hold(0, BLOCKS):
            task = asyncio.create_task(write(here.follower, 2))
            await turns()
            here.port.lose()
            await cancelled(task)
        await write(here.volume, 3)
        assert not here.tiers.fences

    run(scenario)


def test_cut_off_from_its_lead_it_says_by_another_session_how_it_ended() -> None:
    """Its legs were never out of reach, so what it had under way is settled, and nothing has to be mended."""

    async def scenario(here: Site) -> None:
        gate = next(iter(here.tiers.alus.values())).hold(AluOp.WRITE)
        task = asyncio.create_task(write(here.follower, 2))
        await gate.reached.wait()
        here.port.lose()
        other = asyncio.create_task(write(here.volume, 3))
        await turns()
        assert not other.done(), "the range is the follower's as long as it may write there"
        gate.open()
        await task
        assert not other.done()
        here.follower.resume(lead=here.tiers.port(here.lead))
        await other
        assert await read(here.volume) == pattern(3)
        assert here.tiers.equal

    run(scenario)


def test_a_range_whose_grant_was_never_heard_of_is_given_back() -> None:
    """The session ended while the answer was on its way: without that the range would wait for a fence."""

    async def scenario(here: Site) -> None:
        here.tiers.most_turns = 50
        before = here.port.calls
        task = asyncio.create_task(write(here.follower, 2))
        await until(lambda: here.port.calls == before + 2)
        here.port.lose()
        await until(lambda: here.tiers.leads_lost == 1)
        assert here.tiers.fences == ["sp2"]
        here.follower.resume(lead=here.tiers.port(here.lead))
        await task
        await write(here.volume, 3)
        assert here.tiers.equal

    run(scenario)


def test_a_write_that_was_cancelled_is_mended_by_the_lead() -> None:
    async def scenario(here: Site) -> None:
        here.rrn(1).turns = lambda: 1000
        task = asyncio.create_task(write(here.follower, 2))
        await until(lambda: here.tiers.data(0)[: len(pattern(2))] == pattern(2))
        await cancelled(task)
        assert not here.tiers.equal, "it was not sent to the second leg yet"
        await write(here.volume, 3, lba=4)
        assert here.tiers.equal

    run(scenario)


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
