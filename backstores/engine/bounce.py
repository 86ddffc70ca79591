"""Aligned memory for O_DIRECT, which takes no buffer that begins or ends in the middle of a sector.

The buffers are anonymous mappings, so they begin at a page, and there are few of them: who finds none free
waits for one.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

BUFFER_BYTES: Final = 1 << 20
BUFFERS: Final = 16


class BouncePool:
    """Hands page-aligned buffers out."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(BUFFERS)
        self._free: list[memoryview] = []

    @asynccontextmanager
    async def buffer(self, length: int) -> AsyncIterator[memoryview]:
        """Lend an aligned buffer of ``length`` bytes, or of ``BUFFER_BYTES`` if that is less."""
        async with self._gate:
            whole = self._free.pop() if self._free else memoryview(mmap.mmap(-1, BUFFER_BYTES))
            try:
                yield whole[:length]
            finally:
                self._free.append(whole)


def after(views: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """Give what follows the first ``count`` bytes of the views."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return ()


def gather(views: Sequence[memoryview], into: memoryview) -> None:
    """Copy the views one behind the other, as much as ``into`` takes."""
    at = 0
    for view in views:
        part = view[: len(into) - at]
        into[at : at + len(part)] = part
        at += len(part)


def scatter(data: memoryview, views: Sequence[memoryview]) -> None:
    """Fill the views one after the other, as far as the data goes."""
    at = 0
    for view in views:
        part = data[at : at + len(view)]
        view[: len(part)] = part
        at += len(part)
