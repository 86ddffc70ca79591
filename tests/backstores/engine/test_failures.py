"""What fails is named: the ALU, the operation, the first byte that was not done, and why."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backstores.alu.base import AluDriver, AluError, AluFull, AluOp
from backstores.alu.memory import MemoryDriver
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from tests.support.engines import BACKENDS, mounted, noise, view, with_engine

SIZE = 1 << 20
backends = pytest.mark.parametrize("choice", BACKENDS)

Doing = Callable[[Engine, AluDriver, int, int], Awaitable[object]]


async def lock(engine: Engine, driver: AluDriver, offset: int, length: int) -> None:
    """Have a range alone, for a moment."""
    async with engine.exclusive(driver, offset, length):
        pass


DOING: dict[AluOp, Doing] = {
    AluOp.READ: lambda engine, driver, offset, length: engine.read(driver, offset, [view(bytes(length))]),
    AluOp.WRITE: lambda engine, driver, offset, length: engine.write(driver, offset, [view(noise(length))]),
    AluOp.DISCARD: lambda engine, driver, offset, length: engine.discard(driver, offset, length),
    AluOp.ZERO: lambda engine, driver, offset, length: engine.zero(driver, offset, length),
    AluOp.STATUS: lambda engine, driver, offset, length: engine.status(driver, offset, length),
    AluOp.FLUSH: lambda engine, driver, offset, length: engine.flush(driver),
    AluOp.LOCK: lock,
}
ranged = pytest.mark.parametrize("op", [op for op in AluOp if op is not AluOp.FLUSH])


@ranged
@pytest.mark.parametrize(("offset", "length"), [(SIZE, 512), (SIZE - 512, 1024), (-512, 1024), (1 << 70, 512)], ids=str)
def test_past_the_end(disk: Path, op: AluOp, offset: int, length: int) -> None:
    """S3: a range that does not lie on the ALU reaches no storage, whatever metadata said."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE)
        with pytest.raises(AluError) as caught:
            await DOING[op](engine, driver, offset, length)
        assert (caught.value.op, caught.value.offset, caught.value.errno) == (op, offset, errno.EINVAL)
        assert str(SIZE) in str(caught.value)

    with_engine(BackendChoice.THREADS, scenario)
    assert (disk / "alu").stat().st_size == SIZE


@backends
@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
def test_a_file_that_shrank(disk: Path, choice: BackendChoice, direct: bool) -> None:
    """Reading what somebody cut off is an error at the first byte that is gone, never silence or zeros."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE, direct=direct)
        content = noise(SIZE)
        await engine.write(driver, 0, [view(content)])
        os.truncate(disk / "alu", SIZE // 2)
        into = view(bytes(16384))
        with pytest.raises(AluError) as caught:
            await engine.read(driver, SIZE // 2 - 8192, [into[:4096], into[4096:]])
        assert (caught.value.offset, caught.value.errno) == (SIZE // 2, errno.EIO)
        assert into[:8192] == content[SIZE // 2 - 8192 : SIZE // 2]
        assert not driver.read_now(SIZE // 2 - 4096, into[:8192])

    with_engine(choice, scenario)


@backends
@pytest.mark.root
def test_a_full_file_system(tmp_path: Path, choice: BackendChoice) -> None:
    """A sparse file on a full disk: AluFull at the first byte without room; what was written before is there."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(folder / "alu"), size_bytes=4 << 20)
        content = noise(2 << 20)
        with pytest.raises(AluFull) as caught:
            await engine.write(driver, 0, [view(content)])
        done = caught.value.offset
        assert 0 < done < 2 << 20
        into = view(bytes(done))
        await engine.read(driver, 0, [into])
        assert into == content[:done]
        assert not driver.write_now(done, view(bytes(8192)))
        with pytest.raises(AluFull):
            await engine.zero(driver, 0, 2 << 20)
        await engine.discard(driver, 0, 1 << 20)
        await engine.write(driver, 3 << 20, [view(content[:4096])])

    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        with_engine(choice, scenario)


@backends
def test_a_file_size_limit(disk: Path, choice: BackendChoice) -> None:
    """A write that the kernel cuts off at a limit fails at the limit's byte."""
    limit = 64 << 10

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(AluError) as caught:
                await engine.write(driver, limit - 8192, [view(noise(16384))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (caught.value.offset, caught.value.errno) == (limit, errno.EFBIG)

    with_engine(choice, scenario)


@pytest.mark.parametrize("op", [op for op in AluOp if op not in (AluOp.FLUSH, AluOp.LOCK)])
def test_the_first_byte_that_failed(op: AluOp) -> None:
    """Failure is handled to the block: the error's offset is the bad sector's, not the operation's."""
    driver = MemoryDriver(SIZE, immediate=False)
    bad = 0 if op is AluOp.STATUS else 12288
    driver.fail(op, errno.EIO, offset=bad, length=512)

    async def scenario(engine: Engine) -> None:
        with pytest.raises(AluError) as caught:
            await DOING[op](engine, driver, 0, 65536)
        assert (caught.value.op, caught.value.offset, caught.value.errno) == (op, bad, errno.EIO)
        driver.mend()
        await DOING[op](engine, driver, 0, 65536)

    with_engine(BackendChoice.THREADS, scenario)


def test_a_flush_that_fails() -> None:
    """D1: a flush that did not reach the storage is an error; the next one is judged by itself."""
    driver = MemoryDriver(SIZE)
    driver.fail(AluOp.FLUSH, errno.EIO, times=1)

    async def scenario(engine: Engine) -> None:
        with pytest.raises(AluError) as caught:
            await engine.flush(driver)
        assert (caught.value.op, caught.value.errno) == (AluOp.FLUSH, errno.EIO)
        await engine.flush(driver)

    with_engine(BackendChoice.THREADS, scenario)


@backends
@pytest.mark.parametrize("op", AluOp)
def test_after_release(disk: Path, choice: BackendChoice, op: AluOp) -> None:
    """A driver that was released answers with an error and touches nothing, though its number be another file's."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE)
        read_now, write_now = driver.read_now, driver.write_now
        await engine.release(driver)
        innocent = os.open(disk / "innocent", os.O_RDWR | os.O_CREAT)  # takes the number that has become free
        with pytest.raises(AluError) as caught:
            await DOING[op](engine, driver, 0, 4096)
        assert caught.value.errno == errno.ENODEV
        page = view(noise(4096))
        assert not any((read_now(0, page), write_now(0, page), driver.read_now(0, page), driver.write_now(0, page)))
        os.close(innocent)
        assert (disk / "innocent").stat().st_size == 0

    with_engine(choice, scenario)
