"""The write-back behind ``write_now``: started by the budget, waited for at release, its errors told by a flush."""

from __future__ import annotations

import asyncio
import errno
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from backstores.alu import descriptor, space
from backstores.alu.base import AluError, AluOp
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.file import open_file
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from tests.support.engines import BACKENDS, loop_device, mounted, view, with_engine

backends = pytest.mark.parametrize("choice", BACKENDS)
CHUNK = 8 << 20
DIRTY_BYTES = 32 << 20


def spend_budget(driver: DescriptorDriver, content: memoryview) -> int:
    """Write until ``write_now`` refuses; answer the bytes it took."""
    taken = 0
    while driver.write_now(taken % driver.size_bytes, content):
        taken += len(content)
    return taken


class HeldWriteback:
    """Stands in for ``space.write_back``: waits in its worker until the test lets it go."""

    def __init__(self) -> None:
        self.begun, self._go_on = threading.Event(), threading.Event()
        self.ended: list[int] = []

    def __call__(self, fd: int) -> None:
        self.begun.set()
        self._go_on.wait()
        self.ended.append(fd)

    def let_go(self) -> None:
        self._go_on.set()


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor, "dirty_budget", lambda: DIRTY_BYTES)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldWriteback:
    write_back = HeldWriteback()
    monkeypatch.setattr(space, "write_back", write_back)
    return write_back


@backends
def test_the_budget_comes_back(disk: Path, choice: BackendChoice, held: HeldWriteback) -> None:
    """Two budgets go inline while one write-back runs; when it has ended the hot path is open again."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=64 << 20)
        assert isinstance(driver, DescriptorDriver)
        content = view(bytes(CHUNK))
        taken = spend_budget(driver, content)
        await engine.write(driver, 0, [content])  # the waiting way is open meanwhile
        await asyncio.to_thread(held.begun.wait)
        held.let_go()
        await driver_settled(engine, driver)
        assert taken == 2 * DIRTY_BYTES
        assert driver.write_now(0, content)

    with_engine(choice, scenario)


async def driver_settled(engine: Engine, driver: DescriptorDriver) -> None:
    """Wait for the write-back that runs."""
    await engine._lane(driver).transfers.settle()


@pytest.mark.root
@backends
def test_a_write_back_that_fails_fails_the_next_flush(
    disk: Path, choice: BackendChoice, caplog: pytest.LogCaptureFixture
) -> None:
    """D1: what the write-back lost, the host's flush hears of, once; then it is judged by itself."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(device, direct=False)
        assert isinstance(driver, DescriptorDriver)
        assert driver.write_now(0, view(b"x" * CHUNK))  # more than there is room for below the device
        assert driver.start_writeback()
        await driver_settled(engine, driver)
        assert "so will the next flush" in caplog.text
        with pytest.raises(AluError) as caught:
            await engine.flush(driver)
        assert (caught.value.op, caught.value.errno) in [(AluOp.FLUSH, errno.EIO), (AluOp.FLUSH, errno.ENOSPC)]
        await engine.flush(driver)

    with (
        mounted(disk / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder,
        loop_device(folder / "backing", 2 * CHUNK) as device,
    ):
        with_engine(choice, scenario)


@pytest.mark.root
@backends
def test_a_durable_write_leaves_the_next_flush_what_it_has_to_tell(disk: Path, choice: BackendChoice) -> None:
    """D1: FUA writes and dirty bits sync by the way; what was lost before them concerns others."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(device, direct=False)
        assert isinstance(driver, DescriptorDriver)
        await engine.write(driver, 0, [view(b"x" * 4096)], durable=True)
        assert driver.write_now(0, view(b"x" * CHUNK))  # more than there is room for below the device
        assert driver.start_writeback()
        await driver_settled(engine, driver)
        with suppress(AluError):  # the first one may hear of it, too
            await engine.write(driver, 0, [view(b"y" * 4096)], durable=True)
        await engine.write(driver, 0, [view(b"z" * 4096)], durable=True)
        with pytest.raises(AluError):
            await engine.flush(driver)

    with (
        mounted(disk / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder,
        loop_device(folder / "backing", 2 * CHUNK) as device,
    ):
        with_engine(choice, scenario)


@backends
def test_release_waits_for_it(disk: Path, choice: BackendChoice, held: HeldWriteback) -> None:
    """The descriptor is not closed under a write-back."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=64 << 20)
        assert isinstance(driver, DescriptorDriver)
        spend_budget(driver, view(bytes(CHUNK)))
        await asyncio.to_thread(held.begun.wait)
        release = asyncio.create_task(engine.release(driver))
        await asyncio.sleep(0)
        closed_before = driver.closed
        held.let_go()
        await release
        assert (closed_before, driver.closed, held.ended) == (False, True, [driver.fd])

    with_engine(choice, scenario)


def test_without_an_engine_one_budget_is_all(disk: Path) -> None:
    """A driver that no engine has taken on has nobody to write back for it."""
    driver = open_file(str(disk / "alu"), size_bytes=64 << 20)
    assert spend_budget(driver, view(bytes(CHUNK))) == DIRTY_BYTES
    driver.close()


def test_the_real_write_back(disk: Path) -> None:
    """sync_file_range works on what we open, and says so when it does not."""
    driver = open_file(str(disk / "alu"), size_bytes=1 << 20)
    driver.write_now(0, view(bytes(1 << 20)))
    space.write_back(driver.fd)
    driver.close()
    with pytest.raises(FileNotFoundError):
        space.write_back(driver.fd)


def test_a_small_alu_needs_no_budget(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pages written again and again are no more dirty than once."""
    monkeypatch.setattr(descriptor, "dirty_budget", lambda: 64 << 20)
    driver = open_file(str(disk / "alu"), size_bytes=64 << 20)
    content = view(bytes(CHUNK))
    assert all(driver.write_now(0, content) for _ in range(20))
    driver.close()
