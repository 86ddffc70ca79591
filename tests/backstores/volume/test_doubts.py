"""Changes that were begun and not carried through: legs differ only where that is marked, and not for long (D2)."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from backstores.alu.base import AluOp
from backstores.alu.memory import MemoryDriver
from backstores.block import BlockError, NoSpace, Offline, Op, Request
from backstores.engine.backend import Held
from backstores.errors import UsageError
from backstores.objects import AnyObject, LegState
from backstores.volume.volume import Volume
from tests.support.volumes import BLOCK_BYTES, DATA, Machine

IN_SYNC, FAILED = LegState.IN_SYNC, LegState.FAILED
FLUSH = Request(Op.FLUSH, 0, 0)


def pattern(seed: int, blocks: int = 8) -> memoryview:
    return memoryview(random.Random(seed).randbytes(blocks * BLOCK_BYTES))


async def write(volume: Volume, seed: int, blocks: int = 8) -> None:
    await volume.submit(Request(Op.WRITE, 0, blocks, pattern(seed, blocks)))


def with_volume(scenario: Callable[[Machine, Volume], Awaitable[None]], immediate: bool = True) -> None:
    """Run a scenario on a volume whose first blocks hold ``pattern(1)``."""

    async def run() -> None:
        machine = Machine(immediate=immediate)
        async with machine.volume() as volume:
            await write(volume, 1)
            await scenario(machine, volume)

    asyncio.run(run())


async def idle(volume: Volume) -> None:
    """Let as much time pass as it takes for a region to be cleared."""
    for _ in range(3):
        await volume.clean()


def dirty(machine: Machine) -> bool:
    return any(any(log.hot.states) for log in machine.logs.values())


def equal(machine: Machine) -> bool:
    return machine.data(0, 0) == machine.data(0, 1)


@pytest.mark.parametrize("ending", [idle, Volume.close], ids=["idle", "closed"])
def test_a_hot_write_that_a_leg_refused_and_nobody_repeats(ending: Callable[[Volume], Awaitable[None]]) -> None:
    """The command may be aborted before its general way, while it waits for room."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        gate = machine.leg(0, 1).hold(AluOp.WRITE)
        assert not volume.write_now(0, 8, pattern(2))
        assert not equal(machine), "the first leg has it already"
        gate.open()
        await ending(volume)
        assert equal(machine)
        assert not dirty(machine)

    with_volume(scenario)


def test_a_write_that_was_cancelled_on_its_way() -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        gate = machine.leg(0, 1).hold(AluOp.WRITE)
        task = asyncio.create_task(write(volume, 2))
        await gate.reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.open()
        await idle(volume)
        assert equal(machine)
        assert not dirty(machine)

    with_volume(scenario, immediate=False)


def test_a_loss_that_could_not_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """D3: the host was told of an error; when the leg is well again, it must not differ unmarked."""

    async def nowhere(machine: Machine, changed: Sequence[AnyObject]) -> None:
        raise UsageError("nothing can be recorded")

    async def scenario(machine: Machine, volume: Volume) -> None:
        machine.leg(0, 1).fail(AluOp.WRITE, offset=DATA, times=1)
        with pytest.raises(Offline):
            await write(volume, 2)
        assert not equal(machine)
        await idle(volume)
        assert equal(machine)

    monkeypatch.setattr(Machine, "persist", nowhere)
    with_volume(scenario, immediate=False)


def test_what_is_in_doubt_is_copied_from_the_leg_that_is_read() -> None:
    """Two reads after each other never go back: what a host has seen of an aborted write stays."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        at = 2048 * 2  # blocks from here on are read from the second leg
        await volume.submit(Request(Op.WRITE, at, 8, pattern(1)))  # the region is marked
        gate = machine.leg(0, 0).hold(AluOp.WRITE)
        task = asyncio.create_task(volume.submit(Request(Op.WRITE, at, 8, pattern(2))))
        await gate.reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.open()
        for _ in range(2):
            found = bytearray(8 * BLOCK_BYTES)
            await volume.submit(Request(Op.READ, at, 8, memoryview(found)))
            assert found == pattern(2)
            await volume.clean()

    with_volume(scenario, immediate=False)


def test_a_leg_that_is_lost_while_regions_are_cleared_keeps_its_marks() -> None:
    """What a missing leg has not got stays marked for its return."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.clean()
        machine.leg(0, 1).fail(AluOp.FLUSH)
        await volume.clean()
        assert machine.leg_states[:2] == [IN_SYNC, FAILED]
        assert dirty(machine)

    with_volume(scenario)


