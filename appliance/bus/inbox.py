"""Events between the task that receives and whoever iterates over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Generic, TypeVar

MOST_WAITING: Final = 1024  # then nothing more is received, and senders get to feel it

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue that is never full for who must not wait, and tells who can."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._events: deque[T] = deque()
        self._closed = False
        self._failure: BaseException | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: T) -> None:
        """Add an event."""
        self._events.append(event)
        self._arrived.set()
        if len(self._events) >= self._most:
            self._room.clear()

    async def room(self) -> None:
        """Wait until there is room."""
        await self._room.wait()

    def close(self, failure: BaseException | None = None) -> None:
        """End the iteration when what is in here has been taken, or have it raise a failure then."""
        self._closed = True
        self._failure = failure
        self._arrived.set()

    def watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that feeds this inbox: should it fail, whoever iterates must know."""
        task = asyncio.create_task(work)
        task.add_done_callback(lambda done: None if done.cancelled() else self.close(done.exception()))
        return task

    def __aiter__(self) -> Inbox[T]:
        return self

    async def __anext__(self) -> T:
        while not self._events:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if len(self._events) < self._most:
            self._room.set()
        return event
