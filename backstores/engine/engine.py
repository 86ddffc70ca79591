"""Carries I/O on ALUs out in the event loop (R1).

What fits the page cache is done at once by the driver's own ``read_now`` and ``write_now``; all that may have
to wait comes here, and goes to a backend: io_uring where it was built and the kernel allows it, else threads.
The engine goes on after short transfers, names the first byte that failed, and copies through aligned memory
what O_DIRECT would not take as it is.

It keeps no order between operations: callers lock the ranges they work on.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from backstores.alu.array import open_array
from backstores.alu.base import AluDriver, AluError, AluOp, ByteRun, Transfers
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.opening import open_alu
from backstores.alu.untouched import open_guard, open_writable
from backstores.alu.url import is_url
from backstores.engine.bounce import BUFFER_BYTES, BouncePool, after, gather, scatter
from backstores.engine.choice import BackendChoice, make_backend
from backstores.errors import UsageError

VIEWS_LIMIT: Final = 1024  # IOV_MAX of Linux: so many views go in one system call
DEPTH: Final = 128  # operations of one ALU under way: one that hangs must not use up what all share
NO_FD: Final = -1  # the lane of calls that concern no descriptor yet

D = TypeVar("D", bound=AluDriver)
P = ParamSpec("P")
T = TypeVar("T")
Attempt = Callable[[Sequence[memoryview], int], Awaitable[int]]


class Engine:
    """Serves any number of drivers. Made, used and closed within one running event loop."""

    def __init__(self, choice: BackendChoice = BackendChoice.AUTO) -> None:
        self._backend = make_backend(choice)
        self.backend = self._backend.name
        self._bounce = BouncePool()
        self._lanes: dict[AluDriver, _Lane] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(
        self, path: str, *, size_bytes: int | None = None, grow: bool = False, direct: bool | None = None
    ) -> AluDriver:
        """Open an ALU without holding the event loop up; see ``open_alu``, and ``open_array`` for URLs.

        Raises:
            UsageError: the path can't be used as asked; nothing has changed.
        """
        if is_url(path):
            if size_bytes is not None or grow or direct:
                raise UsageError("a unit of a target has the size it has, and no page cache here; leave these out")
            driver = await open_array(path)
            self._lane(driver)
            return driver
        return await self._take_on(partial(open_alu, path, size_bytes=size_bytes, grow=grow, direct=direct))

    async def open_guard(self, path: str) -> DescriptorDriver:
        """Open an ALU that must not be touched; see ``open_guard`` in ``backstores.alu.untouched``.

        Raises:
            UsageError: the path can't be used.
        """
        return await self._take_on(partial(open_guard, path))

    async def open_writable(self, guard: DescriptorDriver) -> DescriptorDriver:
        """Open what a guard keeps to be written, too. It is released before the guard.

        Raises:
            UsageError: it may not be written.
        """
        return await self._take_on(partial(open_writable, guard))

    async def _take_on(self, opener: Callable[[], D]) -> D:
        opened: list[D] = []

        def work() -> None:
            opened.append(opener())

        try:
            await self._backend.call(NO_FD, work)
        except asyncio.CancelledError:
            for driver in opened:  # nobody else would ever give its lock back
                driver.close()
            raise
        self._lane(opened[0])
        return opened[0]

    async def release(self, driver: AluDriver) -> None:
        """Refuse new operations, wait for those under way, and close the driver. Flushes nothing."""
        lane = self._lane(driver)
        if lane.closing:
            await lane.closed.wait()
            return
        lane.closing = True
        for _ in range(DEPTH):  # the gate lets in by turns: this comes behind all who were accepted
            await lane.gate.acquire()
        await lane.transfers.settle()
        del self._lanes[driver]
        driver.close()
        lane.closed.set()

    async def close(self) -> None:
        """Release all drivers and end the backend."""
        for driver in list(self._lanes):
            await self.release(driver)
        await self._backend.close()

    async def read(self, driver: AluDriver, offset: int, views: Sequence[memoryview]) -> None:
        """Fill the views, one after the other, from ``offset`` on.

        Raises:
            AluError: the bytes before its offset were read.
        """
        lane = self._lane(driver)
        lane.check(AluOp.READ, offset, sum(map(len, views)))
        async with lane.gate:
            await self._move(driver, AluOp.READ, offset, views, lane.transfers.readv)

    async def write(self, driver: AluDriver, offset: int, views: Sequence[memoryview], durable: bool = False) -> None:
        """Write the views, one after the other, from ``offset`` on. ``durable``: on stable storage when it returns.

        Raises:
            AluFull: there is no room from its offset on.
            AluError: the bytes before its offset were written.
        """
        lane = self._lane(driver)
        lane.check(AluOp.WRITE, offset, sum(map(len, views)))
        async with lane.gate:
            writev = lane.transfers.writev
            await self._move(driver, AluOp.WRITE, offset, views, lambda part, at: writev(part, at, durable))

    async def flush(self, driver: AluDriver, heard: int | None = None) -> None:
        """Make all that was written durable.

        Storage tells only once that it has lost something, to whoever flushes next; but volumes and metadata share
        an ALU. So losses are counted, and who has ``heard`` of fewer than there were is told of the last.

        Raises:
            AluError: something that was acknowledged may not be on stable storage.
        """
        lane = self._lane(driver)
        lane.check(AluOp.FLUSH, 0, 0)
        heard = lane.losses if heard is None else heard
        async with lane.gate:
            await lane.flush()
        if lane.losses > heard:
            raise AluError.of(driver.path, AluOp.FLUSH, 0, lane.lost_by)

    def losses(self, driver: AluDriver) -> int:
        """Say how many flushes of an ALU have failed."""
        return self._lane(driver).losses

    async def discard(self, driver: AluDriver, offset: int, length: int) -> None:
        """Give the space of a range back; it reads as zeros.

        Raises:
            AluError: the bytes from its offset on may be what they were.
        """
        lane = self._lane(driver)
        lane.check(AluOp.DISCARD, offset, length)
        async with lane.gate:
            if length:
                await lane.transfers.discard(offset, length)

    async def zero(self, driver: AluDriver, offset: int, length: int) -> None:
        """Make a range read as zeros, its space kept.

        Raises:
            AluError: the bytes from its offset on may be what they were.
        """
        lane = self._lane(driver)
        lane.check(AluOp.ZERO, offset, length)
        async with lane.gate:
            if length:
                await lane.transfers.zero(offset, length)

    async def status(self, driver: AluDriver, offset: int, length: int) -> list[ByteRun]:
        """Tell what of a range is backed by storage, in order and without gaps.

        Raises:
            AluError: the storage can't be asked.
        """
        lane = self._lane(driver)
        lane.check(AluOp.STATUS, offset, length)
        async with lane.gate:
            return await lane.transfers.status(offset, length) if length else []

    async def call(self, driver: DescriptorDriver, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function that concerns an ALU in a worker; the ALU is not released before it ends.

        Raises:
            AluError: the ALU is closed. What else the function raises is raised here.
        """
        lane = self._lane(driver)
        lane.check(AluOp.STATUS, 0, 0)
        async with lane.gate:
            return await self._backend.call(driver.fd, function, *args, **kwargs)

    def exclusive(self, driver: AluDriver, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """Keep out who else asks for this range, in this process or another. Entering it raises AluError."""
        lane = self._lane(driver)
        lane.check(AluOp.LOCK, offset, length)
        return lane.transfers.exclusive(offset, length)

    def _lane(self, driver: AluDriver) -> _Lane:
        lane = self._lanes.get(driver)
        if lane is None:
            lane = self._lanes[driver] = _Lane(driver, driver.transfers(self._backend))
        return lane

    async def _move(
        self, driver: AluDriver, op: AluOp, offset: int, views: Sequence[memoryview], once: Attempt
    ) -> None:
        """Transfer all bytes, however many attempts that takes."""
        views = [view for view in views if view]  # an empty one would look like the end of the storage
        while views:
            part = views[:VIEWS_LIMIT]
            answer = await once(part, offset)
            if answer == -errno.EINVAL and driver.direct:
                # Which memory O_DIRECT takes depends on device and kernel: asking it costs nothing where it does.
                answer = await self._bounced(op, part, offset, once)
            if answer > 0:
                offset += answer
                views = after(views, answer)
            elif answer == 0:
                raise AluError(driver.path, op, offset, errno.EIO, "the storage ends here; it has become smaller")
            elif answer != -errno.EINTR:
                raise AluError.of(driver.path, op, offset, -answer)

    async def _bounced(self, op: AluOp, views: Sequence[memoryview], offset: int, once: Attempt) -> int:
        """Transfer once through aligned memory."""
        length = min(sum(map(len, views)), BUFFER_BYTES)
        async with self._bounce.buffer(length) as buffer:
            if op is AluOp.WRITE:
                gather(views, buffer)
            answer = await once((buffer,), offset)
            if op is AluOp.READ and answer > 0:
                scatter(buffer[:answer], views)
            return answer


class _Lane:
    """What the engine keeps of one driver."""

    def __init__(self, driver: AluDriver, transfers: Transfers) -> None:
        self.transfers = transfers
        self.gate = asyncio.Semaphore(DEPTH)
        self.closing = False
        self.closed = asyncio.Event()
        self.losses = 0  # flushes that failed
        self.lost_by = 0  # errno of the last one
        self._driver = driver
        self._flushing = asyncio.Lock()
        self._begun = self._ended = 0  # flushes; they end in the order in which they begin

    def check(self, op: AluOp, offset: int, length: int) -> None:
        """Refuse what must not reach the storage: metadata may lie about where things are."""
        path, size_bytes = self._driver.path, self._driver.size_bytes
        if self.closing or self._driver.closed:
            raise AluError(path, op, offset, errno.ENODEV, "the ALU is closed")
        if offset < 0 or offset + length > size_bytes:
            raise AluError(path, op, offset, errno.EINVAL, f"{length} bytes reach past the end ({size_bytes})")

    async def flush(self) -> None:
        """Flush, one at a time: all who ask while one runs share the next, and what it is told."""
        enough = self._begun + 1
        async with self._flushing:
            if self._ended >= enough:
                return
            self._begun += 1
            outcome = asyncio.ensure_future(self.transfers.sync())
            try:
                await outcome
            finally:  # who was cancelled has used the storage's one message up, all the same
                if outcome.done() and not outcome.cancelled():
                    self._ended = self._begun
                    self._count(outcome.result())

    def _count(self, answer: int) -> None:
        if answer < 0:
            self.losses += 1
            self.lost_by = -answer
