"""A follower at work, and what it leaves when it dies or is cut off (D4, D2, D1)."""

from __future__ import annotations

import asyncio

import pytest

from backstores.alu.base import AluOp
from backstores.block import BlockError, Offline, Op, Request, WriteFailed
from tests.support.following import BLOCKS, SECOND_STEP, Site, cancelled, pattern, read, run, turns, until, write
from tests.support.tiers import LONG
from tests.support.volumes import BLOCK_BYTES, DATA

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
