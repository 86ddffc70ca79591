"""Virtual time: what is to happen, in its order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(slots=True)
class Clock:
    """A queue of things to do. What is due at the same time is done in the order in which it was asked for."""

    now_s: float = 0.0
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def after(self, wait_s: float, do: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._queue, (self.now_s + wait_s, next(self._order), do))

    def step(self) -> bool:
        """Do what is due next; False if there is nothing."""
        if not self._queue:
            return False
        self.now_s, _, do = heapq.heappop(self._queue)
        do()
        return True
