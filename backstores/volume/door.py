"""The gate of a volume at work: requests wait here while the volume is held. ``gate`` decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from backstores.block import BlockError, Busy, Offline
from backstores.errors import UsageError
from backstores.volume.gate import Gate, HoldLimits, Passage

Waiter = asyncio.Future[None]


class Door:
    """Every request to a volume comes by here, except for those of the hot path, which is off while it is not open."""

    def __init__(self) -> None:
        self._gate: Gate[Waiter] = Gate()
        self._changed = asyncio.Event()  # set whenever the passage may have become another
        self._since_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handed_over = False

    @property
    def is_open(self) -> bool:
        """Whether everybody passes."""
        return self._gate.passage is Passage.OPEN

    @property
    def is_shut(self) -> bool:
        """Whether nobody will ever pass again."""
        return self._gate.passage is Passage.SHUT

    @property
    def held_for_s(self) -> float:
        """How long it has been closed; 0 while it is open."""
        return 0.0 if self._since_s is None else asyncio.get_running_loop().time() - self._since_s

    # Requests

    @contextmanager
    def visit(self, lba: int) -> Iterator[None]:
        """Let a request in, which then may ``begin`` as often as it likes.

        Raises:
            Busy: too many wait already, or they have waited for too long.
            Offline: the volume will not serve again.
        """
        visitor = object()
        if not self._gate.arrive(visitor):
            raise self._refusal(lba, begun=False)
        try:
            yield
        finally:
            self._gate.depart(visitor)

    async def begin(self, lba: int, *, owner: bool = False, begun: bool = False) -> None:
        """Wait until work may begin; ``end`` says that it has ended. ``begun``: some of the whole may be done already.

        Raises:
            Busy: that took too long.
            Offline: the volume will not serve again.
        """
        if self._gate.begin(owner=owner):
            return
        waiter: Waiter = asyncio.get_running_loop().create_future()
        if not self._gate.wait(waiter):
            raise self._refusal(lba, begun)
        try:
            await waiter
        except asyncio.CancelledError:
            self._gate.forget(waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.end()  # it was let in, and cancelled before it heard of that
            raise
        except _Refused:
            raise self._refusal(lba, begun) from None

    def end(self) -> None:
        """Say that what had begun has ended."""
        self._gate.end()
        self._changed.set()

    async def opened(self) -> None:
        """Wait until it is open, or shut.

        Raises:
            Offline, Busy: it is shut.
        """
        while self._gate.passage not in (Passage.OPEN, Passage.SHUT):
            self._changed.clear()
            await self._changed.wait()
        if self.is_shut:
            raise self._refusal(0, begun=False)

    # The volume's holder

    def close(self, limits: HoldLimits) -> None:
        """Let nobody begin any more."""
        self._gate.hold(limits)
        loop = asyncio.get_running_loop()
        if self._since_s is None:
            self._since_s = loop.time()
        self._stop_timer()
        self._timer = loop.call_later(limits.longest_s, self._expire)

    async def hold(self, limits: HoldLimits) -> None:
        """Let nobody begin any more, and wait until nobody is at work. Who is cancelled meanwhile leaves it held.

        Raises:
            UsageError: somebody has resumed it, or taken it off line, before that.
        """
        self.close(limits)
        while self._gate.passage is Passage.CLOSING:
            self._changed.clear()
            await self._changed.wait()
        if self._gate.passage is not Passage.HELD:
            raise UsageError(f"what was to be held is {self._gate.passage.value}")

    def resume(self) -> None:
        """Let those who wait go on, in order."""
        self._stop_timer()
        self._since_s = None
        for waiter in self._gate.resume():
            if waiter.cancelled():
                self._gate.end()
            else:
                waiter.set_result(None)
        self._changed.set()

    def shut(self, *, handed_over: bool = False) -> None:
        """Refuse those who wait, and all who will come; ``handed_over``: another one serves, so they may ask again."""
        self._stop_timer()
        self._handed_over = handed_over
        self._refuse(self._gate.shut())
        self._changed.set()

    def _expire(self) -> None:
        self._refuse(self._gate.expire())

    def _refuse(self, waiters: Iterable[Waiter]) -> None:
        for waiter in waiters:
            if not waiter.cancelled():
                waiter.set_exception(_Refused())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refusal(self, lba: int, begun: bool) -> BlockError:
        if self.is_shut and not self._handed_over:
            return Offline("the volume is off line", lba)
        return Busy("the volume is held, and too many wait, or for too long", lba, begun=begun)


class _Refused(Exception):
    """What one who waits is told; it knows best for which block it has waited."""
