"""Counts the states of a disk after a power cut that tests open: ``conftest`` tells them at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")


class Tally:
    """How many there were since somebody took the number."""

    def __init__(self) -> None:
        self._count = 0

    def each(self, states: Iterable[T]) -> Iterator[T]:
        """Count each state as it is asked for."""
        for state in states:
            self.one()
            yield state

    def one(self) -> None:
        """Count a state."""
        self._count += 1

    def take(self) -> int:
        """Give the number, and begin again."""
        count, self._count = self._count, 0
        return count


CRASH_STATES: Final = Tally()
