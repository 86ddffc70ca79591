"""Transfers by io_uring: no thread to wake, and one system call for all that a turn of the event loop brings.

What the kernel can do without waiting (a cached read) has ended before ``submit`` returns, so completions are
looked for at once; the eventfd reports the others. Calls that are no transfers go to a pool of threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, ParamSpec, TypeVar

from backstores.engine._ring import Ring
from backstores.engine.backend import Held
from backstores.engine.pool import Pool

ENTRIES: Final = 1024  # many ALUs at full depth; what exceeds it goes to the threads

P = ParamSpec("P")
T = TypeVar("T")


class RingBackend:
    """A ``backstores.alu.base.Backend`` on io_uring. Belongs to the running event loop.

    Raises:
        OSError: the kernel has no io_uring, or does not allow it (sysctl io_uring_disabled, seccomp).
    """

    name = "io_uring"

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._ring = Ring(ENTRIES, self._event_fd)
        except BaseException:
            os.close(self._event_fd)
            raise
        self._pool = Pool()
        self._submit_soon = False
        self._loop.add_reader(self._event_fd, self._completed)

    def readv(self, fd: int, views: Sequence[memoryview], offset: int) -> Awaitable[int]:
        outcome = Held(loop=self._loop)
        if not self._ring.readv(fd, views, offset, outcome):
            return self._pool.readv(fd, views, offset)
        return self._prepared(outcome)

    def writev(self, fd: int, views: Sequence[memoryview], offset: int, durable: bool) -> Awaitable[int]:
        outcome = Held(loop=self._loop)
        if not self._ring.writev(fd, views, offset, os.RWF_DSYNC if durable else 0, outcome):
            return self._pool.writev(fd, views, offset, durable)
        return self._prepared(outcome)

    def fdatasync(self, fd: int) -> Awaitable[int]:
        outcome = Held(loop=self._loop)
        if not self._ring.fdatasync(fd, outcome):
            return self._pool.fdatasync(fd)
        return self._prepared(outcome)

    async def call(self, fd: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._pool.call(fd, function, *args, **kwargs)

    async def close(self) -> None:
        """Give the ring back; nothing is under way any more."""
        self._loop.remove_reader(self._event_fd)
        self._ring.close()
        os.close(self._event_fd)
        await self._pool.close()

    def _prepared(self, outcome: Held) -> Held:
        if not self._submit_soon:
            self._submit_soon = True
            self._loop.call_soon(self._submit)
        return outcome

    def _submit(self) -> None:
        self._submit_soon = not self._ring.submit()
        if self._submit_soon:  # the kernel is short of memory, or its completions wait to be reaped
            self._loop.call_soon(self._submit)
        self._ring.reap()

    def _completed(self) -> None:
        os.eventfd_read(self._event_fd)
        self._ring.reap()
