"""Transfers in worker threads: the backend that works everywhere.

A hop to a thread and back costs more than a cached read, so small transfers travel together: what the event
loop has collected for a descriptor is dealt out in chunks, and one wake-up of the loop ends a whole chunk.

Each descriptor has a lane of its own with a few workers at most. A disk that hangs keeps its lane's workers
and no others: one broken ALU never holds up the rest.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from backstores.engine.backend import Held

WORKERS: Final = 128  # threads come to be when they are needed
LANE_WORKERS: Final = 8  # chunks of one descriptor under way at once
CHUNK_JOBS: Final = 16
SMALL_BYTES: Final = 64 << 10  # larger transfers travel alone: their copying is worth a thread each

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """A ``backstores.alu.base.Backend`` on threads. Belongs to the running event loop."""

    name = "threads"

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(WORKERS, "alu")
        self._lanes: dict[int, _Lane] = {}

    def readv(self, fd: int, views: Sequence[memoryview], offset: int) -> Awaitable[int]:
        return self._put(fd, views, lambda: os.preadv(fd, views, offset))

    def writev(self, fd: int, views: Sequence[memoryview], offset: int, durable: bool) -> Awaitable[int]:
        flags = os.RWF_DSYNC if durable else 0
        return self._put(fd, views, lambda: os.pwritev(fd, views, offset, flags))

    def fdatasync(self, fd: int) -> Awaitable[int]:
        return self._lane(fd).put(lambda: _fdatasync(fd), alone=True)

    async def call(self, fd: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result: list[T] = []
        failure: list[Exception] = []

        def work() -> int:
            try:
                result.append(function(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - carried over to the caller's thread
                failure.append(error)
            return 0

        await self._lane(fd).put(work, alone=True)
        if failure:
            raise failure[0]
        return result[0]

    async def close(self) -> None:
        """End the workers; nothing is under way any more."""
        self._executor.shutdown()

    def _put(self, fd: int, views: Sequence[memoryview], transfer: Callable[[], int]) -> Held:
        return self._lane(fd).put(transfer, alone=sum(map(len, views)) > SMALL_BYTES)

    def _lane(self, fd: int) -> _Lane:
        lane = self._lanes.get(fd)
        if lane is None:
            lane = self._lanes[fd] = _Lane(self._loop, self._executor)
        return lane


def _fdatasync(fd: int) -> int:
    os.fdatasync(fd)
    return 0


@dataclass(slots=True)
class _Job:
    transfer: Callable[[], int]
    outcome: Held
    alone: bool
    answer: int | Exception = 0

    def run(self) -> None:
        """Transfer, in a worker."""
        try:
            self.answer = self.transfer()
        except OSError as error:
            self.answer = -(error.errno or errno.EIO)
        except Exception as error:  # noqa: BLE001 - a bug of ours, told in the caller's thread
            self.answer = error

    def settle(self) -> None:
        """Tell the outcome, in the event loop."""
        if isinstance(self.answer, int):
            self.outcome.set_result(self.answer)
        else:
            self.outcome.set_exception(self.answer)


class _Lane:
    """The jobs of one descriptor, dealt out in chunks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor) -> None:
        self._loop = loop
        self._executor = executor
        self._waiting: deque[_Job] = deque()
        self._running = 0
        self._deal_soon = False

    def put(self, transfer: Callable[[], int], alone: bool) -> Held:
        """Queue a job; it goes out with all others that this turn of the event loop brings."""
        outcome = Held(loop=self._loop)
        self._waiting.append(_Job(transfer, outcome, alone))
        if not self._deal_soon:
            self._deal_soon = True
            self._loop.call_soon(self._deal)
        return outcome

    def _deal(self) -> None:
        self._deal_soon = False
        while self._waiting and self._running < LANE_WORKERS:
            share = -(-len(self._waiting) // (LANE_WORKERS - self._running))
            self._running += 1
            self._executor.submit(self._work, self._chunk(min(share, CHUNK_JOBS)))

    def _chunk(self, size: int) -> list[_Job]:
        chunk = [self._waiting.popleft()]
        while len(chunk) < size and self._waiting and not (chunk[-1].alone or self._waiting[0].alone):
            chunk.append(self._waiting.popleft())
        return chunk

    def _work(self, chunk: list[_Job]) -> None:
        for job in chunk:
            job.run()
        self._loop.call_soon_threadsafe(self._ended, chunk)

    def _ended(self, chunk: list[_Job]) -> None:
        self._running -= 1
        for job in chunk:
            job.settle()
        self._deal()
