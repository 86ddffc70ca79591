"""Waiting, cancelling and closing: nobody touches memory that the kernel still works on, and nothing hangs."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backstores.alu.base import AluError, AluOp
from backstores.alu.file import open_file
from backstores.alu.memory import MemoryDriver
from backstores.engine.choice import BackendChoice, make_backend
from backstores.engine.engine import DEPTH, Engine
from backstores.engine.pool import LANE_WORKERS
from tests.support.engines import BACKENDS, view, with_engine

backends = pytest.mark.parametrize("choice", BACKENDS)
only_ring = pytest.mark.parametrize("choice", BACKENDS[1:])
ANY_FD = 1000  # a lane's name; nothing is opened


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: a read on it is under way until the test writes."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def turns(count: int = 5) -> None:
    """Let everything happen that needs no waiting."""
    for _ in range(count):
        await asyncio.sleep(0)


@backends
def test_a_cancelled_call_waits_for_its_worker(choice: BackendChoice) -> None:
    """A task that is cancelled ends when the worker has let go, not before, and then ends as cancelled."""

    async def scenario() -> None:
        backend = make_backend(choice)
        begun, release = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            release.wait()

        task = asyncio.create_task(backend.call(ANY_FD, work))
        await begun.wait()
        task.cancel()
        await turns()
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.close()

    asyncio.run(scenario())


@only_ring
def test_a_cancelled_read_keeps_its_buffer(choice: BackendChoice, pipe: tuple[int, int]) -> None:
    """The kernel writes into memory that is still there, and the task ends only then."""

    async def scenario() -> None:
        backend = make_backend(choice)
        into = bytearray(4)

        async def read() -> int:
            return await backend.readv(pipe[0], [memoryview(into)], 0)

        task = asyncio.create_task(read())
        await turns()
        task.cancel()
        await turns()
        assert not task.done()
        with pytest.raises(BufferError):
            into.clear()  # exported to the kernel
        os.write(pipe[1], b"late")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert into == b"late"
        await backend.close()

    asyncio.run(scenario())


@only_ring
def test_a_forgotten_read_keeps_its_buffer(choice: BackendChoice, pipe: tuple[int, int]) -> None:
    """Nobody needs to hold the future or the view: the ring does."""

    async def scenario() -> None:
        backend = make_backend(choice)
        into = bytearray(4)
        outcome = backend.readv(pipe[0], [memoryview(into)], 0)
        await turns()
        del outcome
        gc.collect()
        with pytest.raises(BufferError):
            into.clear()
        os.write(pipe[1], b"kept")
        await backend.close()  # waits for what is under way
        assert into == b"kept"
        into.clear()

    asyncio.run(scenario())


@backends
def test_a_full_lane_holds_nobody_else_up(disk: Path, choice: BackendChoice) -> None:
    """C3: all workers that one ALU may have hang, and another ALU is read and flushed."""
    release = threading.Event()

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=1 << 20)
        backend = engine._backend
        hanging = [asyncio.create_task(backend.call(ANY_FD, release.wait)) for _ in range(2 * LANE_WORKERS)]
        await turns()
        await engine.write(driver, 0, [view(b"x" * 512)])
        await engine.zero(driver, 4096, 4096)
        await engine.flush(driver)
        assert not any(task.done() for task in hanging)
        release.set()
        assert all(await asyncio.gather(*hanging))

    with_engine(choice, scenario)


@backends
def test_a_cancelled_open_gives_the_lock_back(
    disk: Path, choice: BackendChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: an ALU that was opened for nobody is not locked for ever."""
    path = str(disk / "alu")
    begun, release = threading.Event(), threading.Event()

    def slowly(path: str, **options: object) -> object:
        begun.set()
        release.wait()
        return open_file(path, size_bytes=1 << 20)

    monkeypatch.setattr("backstores.engine.engine.open_alu", slowly)

    async def scenario(engine: Engine) -> None:
        task = asyncio.create_task(engine.open(path))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        open_file(path).close()

    with_engine(choice, scenario)


def test_depth_is_bounded() -> None:
    """No more than DEPTH operations of one ALU are under way; the others follow."""

    async def scenario(engine: Engine) -> None:
        driver = MemoryDriver(1 << 20, immediate=False)
        gate = driver.hold(AluOp.READ)
        reads = [asyncio.create_task(engine.read(driver, 0, [view(bytes(512))])) for _ in range(DEPTH + 20)]
        await gate.reached.wait()
        await turns()
        assert len(driver.seen(AluOp.READ)) == DEPTH
        gate.open()
        await asyncio.gather(*reads)
        assert len(driver.seen(AluOp.READ)) == DEPTH + 20

    with_engine(BackendChoice.THREADS, scenario)


@pytest.mark.parametrize("releases", [1, 2], ids=["once", "twice"])
def test_release_waits_and_then_refuses(releases: int) -> None:
    """What was accepted ends well, what waits in line included; what comes later learns that the ALU is closed."""

    async def outcome(engine: Engine, driver: MemoryDriver) -> int:
        try:
            await engine.read(driver, 0, [view(bytes(512))])
        except AluError as error:
            return error.errno
        return 0

    async def scenario(engine: Engine) -> None:
        driver = MemoryDriver(1 << 20, immediate=False)
        gate = driver.hold(AluOp.READ)
        reads = [asyncio.create_task(outcome(engine, driver)) for _ in range(DEPTH + 3)]
        await gate.reached.wait()
        await turns()
        leaving = [asyncio.create_task(engine.release(driver)) for _ in range(releases)]
        await turns()
        assert await outcome(engine, driver) == errno.ENODEV
        closed_before = driver.closed
        gate.open()
        await asyncio.gather(*leaving)
        assert (closed_before, driver.closed) == (False, True)
        assert await asyncio.gather(*reads) == [0] * (DEPTH + 3)

    with_engine(BackendChoice.THREADS, scenario)


def test_small_jobs_travel_together(monkeypatch: pytest.MonkeyPatch, disk: Path) -> None:
    """A burst of small transfers wakes few workers; large ones and calls go alone."""
    chunks: list[int] = []

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=4 << 20)
        pool = engine._backend
        submit = pool._executor.submit  # type: ignore[attr-defined]

        def counted(work: object, chunk: Sequence[object]) -> object:
            chunks.append(len(chunk))
            return submit(work, chunk)

        monkeypatch.setattr(pool._executor, "submit", counted)  # type: ignore[attr-defined]
        await asyncio.gather(*(engine.read(driver, at * 512, [view(bytes(512))]) for at in range(64)))
        assert chunks == [64 // LANE_WORKERS] * LANE_WORKERS
        chunks.clear()
        await asyncio.gather(*(engine.read(driver, 0, [view(bytes(128 << 10))]) for _ in range(10)))
        assert chunks == [1] * 10

    with_engine(BackendChoice.THREADS, scenario)
