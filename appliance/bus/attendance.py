"""Who is there, and in which incarnation: decides what becomes of a frame. Both ends of the bus use it; no I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from appliance.bus.frames import Head
from appliance.bus.liveness import Liveness
from appliance.bus.ports import Gone, Joined


class Verdict(enum.Enum):
    """What becomes of a frame."""

    WELCOME = enum.auto()
    WRONG_VERSION = enum.auto()
    SUPERSEDED = enum.auto()


@dataclass(slots=True)
class Attendance:
    """The others, by the names that their keys have."""

    version: int
    liveness: Liveness[str] = field(default_factory=Liveness)
    _incarnations: dict[str, int] = field(default_factory=dict)

    def arrived(self, peer: str, head: Head, now_s: float) -> tuple[Verdict, list[Joined | Gone]]:
        """Judge a frame by its head, and say what has changed by it.

        Of two processes with one name the later one counts, as long as it lives: the earlier one may have been
        stopped, and wake up.
        """
        if head.version != self.version:
            return Verdict.WRONG_VERSION, []
        known = self._incarnations.get(peer)
        if known is not None and head.incarnation < known:
            return Verdict.SUPERSEDED, []
        self.liveness.heard(peer, now_s)
        if head.incarnation == known:
            return Verdict.WELCOME, []
        self._incarnations[peer] = head.incarnation
        joined = Joined(peer, head.incarnation)
        return Verdict.WELCOME, [joined] if known is None else [Gone(peer, known), joined]

    def tick(self, now_s: float) -> list[Gone]:
        """Give those who have fallen silent."""
        return [Gone(peer, self._incarnations.pop(peer)) for peer in self.liveness.tick(now_s)]

    def __contains__(self, peer: str) -> bool:
        return peer in self._incarnations
