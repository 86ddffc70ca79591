"""Who may begin to work on a volume, and who waits, while it is held (D7; steps 1502 to 1508 and 1512): the decisions.

A request comes as a *visitor*. Before it touches a leg it asks to *begin*, afterwards it says that it has *ended*; what
it waits for in between (a range, a record that a leg has failed) is no work, for that may well wait for the volume to
be resumed. While the volume is held nobody begins: visitors wait in order, so many as the limits say and as long as
they say. Who exceeds them is refused, which a host takes as "ask again".

    OPEN --hold--> CLOSING --quiet--> HELD --resume--> OPEN          SHUT is for good

What takes long (a resynchronization) begins with each step anew, and when it is refused it waits for the next
opening. The *owner*, who takes the volume off line, is never kept waiting.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

W = TypeVar("W", bound=Hashable)


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How many visitors may wait at a volume that is held, and for how long after it was."""

    most_waiting: int = 1024
    longest_s: float = 10.0


class Passage(enum.Enum):
    """How a gate stands."""

    OPEN = "open"
    CLOSING = "closing"  # nobody begins, somebody is at work still
    HELD = "held"  # nobody is at work
    SHUT = "shut"


class Event(enum.Enum):
    """What changes that."""

    HOLD = "hold"
    QUIET = "quiet"  # the last one has ended
    RESUME = "resume"
    SHUT = "shut"


PASSAGES: Final[Mapping[Passage, Mapping[Event, Passage]]] = {
    Passage.OPEN: {Event.HOLD: Passage.CLOSING, Event.RESUME: Passage.OPEN, Event.SHUT: Passage.SHUT},
    Passage.CLOSING: {
        Event.HOLD: Passage.CLOSING,
        Event.QUIET: Passage.HELD,
        Event.RESUME: Passage.OPEN,
        Event.SHUT: Passage.SHUT,
    },
    Passage.HELD: {Event.HOLD: Passage.HELD, Event.RESUME: Passage.OPEN, Event.SHUT: Passage.SHUT},
    Passage.SHUT: {Event.HOLD: Passage.SHUT, Event.RESUME: Passage.SHUT, Event.SHUT: Passage.SHUT},
}


class Gate(Generic[W]):
    """The gate of one volume. ``W`` stands for one who waits to begin."""

    def __init__(self) -> None:
        self.passage = Passage.OPEN
        self._at_work = 0
        self._waiting: dict[W, None] = {}
        self._late: set[Hashable] = set()  # visitors that have come since it was closed, and are still there
        self._limits = HoldLimits()
        self._expired = False

    # Visitors

    def arrive(self, visitor: Hashable) -> bool:
        """Let a visitor in, if there is room; False: it is refused."""
        if self.passage is Passage.OPEN:
            return True
        if self.passage is Passage.SHUT or self._expired or len(self._late) >= self._limits.most_waiting:
            return False
        self._late.add(visitor)
        return True

    def depart(self, visitor: Hashable) -> None:
        """Let a visitor go."""
        self._late.discard(visitor)

    def begin(self, *, owner: bool = False) -> bool:
        """Ask to begin; False: one has to wait."""
        if self.passage is Passage.OPEN or owner:
            self._at_work += 1
            return True
        return False

    def wait(self, waiter: W) -> bool:
        """Wait to begin, behind those who wait already; False: it is refused."""
        if self.passage is Passage.SHUT or self._expired:
            return False
        self._waiting[waiter] = None
        return True

    def forget(self, waiter: W) -> None:
        """Let one who waits give up."""
        self._waiting.pop(waiter, None)

    def end(self) -> None:
        """Hear that one who had begun has ended."""
        assert self._at_work > 0, "nobody is at work"
        self._at_work -= 1
        self._look_if_quiet()

    # The volume's holder

    def hold(self, limits: HoldLimits) -> None:
        """Let nobody begin any more. Once the passage is HELD, nobody is at work."""
        self._limits, self._expired = limits, False
        self._to(Event.HOLD)
        self._look_if_quiet()

    def expire(self) -> list[W]:
        """Hear that the limits' time is over: give those who are refused now. The volume stays held."""
        self._expired = self.passage is not Passage.OPEN
        return self._emptied()

    def resume(self) -> list[W]:
        """Open the gate: give those who have waited, in order. They are at work now."""
        self._to(Event.RESUME)
        begun = self._emptied()
        self._late.clear()
        self._at_work += len(begun)
        return begun

    def shut(self) -> list[W]:
        """Let nobody in any more: give those who have waited, and are refused."""
        self._to(Event.SHUT)
        return self._emptied()

    def _emptied(self) -> list[W]:
        waited = list(self._waiting)
        self._waiting.clear()
        return waited

    def _look_if_quiet(self) -> None:
        if self.passage is Passage.CLOSING and not self._at_work:
            self._to(Event.QUIET)

    def _to(self, event: Event) -> None:
        self.passage = PASSAGES[self.passage][event]
