"""A volume that is held: what is at work ends, what comes waits, a leg may be lost meanwhile (D7, D3)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from backstores.alu.base import AluOp
from backstores.block import BlockError, Busy, Offline, Op, Request, WriteFailed
from backstores.errors import UsageError
from backstores.objects import AnyObject, LegState, MirrorObject
from backstores.volume.gate import HoldLimits
from backstores.volume.volume import Volume
from tests.support.volumes import BLOCK_BYTES, DATA, Machine

LONG = HoldLimits(longest_s=3600)
AT_ONCE = HoldLimits(longest_s=0)
IN_SYNC, FAILED = LegState.IN_SYNC, LegState.FAILED


def pattern(seed: int, blocks: int = 8) -> memoryview:
    return memoryview(random.Random(seed).randbytes(blocks * BLOCK_BYTES))


async def write(volume: Volume, seed: int, lba: int = 0) -> None:
    await volume.submit(Request(Op.WRITE, lba, 8, pattern(seed)))


async def read(volume: Volume, lba: int = 0) -> bytes:
    data = bytearray(8 * BLOCK_BYTES)
    await volume.submit(Request(Op.READ, lba, 8, memoryview(data)))
    return bytes(data)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class System(Machine):
    """What records a lost leg is the system: it holds the volume, commits the tree, and resumes with that."""

    volume_held: Volume | None = None

    async def persist(self, changed: Sequence[AnyObject]) -> None:
        assert self.volume_held is not None
        await self.volume_held.hold_all(LONG)
        await super().persist(changed)
        await turns()
        self.volume_held.resume(self.objects)


def with_volume(
    scenario: Callable[[Machine, Volume], Awaitable[None]], kind: type[Machine] = Machine, immediate: bool = False
) -> None:
    async def run() -> None:
        machine = kind(immediate=immediate)
        async with machine.volume() as volume:
            if isinstance(machine, System):
                machine.volume_held = volume
            await write(volume, 1)
            await scenario(machine, volume)

    asyncio.run(run())


def test_the_hot_path_is_off_while_it_is_held() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        assert volume.read_now(0, 8, memoryview(bytearray(8 * BLOCK_BYTES)))
        assert volume.write_now(0, 8, pattern(2))
        await volume.hold_all(LONG)
        assert not volume.read_now(0, 8, memoryview(bytearray(8 * BLOCK_BYTES)))
        assert not volume.write_now(0, 8, pattern(3))
        assert volume.held_for_s > 0
        volume.resume()
        assert volume.write_now(0, 8, pattern(3))

    with_volume(scenario, immediate=True)


def test_a_write_at_work_ends_and_those_that_come_wait() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        gate = machine.leg(0, 1).hold(AluOp.WRITE)
        first = asyncio.create_task(write(volume, 2))
        await gate.reached.wait()
        hold = asyncio.create_task(volume.hold_all(LONG))
        later = [asyncio.create_task(write(volume, 3)), asyncio.create_task(read(volume, 64))]
        await turns()
        assert not hold.done()
        gate.open()
        await hold
        assert first.done(), "it was at work, and has ended"
        seen = len(machine.leg(0, 0).log)
        await turns()
        assert len(machine.leg(0, 0).log) == seen
        volume.resume()
        await asyncio.gather(*later)
        assert await read(volume) == pattern(3)

    with_volume(scenario)


def test_who_waits_for_a_range_is_not_waited_for() -> None:
    """A writer behind one that can't go on until the volume is resumed must not keep it from being held."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.hold_all(LONG)
        writers = [asyncio.create_task(write(volume, seed)) for seed in (2, 3)]
        await turns()
        volume.resume()
        gate = machine.leg(0, 1).hold(AluOp.WRITE)
        await gate.reached.wait()
        hold = asyncio.create_task(volume.hold_all(LONG))
        await turns()
        gate.open()
        await hold
        assert [task.done() for task in writers] == [True, False]
        volume.resume()
        await asyncio.gather(*writers)
        assert await read(volume) == pattern(3)

    with_volume(scenario)


