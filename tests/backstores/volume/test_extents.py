"""Ranges of an ALU as a device: against a plain array, with failures, and with losses that a flush reveals (R12)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.alu.base import AluOp
from backstores.alu.memory import MemoryDriver
from backstores.block import Op, OutOfRange, ReadFailed, Request, Run, WriteFailed
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.objects import Extent
from backstores.volume.extents import ExtentDevice

BLOCK = 512
DATA, BITMAP = Extent(64 * BLOCK, 32 * BLOCK), Extent(8 * BLOCK, 16 * BLOCK)
BLOCKS = 48
FLUSH = Request(Op.FLUSH, 0, 0)


def with_device(scenario: Callable[[MemoryDriver, ExtentDevice], Awaitable[None]], immediate: bool = True) -> None:
    async def run() -> None:
        async with Engine() as engine:
            driver = MemoryDriver(128 * BLOCK, immediate=immediate)
            await scenario(driver, ExtentDevice(engine, driver, (DATA, BITMAP), BLOCK))

    asyncio.run(run())


def pattern(seed: int, blocks: int) -> memoryview:
    return memoryview(random.Random(seed).randbytes(blocks * BLOCK))


async def read(device: ExtentDevice, lba: int, blocks: int) -> bytes:
    data = bytearray(blocks * BLOCK)
    await device.submit(Request(Op.READ, lba, blocks, memoryview(data)))
    return bytes(data)


def on_the_alu(driver: MemoryDriver) -> bytes:
    """Give what the two extents hold, one behind the other."""
    return bytes(b"".join(driver.content[e.start_bytes : e.end_bytes] for e in (DATA, BITMAP)))


ranges = st.integers(0, BLOCKS - 1).flatmap(lambda lba: st.tuples(st.just(lba), st.integers(1, BLOCKS - lba)))


@pytest.mark.parametrize("immediate", [True, False], ids=["at once", "waiting"])
@given(steps=st.lists(st.tuples(st.sampled_from([Op.WRITE, Op.DISCARD, Op.ZERO]), ranges), max_size=8))
def test_it_is_an_array_of_blocks(steps: list[tuple[Op, tuple[int, int]]], immediate: bool) -> None:
    """Requests that cross from one extent into the other included."""

    async def scenario(driver: MemoryDriver, device: ExtentDevice) -> None:
        driver.content[:] = b"\xff" * len(driver.content)
        model = bytearray(on_the_alu(driver))
        for seed, (op, (lba, blocks)) in enumerate(steps):
            data = pattern(seed, blocks) if op is Op.WRITE else None
            if data is None or not device.write_now(lba, blocks, data):
                await device.submit(Request(op, lba, blocks, data))
            model[lba * BLOCK : (lba + blocks) * BLOCK] = data or bytes(blocks * BLOCK)
            into = bytearray(blocks * BLOCK)
            if device.read_now(lba, blocks, memoryview(into)):
                assert into == model[lba * BLOCK : (lba + blocks) * BLOCK]
        assert await read(device, 0, BLOCKS) == model == on_the_alu(driver)
        for first, end in ((0, BITMAP.start_bytes), (BITMAP.end_bytes, DATA.start_bytes), (DATA.end_bytes, None)):
            assert not driver.content[first:end].strip(b"\xff"), "nothing beside the extents was touched"

    with_device(scenario, immediate)


def test_it_tells_what_is_mapped_across_extents() -> None:
    async def scenario(driver: MemoryDriver, device: ExtentDevice) -> None:
        await device.submit(Request(Op.WRITE, 32, 8, pattern(1, 8)))  # the first 4 KiB of the second extent
        assert await device.submit(Request(Op.STATUS, 24, 24)) == [
            Run(24, 8, False),
            Run(32, 8, True),
            Run(40, 8, False),
        ]

    with_device(scenario)


@pytest.mark.parametrize(("op", "failure"), [(Op.READ, ReadFailed), (Op.WRITE, WriteFailed)], ids=["read", "write"])
def test_a_failing_alu_names_the_block(op: Op, failure: type[Exception]) -> None:
    async def scenario(driver: MemoryDriver, device: ExtentDevice) -> None:
        driver.fail(AluOp(op.value), offset=BITMAP.start_bytes + 3 * BLOCK, length=BLOCK)
        with pytest.raises(failure) as caught:
            await device.submit(Request(op, 30, 8, memoryview(bytearray(8 * BLOCK))))
        assert caught.value.lba == 35  # type: ignore[attr-defined]

    with_device(scenario, immediate=False)


def test_past_the_end_nothing_is_touched() -> None:
    async def scenario(driver: MemoryDriver, device: ExtentDevice) -> None:
        with pytest.raises(OutOfRange):
            await device.submit(Request(Op.WRITE, BLOCKS - 1, 2, pattern(1, 2)))
        assert not driver.log

    with_device(scenario)


def test_one_flush_covers_all_extents_and_fua_is_durable() -> None:
    """D1."""

    async def scenario(driver: MemoryDriver, device: ExtentDevice) -> None:
        await device.submit(FLUSH)
        assert len(driver.seen(AluOp.FLUSH)) == 1
        await device.submit(Request(Op.WRITE, 30, 4, pattern(1, 4), fua=True))
        driver.crash()
        assert await read(device, 30, 4) == pattern(1, 4)

    with_device(scenario)


def test_each_device_hears_of_a_loss_by_its_own_flush() -> None:
    """D1: storage tells of it once; who has written through another device must not believe that all is well."""

    async def scenario() -> None:
        async with Engine() as engine:
            driver = MemoryDriver(128 * BLOCK)
            one, other = (ExtentDevice(engine, driver, (DATA,), BLOCK) for _ in range(2))
            driver.fail(AluOp.FLUSH, times=1)
            for device in (one, other):
                with pytest.raises(WriteFailed):
                    await device.submit(FLUSH)
                await device.submit(FLUSH)
            late = ExtentDevice(engine, driver, (DATA,), BLOCK)
            await late.submit(FLUSH)  # what was lost before it came was nothing of its own

    asyncio.run(scenario())


def test_who_holds_a_range_keeps_other_writers_out() -> None:
    async def scenario(driver: MemoryDriver, device: ExtentDevice) -> None:
        async with device.hold(4, 4) as held:
            assert not device.write_now(0, 8, pattern(1, 8))
            other = asyncio.create_task(device.submit(Request(Op.WRITE, 0, 8, pattern(1, 8))))
            for _ in range(5):
                await asyncio.sleep(0)
            assert await read(device, 0, 8) == bytes(8 * BLOCK)
            await held.submit(Request(Op.WRITE, 4, 4, pattern(2, 4)))
        await other
        assert await read(device, 0, 8) == pattern(1, 8)

    with_device(scenario)


@pytest.mark.parametrize(
    "extent", [Extent(100, 512), Extent(0, 100), Extent(0, 0), Extent(127 * BLOCK, 2 * BLOCK)], ids=str
)
def test_what_is_no_range_of_whole_blocks_of_the_alu_is_refused(extent: Extent) -> None:
    async def scenario() -> None:
        async with Engine() as engine:
            with pytest.raises(UsageError):
                ExtentDevice(engine, MemoryDriver(128 * BLOCK), (extent,), BLOCK)

    asyncio.run(scenario())