def test_after_a_flush_that_failed_everywhere_nothing_is_taken_for_clean() -> None:
    """The kernel tells of lost pages once; the next flush ends well, though the legs differ."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        for leg in (0, 1):
            machine.leg(0, leg).fail(AluOp.FLUSH, times=1)
        with pytest.raises(BlockError):
            await volume.submit(FLUSH)
        machine.leg(0, 1).crash()  # drops the pages, as a kernel does
        await idle(volume)
        await volume.close()
        assert dirty(machine)

    with_volume(scenario)


def test_a_leg_without_room_for_what_it_had_taken_is_given_up() -> None:
    """A full disk harms nobody when a write meets it, but a flush has lost data (D1)."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        machine.leg(0, 1).fail(AluOp.FLUSH, errno.ENOSPC, times=1)
        await volume.submit(FLUSH)
        assert machine.leg_states[:2] == [IN_SYNC, FAILED]

    with_volume(scenario)


@pytest.mark.parametrize("pages", [(2, 4), (4, 2)], ids=str)
def test_two_full_disks_that_took_a_write_in_part_both_stay_in_sync(pages: tuple[int, int]) -> None:
    async def scenario(machine: Machine, volume: Volume) -> None:
        for leg, room in enumerate(pages):
            alu = machine.leg(0, leg)
            alu.room_bytes = (len(alu.mapped) + room) * 4096
        with pytest.raises(NoSpace):
            await write(volume, 2, blocks=128)
        assert machine.leg_states == [IN_SYNC] * 4
        assert equal(machine)

    with_volume(scenario, immediate=False)


def test_the_host_hears_of_a_flush_that_failed_while_regions_were_cleared() -> None:
    """D1: SYNCHRONIZE CACHE must not end well when acknowledged data is lost, whoever has flushed."""

    async def scenario(machine: Machine, volume: Volume) -> None:
        await volume.clean()
        for leg in (0, 1):
            machine.leg(0, leg).fail(AluOp.FLUSH, times=1)
        with pytest.raises(BlockError):
            await volume.clean()
        with pytest.raises(BlockError):
            await volume.submit(FLUSH)
        await volume.submit(FLUSH)

    with_volume(scenario)


class Stubborn(MemoryDriver):
    """Does not let go of a transfer that has begun, as a kernel or another machine would not."""

    def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> Held:  # type: ignore[override]
        outcome = Held()
        task = asyncio.ensure_future(super().writev(views, offset, durable))
        task.add_done_callback(lambda task: outcome.set_result(task.result()))
        return outcome


@pytest.mark.parametrize("late", [0, 1], ids=["first leg", "second leg"])
def test_a_cancelled_write_keeps_its_range_until_every_leg_has_ended(late: int) -> None:
    """D1: else what it still writes to one leg would land over what somebody else has written since."""

    async def scenario() -> None:
        machine = Machine(immediate=False)
        machine.alus[machine.leg(0, late).path] = Stubborn(2 * DATA, path=machine.leg(0, late).path, immediate=False)
        async with machine.volume() as volume:
            await write(volume, 1)
            gates = [machine.leg(0, leg).hold(AluOp.WRITE) for leg in (0, 1)]
            task = asyncio.create_task(write(volume, 2))
            await asyncio.gather(*(gate.reached.wait() for gate in gates))
            task.cancel()
            gates[1 - late].open()
            other = asyncio.create_task(write(volume, 3))
            for _ in range(50):
                await asyncio.sleep(0)
            ended = task.done()
            gates[late].open()
            assert not ended
            await asyncio.gather(task, return_exceptions=True)
            await other
            for leg in (0, 1):
                assert machine.data(0, leg)[: 8 * BLOCK_BYTES] == pattern(3)

    asyncio.run(scenario())
