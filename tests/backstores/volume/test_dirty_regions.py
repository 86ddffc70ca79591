"""Dirty regions (D2): durable before any leg is written, and copied after an unclean stop."""

from __future__ import annotations

import asyncio
import random

from backstores.alu.base import AluOp
from backstores.block import Op, Request
from tests.backstores.volume.test_volume import pattern, read, write
from tests.support.volumes import DATA, Machine, stripe_over_mirrors

REGION_BLOCKS = 512


def test_the_dirty_bit_is_durable_on_both_legs_before_either_is_written() -> None:
    """D2: in the order in which operations arrive at each ALU."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            for leg in (0, 1):
                machine.leg(0, leg).log.clear()
            gate = machine.leg(0, 1).hold(AluOp.WRITE)
            task = asyncio.create_task(write(volume, 0, pattern(1, 8)))
            await gate.reached.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            for leg in (0, 1):
                [bitmap] = machine.leg(0, leg).seen(AluOp.WRITE)
                assert bitmap.durable
                assert bitmap.offset < DATA, "no leg may be written while a bit is on its way"
            gate.open()
            await task
            assert machine.leg(0, 0).seen(AluOp.WRITE)[-1].offset == DATA

    asyncio.run(scenario())


def test_the_hot_path_waits_for_the_bit_of_a_clean_region() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            data = memoryview(pattern(1, 8))
            assert not volume.write_now(0, 8, data)
            await write(volume, 0, bytes(data))
            assert volume.write_now(0, 8, data), "the region is dirty now"
            assert not volume.write_now(2 * REGION_BLOCKS, 8, data), "another one is not"

    asyncio.run(scenario())


def test_after_a_crash_in_mid_write_reads_never_differ_and_the_legs_become_equal() -> None:
    """D2: each leg keeps its own random choice of what no flush covered."""

    async def scenario(seed: int) -> None:
        machine = Machine()
        chance = random.Random(seed)
        async with machine.volume() as volume:
            await write(volume, 0, pattern(seed, 2048))
            await volume.submit(Request(Op.FLUSH, 0, 0))
            for _ in range(20):
                await write(volume, chance.randrange(2000), pattern(chance.randrange(99), 8))
        for alu in machine.alus.values():
            if chance.randrange(2):
                alu.crash()
        async with machine.volume(fresh=False) as volume:
            assert volume.pin_reads()
            before = await read(volume, 0, 4096)
            done: list[float] = []
            await volume.resynchronize(done.append)
            assert done[-1] == 1.0
            assert await read(volume, 0, 4096) == before
            for mirror in (0, 1):
                assert machine.data(mirror, 0) == machine.data(mirror, 1)

    for seed in range(10):
        asyncio.run(scenario(seed))


def test_a_clean_stop_leaves_nothing_to_copy() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
            await volume.close()
        async with machine.volume(fresh=False) as volume:
            assert not volume.pin_reads()

    asyncio.run(scenario())


def test_idle_regions_become_clean_and_busy_ones_do_not() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
            await write(volume, 2 * REGION_BLOCKS, pattern(1, 8))
            for _ in range(3):
                assert volume.write_now(0, 8, memoryview(pattern(2, 8)))
                await volume.clean()
            assert volume.write_now(0, 8, memoryview(pattern(3, 8))), "written to all the time"
            assert not volume.write_now(2 * REGION_BLOCKS, 8, memoryview(pattern(3, 8))), "clean again"

    asyncio.run(scenario())


def test_regions_stay_dirty_while_a_leg_is_missing() -> None:
    """R29: what the missing leg has not got is known when it returns."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            machine.leg(0, 1).fail(AluOp.WRITE, offset=DATA)
            await write(volume, 0, pattern(1, 8))
            for _ in range(4):
                await volume.clean()
            await volume.close()
        machine.leg(0, 1).mend()
        async with machine.volume(fresh=False) as volume:
            assert not volume.pin_reads(), "one leg in sync has nothing to be copied from or to"
            assert [log.dirty_at_open for log in machine.logs.values()] == [(0,), ()]

    asyncio.run(scenario())


def test_a_batch_ends_when_every_leg_has_ended_though_one_has_failed() -> None:
    """D2: the next batch must not be overtaken on a leg by this one, which says less."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            machine.leg(0, 0).fail(AluOp.WRITE)
            gate = machine.leg(0, 1).hold(AluOp.WRITE)
            machine.leg(0, 1).log.clear()
            task = asyncio.create_task(write(volume, 0, pattern(1, 8)))
            await gate.reached.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(machine.leg(0, 1).seen(AluOp.WRITE)) == 1, "a second batch is on its way beside the first"
            gate.open()
            await task

    asyncio.run(scenario())


def test_when_the_leg_that_is_read_fails_before_all_is_copied_another_one_is_read() -> None:
    """D2: of three legs, the two that are left may differ still."""

    async def scenario() -> None:
        machine = Machine(objects=stripe_over_mirrors(width=1, legs=3), immediate=False)
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
        for leg in (1, 2):
            machine.leg(0, leg, legs=3).content[DATA : DATA + 4096] = pattern(leg + 1, 8)
        async with machine.volume(fresh=False) as volume:
            assert volume.pin_reads()
            machine.leg(0, 0, legs=3).fail(AluOp.READ, offset=DATA)
            assert await read(volume, 0, 8) == pattern(2, 8)
            for lba in range(0, 4096, 128):
                await read(volume, lba, 8)
            assert not any(seen.offset >= DATA for seen in machine.leg(0, 2, legs=3).seen(AluOp.READ))
            await volume.resynchronize()
            assert await read(volume, 0, 8) == pattern(2, 8)
            assert machine.leg(0, 2, legs=3).content[DATA : DATA + 4096] == pattern(2, 8)

    asyncio.run(scenario())


def test_a_leg_that_fails_at_the_last_flush_does_not_open_the_hot_path_again() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
            machine.leg(0, 0).fail(AluOp.FLUSH)
            await volume.close()
            assert not volume.read_now(0, 8, memoryview(bytearray(4096)))
            assert not volume.write_now(0, 8, memoryview(pattern(2, 8)))

    asyncio.run(scenario())


def test_bitmaps_are_made_alike_before_the_first_request() -> None:
    """D2: what only one leg's bitmap says must not be lost with that leg."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            machine.leg(0, 1).fail(AluOp.WRITE, offset=0, length=DATA, times=1)
            await write(volume, 0, pattern(1, 8))
            assert machine.leg_states[1] is not machine.leg_states[0]
        async with machine.volume(fresh=False) as volume:
            for alu in machine.alus.values():
                alu.log.clear()
            await volume.publish_logs()
            assert [len(machine.leg(1, leg).seen(AluOp.WRITE)) for leg in (0, 1)] == [1, 1]
            assert not machine.leg(0, 1).seen(AluOp.WRITE), "a failed leg is left alone"

    asyncio.run(scenario())
