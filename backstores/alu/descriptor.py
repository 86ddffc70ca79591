"""What drivers with a file descriptor share: files and block devices."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from backstores.alu import space
from backstores.alu.alone import Alone
from backstores.alu.base import AluDriver, AluOp, Backend, ByteRun, Hand, Kind, Transfers, never_beside, never_now
from backstores.alu.now import UNLIMITED, dirty_budget, page_cache

log = logging.getLogger(__name__)


class DescriptorDriver(AluDriver):
    """An ALU behind a locked descriptor, which it owns from now on."""

    def __init__(
        self,
        path: str,
        kind: Kind,
        fd: int,
        *,
        size_bytes: int,
        sector_bytes: int,
        physical_bytes: int,
        direct: bool,
        holes: bool,
        writable: bool = True,
    ) -> None:
        self.path = path
        self.kind = kind
        self.fd = fd
        self.size_bytes = size_bytes
        self.sector_bytes = sector_bytes
        self.physical_bytes = physical_bytes
        self.direct = direct
        self.holes = holes  # allocation can be asked for
        self.closed = False
        self.read_now: Callable[[int, memoryview], bool] = never_now
        self.write_now: Callable[[int, memoryview], bool] = never_now
        self.readv_now: Callable[[int, Sequence[memoryview]], bool] = never_now
        self.writev_now: Callable[[int, Sequence[memoryview]], bool] = never_now
        self.write_beside: Callable[[Hand, int, Sequence[memoryview]], bool] = never_beside
        self.start_writeback: Callable[[], bool] = lambda: False  # until an engine takes the driver on
        self._retire: Callable[[], None] = lambda: None
        if not direct:
            budget_bytes = dirty_budget()
            if size_bytes <= budget_bytes:
                budget_bytes = UNLIMITED  # it can't make more pages dirty than it has, however often they are written
            now = page_cache(fd, lambda: self.start_writeback(), budget_bytes)
            self.read_now, self.write_now, self.readv_now, self.writev_now, self.write_beside, self._retire = now
        # A durable write is told of pages that were lost before it, and each open file description is told once. This
        # one is for durable writes alone, so that the next flush on the other still hears of what concerns others (D1).
        self.durable_fd = reopened(fd, direct, os.O_RDWR if writable else os.O_RDONLY)

    def transfers(self, backend: Backend) -> Transfers:
        """Let the backend carry out what has to wait."""
        return DescriptorTransfers(self, backend)

    def close(self) -> None:
        """Close the descriptor, which drops its lock."""
        if not self.closed:
            self.closed = True
            self._retire()
            self.read_now = self.write_now = self.readv_now = self.writev_now = never_now
            self.write_beside = never_beside
            os.close(self.durable_fd)
            os.close(self.fd)


def reopened(fd: int, direct: bool, access: int = os.O_RDWR) -> int:
    """Open what a descriptor stands for once more, whatever its name is by now. The lock stays with the first."""
    return os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))


class DescriptorTransfers(Transfers):
    """The waiting transfers of a descriptor, and the write-back behind ``write_now``."""

    def __init__(self, driver: DescriptorDriver, backend: Backend) -> None:
        self._driver = driver
        self._backend = backend
        self._writeback: asyncio.Task[None] | None = None
        self._alone = Alone(driver.fd, driver.path, backend)
        driver.start_writeback = self._start_writeback

    def readv(self, views: Sequence[memoryview], offset: int) -> Awaitable[int]:
        return self._backend.readv(self._driver.fd, views, offset)

    def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> Awaitable[int]:
        fd = self._driver.durable_fd if durable else self._driver.fd
        return self._backend.writev(fd, views, offset, durable)

    def sync(self) -> Awaitable[int]:
        return self._backend.fdatasync(self._driver.fd)

    async def discard(self, offset: int, length: int) -> None:
        await self._clear(AluOp.DISCARD, offset, length)

    async def zero(self, offset: int, length: int) -> None:
        await self._clear(AluOp.ZERO, offset, length)

    async def _clear(self, op: AluOp, offset: int, length: int) -> None:
        fd = self._driver.fd
        await self._backend.call(fd, space.clear, fd, self._driver.path, op, offset, length)

    async def status(self, offset: int, length: int) -> list[ByteRun]:
        fd = self._driver.fd
        if not self._driver.holes:
            return [ByteRun(offset, length, True)]
        return await self._backend.call(fd, space.runs, fd, self._driver.path, offset, length)

    def exclusive(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        return self._alone.hold(offset, length)

    async def settle(self) -> None:
        if self._writeback is not None:
            await self._writeback

    def _start_writeback(self) -> bool:
        if self._writeback is not None:
            return False
        self._writeback = asyncio.create_task(self._write_back(), name=f"write-back of {self._driver.path}")
        return True

    async def _write_back(self) -> None:
        fd = self._driver.fd
        try:
            await self._backend.call(fd, space.write_back, fd)
        except OSError as error:
            log.error("write-back of %s failed (%s); so will the next flush", self._driver.path, error)
        finally:
            self._writeback = None
