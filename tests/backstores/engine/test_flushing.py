"""Flushing: what storage tells only once reaches everybody whose data it may concern (D1)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from backstores.alu.base import AluError, AluOp
from backstores.alu.memory import MemoryDriver
from backstores.block import Leaf, MarkDirty, Op, Request, plan
from backstores.engine.backend import Held
from backstores.engine.engine import Engine
from backstores.engine.executor import Executor, StageFailed
from backstores.engine.storage import DriverStorage
from tests.support.volumes import alu_wwn, object_wwn

SIZE = 1 << 20
BLOCK_BYTES = 512
LEAF = Leaf(object_wwn(1), alu_wwn(1), 0, SIZE // BLOCK_BYTES)


def with_alu(scenario: Callable[[Engine, MemoryDriver], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Engine() as engine:
            await scenario(engine, MemoryDriver(SIZE))

    asyncio.run(run())


def volume_on(engine: Engine, alu: MemoryDriver) -> Executor:
    async def never(mark: MarkDirty) -> None:
        raise AssertionError(mark)

    return Executor(engine, {LEAF.alu: alu}, never)


async def ask(volume: Executor, request: Request) -> None:
    await volume.run(plan(LEAF, request.op, request.lba, request.blocks), request, BLOCK_BYTES)


FLUSH = Request(Op.FLUSH, 0, 0)


def test_every_volume_on_an_alu_hears_of_a_loss_once() -> None:
    async def scenario(engine: Engine, alu: MemoryDriver) -> None:
        one, other = volume_on(engine, alu), volume_on(engine, alu)
        alu.fail(AluOp.FLUSH, times=1)
        for volume in (one, other):
            with pytest.raises(StageFailed, match="flush at byte 0"):
                await ask(volume, FLUSH)
        for volume in (one, other, volume_on(engine, alu)):
            await ask(volume, FLUSH)

    with_alu(scenario)


class KernelFlush(MemoryDriver):
    """Flushes as a kernel does: what is under way can't be called back. The first one ends with an error."""

    answers = iter((-errno.EIO, 0))

    def sync(self) -> Held:  # type: ignore[override]  # Transfers asks for any awaitable
        outcome = Held()
        asyncio.get_running_loop().call_later(0, outcome.set_result, next(self.answers))
        return outcome


def test_a_volume_hears_of_a_loss_that_only_a_cancelled_flush_was_told() -> None:
    async def scenario() -> None:
        async with Engine() as engine:
            volume = volume_on(engine, KernelFlush(SIZE))
            cancelled = asyncio.create_task(ask(volume, FLUSH))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            with pytest.raises(StageFailed):
                await ask(volume, FLUSH)

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True], ids=["well", "with an error"])
def test_all_who_ask_during_a_flush_share_the_next_and_how_both_end(fails: bool) -> None:
    """A flush that was begun earlier may not cover what was written since, and may use the error up."""

    async def scenario(engine: Engine, alu: MemoryDriver) -> None:
        gate = alu.hold(AluOp.FLUSH)
        first = asyncio.create_task(engine.flush(alu))
        await gate.reached.wait()
        if fails:
            alu.fail(AluOp.FLUSH, times=1)
        rest = [asyncio.create_task(engine.flush(alu)) for _ in range(5)]
        await asyncio.sleep(0)
        gate.open()
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        assert len(alu.seen(AluOp.FLUSH)) == 2
        assert [isinstance(outcome, AluError) for outcome in outcomes] == [fails] * 6

    with_alu(scenario)


def test_a_flush_goes_on_for_others_when_who_asked_first_is_cancelled() -> None:
    async def scenario(engine: Engine, alu: MemoryDriver) -> None:
        gate = alu.hold(AluOp.FLUSH)
        first = asyncio.create_task(engine.flush(alu))
        await gate.reached.wait()
        second, third = (asyncio.create_task(engine.flush(alu)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        gate.open()
        await third
        assert len(alu.seen(AluOp.FLUSH)) == 2

    with_alu(scenario)


def test_metadata_hears_of_losses_since_it_began_to_write_and_of_no_others() -> None:
    """A leg that is given up for a failed flush must not keep that from being recorded on the same ALU (D3)."""

    async def scenario(engine: Engine, alu: MemoryDriver) -> None:
        storage, volume = DriverStorage(engine, alu), volume_on(engine, alu)
        alu.fail(AluOp.FLUSH, times=1)
        with pytest.raises(StageFailed):
            await ask(volume, FLUSH)
        await storage.write(0, bytes(4096))
        await storage.flush()
        await storage.write(0, bytes(4096))
        alu.fail(AluOp.FLUSH, times=1)
        with pytest.raises(StageFailed):
            await ask(volume, FLUSH)
        with pytest.raises(AluError):
            await storage.flush()

    with_alu(scenario)


@pytest.mark.parametrize("op", [Op.DISCARD, Op.ZERO])
def test_what_is_given_back_or_zeroed_without_write_cache_survives_a_crash(op: Op) -> None:
    """SBC-3 clause 4.15: with WCE zero, UNMAP and WRITE SAME are stable before they are acknowledged."""

    async def scenario(engine: Engine, alu: MemoryDriver) -> None:
        volume = volume_on(engine, alu)
        data = memoryview(b"x" * 8 * BLOCK_BYTES)
        await ask(volume, Request(Op.WRITE, 0, 8, data, fua=True))
        await ask(volume, Request(op, 0, 8, fua=True))
        alu.crash()
        assert alu.content[: len(data)] == bytes(len(data))

    with_alu(scenario)
