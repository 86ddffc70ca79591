"""The twin in memory does what its tests ask of it: otherwise theirs prove nothing."""

from __future__ import annotations

import asyncio
import errno

import pytest

from backstores.alu.base import AluError, AluFull, AluOp, ByteRun
from backstores.alu.memory import MemoryDriver, Seen
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from tests.support.engines import noise, view, with_engine

SIZE = 64 << 10
PAGE = 4096


def test_now_and_waiting_see_the_same_bytes() -> None:
    driver = MemoryDriver(SIZE)
    assert driver.write_now(512, view(noise(1024)))

    async def scenario(engine: Engine) -> None:
        into = view(bytes(1024))
        await engine.read(driver, 512, [into[:100], into[100:]])
        assert into == noise(1024)

    with_engine(BackendChoice.THREADS, scenario)
    assert driver.log == [Seen(AluOp.WRITE, 512, 1024, now=True), Seen(AluOp.READ, 512, 1024)]


@pytest.mark.parametrize("op", [AluOp.READ, AluOp.WRITE])
def test_faults_close_the_hot_path_where_they_are(op: AluOp) -> None:
    """The hot path answers False on a bad range, and has changed nothing; elsewhere it goes on."""
    driver = MemoryDriver(SIZE)
    driver.fail(op, offset=PAGE, length=512)
    now = driver.read_now if op is AluOp.READ else driver.write_now
    assert not now(PAGE - 512, view(b"x" * 1024))
    assert now(PAGE + 512, view(b"x" * 512))
    assert driver.content[PAGE - 512 : PAGE + 512] == bytes(1024)


def test_a_fault_passes_after_its_times() -> None:
    driver = MemoryDriver(SIZE, immediate=False)
    driver.fail(AluOp.WRITE, errno.EIO, times=2)

    async def scenario(engine: Engine) -> list[bool]:
        outcomes = []
        for _ in range(3):
            try:
                await engine.write(driver, 0, [view(b"x" * 512)])
                outcomes.append(True)
            except AluError:
                outcomes.append(False)
        return outcomes

    assert with_engine(BackendChoice.THREADS, scenario) == [False, False, True]


def test_mending_one_fault_leaves_the_others() -> None:
    driver = MemoryDriver(SIZE)
    first = driver.fail(AluOp.READ, offset=0, length=512)
    driver.fail(AluOp.READ, offset=PAGE, length=512)
    driver.mend(first)
    assert driver.read_now(0, view(bytes(512)))
    assert not driver.read_now(PAGE, view(bytes(512)))


@pytest.mark.parametrize("op", [AluOp.WRITE, AluOp.ZERO])
def test_room_runs_out_at_a_page(op: AluOp) -> None:
    """Pages that are mapped can be written again; a new one fails at its first byte; a discard makes room."""
    driver = MemoryDriver(SIZE, immediate=False)
    driver.room_bytes = 2 * PAGE

    async def scenario(engine: Engine) -> None:
        async def fill(offset: int, length: int) -> None:
            if op is AluOp.WRITE:
                await engine.write(driver, offset, [view(b"x" * length)])
            else:
                await engine.zero(driver, offset, length)

        with pytest.raises(AluFull) as caught:
            await fill(512, 4 * PAGE)
        assert caught.value.offset == 2 * PAGE
        await fill(0, 2 * PAGE)
        await engine.discard(driver, 0, PAGE)
        await fill(8 * PAGE, 512)
        assert await engine.status(driver, 0, SIZE) == [
            ByteRun(0, PAGE, False),
            ByteRun(PAGE, PAGE, True),
            ByteRun(2 * PAGE, 6 * PAGE, False),
            ByteRun(8 * PAGE, PAGE, True),
            ByteRun(9 * PAGE, 7 * PAGE, False),
        ]

    with_engine(BackendChoice.THREADS, scenario)


def test_no_room_closes_the_hot_path() -> None:
    driver = MemoryDriver(SIZE)
    driver.room_bytes = PAGE
    assert driver.write_now(0, view(b"x" * 512))
    assert not driver.write_now(PAGE, view(b"x" * 512))
    assert driver.write_now(512, view(b"x" * 512))


def test_a_gate_holds_one_kind_of_operation() -> None:
    """Writes wait, by the hot path too; reads pass; once open, everything passes."""

    async def scenario(engine: Engine) -> None:
        driver = MemoryDriver(SIZE)
        gate = driver.hold(AluOp.WRITE)
        page = view(b"x" * PAGE)
        assert not driver.write_now(0, page)
        assert driver.read_now(0, view(bytes(PAGE)))
        write = asyncio.create_task(engine.write(driver, 0, [page]))
        await gate.reached.wait()
        assert driver.content[:PAGE] == bytes(PAGE)
        gate.open()
        await write
        assert driver.content[:PAGE] == page
        assert driver.write_now(PAGE, page)

    with_engine(BackendChoice.THREADS, scenario)


def test_a_crash_forgets_to_the_sector() -> None:
    """M1: sectors are lost one by one, discards and zeroing with them."""
    driver = MemoryDriver(SIZE, immediate=False)

    async def scenario(engine: Engine) -> None:
        await engine.write(driver, 0, [view(b"a" * 2048)])
        await engine.flush(driver)
        await engine.write(driver, 512, [view(b"b" * 1024)])
        await engine.write(driver, 512, [view(b"c" * 512)], durable=True)
        await engine.discard(driver, 1536, 512)

    with_engine(BackendChoice.THREADS, scenario)
    driver.crash()
    assert driver.content[:2048] == b"a" * 512 + b"c" * 512 + b"a" * 1024


def test_a_closed_driver_does_nothing() -> None:
    driver = MemoryDriver(SIZE)
    driver.close()
    assert not driver.read_now(0, view(bytes(512)))
    assert not driver.write_now(0, view(bytes(512)))
