"""Ranges of blocks that one writer at a time may hold.

First come, first served: a range waits for every overlapping one that asked before it, granted or
not, so that a steady stream of small writes can't starve a large hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RangeLocks:
    """Locks on [lba, lba + blocks). ``entries`` is public for the hot path, which asks only whether it is empty."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def busy(self) -> bool:
        """Whether any range is held or waited for."""
        return bool(self.entries)

    @asynccontextmanager
    async def hold(self, lba: int, blocks: int) -> AsyncIterator[None]:
        """Wait for the range, and keep it while the context lasts."""
        end = lba + blocks
        before = [released for first, last, released in self.entries if first < end and lba < last]
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (lba, end, released)
        self.entries.append(entry)
        try:
            for earlier in before:
                await asyncio.shield(earlier)
            yield
        finally:
            self.entries.remove(entry)
            released.set_result(None)