def test_a_leg_is_lost_and_the_system_holds_the_volume_to_record_it() -> None:
    """D3: the write waits for that, and is not waited for; it is acknowledged by the survivor alone."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        machine.leg(0, 1).fail(AluOp.WRITE, offset=DATA)
        await asyncio.wait_for(asyncio.gather(*(write(volume, seed, lba) for seed, lba in ((2, 0), (3, 4), (4, 8)))), 5)
        assert machine.leg_states[:2] == [IN_SYNC, FAILED]
        assert await read(volume, 8) == pattern(4)
        [first, _] = (obj for obj in volume.objects if isinstance(obj, MirrorObject))
        assert first.generation == 2, "it was given up once"

    with_volume(scenario, System)


def test_what_took_too_long_is_busy_and_its_range_is_mended() -> None:
    """D2: a write that had begun, and could not go on, leaves its range in doubt."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        held = asyncio.Event()

        async def persist(changed: Sequence[AnyObject]) -> None:
            await volume.hold_all(AT_ONCE)
            await turns()
            held.set()
            raise UsageError("the leg is well again")

        volume._persist = persist
        machine.leg(0, 1).fail(AluOp.WRITE, offset=DATA, times=1)
        with pytest.raises(BlockError):
            await write(volume, 2)
        assert machine.data(0, 0) != machine.data(0, 1)
        await held.wait()
        volume.resume()
        await volume.clean()
        assert machine.data(0, 0) == machine.data(0, 1)

    with_volume(scenario)


@pytest.mark.parametrize(("part", "failure"), [(False, Busy), (True, WriteFailed)], ids=["not begun", "in part"])
def test_a_compare_and_write_is_asked_for_again_only_if_nothing_was_written(
    part: bool, failure: type[BlockError]
) -> None:
    """Sent again it would compare with what it has written itself."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        async def persist(changed: Sequence[AnyObject]) -> None:
            await volume.hold_all(AT_ONCE)
            await turns()

        volume._persist = persist
        async with volume.hold(0, 8) as held:
            if part:
                machine.leg(0, 1).fail(AluOp.WRITE, offset=DATA, times=1)
            else:
                await volume.hold_all(AT_ONCE)
            with pytest.raises(failure) as caught:
                await held.submit(Request(Op.WRITE, 0, 8, pattern(2)))
            assert type(caught.value) is failure

    with_volume(scenario)


def test_a_resynchronization_stops_and_goes_on() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            for region in range(4):
                await write(volume, region, region * 512 * 2)
        machine.leg(0, 1).crash()
        async with machine.volume(fresh=False) as volume:
            assert volume.pin_reads()
            resync = asyncio.create_task(volume.resynchronize())
            await turns(3)
            await volume.hold_all(AT_ONCE)
            seen = [len(alu.log) for alu in machine.alus.values()]
            await turns()
            assert not resync.done()
            assert [len(alu.log) for alu in machine.alus.values()] == seen
            with pytest.raises(Busy):
                await write(volume, 9)
            volume.resume()
            await resync
            assert machine.data(0, 0) == machine.data(0, 1)

    asyncio.run(scenario())


def test_nothing_is_cleaned_while_it_is_held() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.clean()
        await volume.hold_all(AT_ONCE)
        seen = len(machine.leg(0, 0).log)
        with pytest.raises(Busy):
            await volume.clean()
        assert len(machine.leg(0, 0).log) == seen
        volume.resume()
        await volume.clean()
        assert not any(any(log.hot.states) for log in machine.logs.values())

    with_volume(scenario)


def test_a_volume_that_is_held_can_be_taken_off_line() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.hold_all(LONG)
        waiting = asyncio.create_task(write(volume, 2))
        await turns()
        await volume.close()
        with pytest.raises(Offline):
            await waiting
        assert not any(any(log.hot.states) for log in machine.logs.values()), "it was stopped cleanly"

    with_volume(scenario)


def test_one_that_is_handed_over_touches_nothing_and_has_hosts_ask_again() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.hold_all(LONG)
        waiting = asyncio.create_task(write(volume, 2))
        await turns()
        seen = [len(alu.log) for alu in machine.alus.values()]
        volume.abandon()
        for request in (waiting, asyncio.create_task(read(volume))):
            with pytest.raises(Busy):
                await request
        assert not volume.read_now(0, 8, memoryview(bytearray(8 * BLOCK_BYTES)))
        assert [len(alu.log) for alu in machine.alus.values()] == seen

    with_volume(scenario, immediate=True)


def test_what_waits_is_bounded_in_number() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.hold_all(HoldLimits(most_waiting=2, longest_s=3600))
        waiting = [asyncio.create_task(write(volume, seed)) for seed in (2, 3)]  # one of them for the other's range
        await turns()
        with pytest.raises(Busy):
            await read(volume)
        volume.resume()
        await asyncio.gather(*waiting)

    with_volume(scenario)
