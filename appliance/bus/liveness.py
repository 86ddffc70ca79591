"""Who is alive, by when each was heard last.

A process that has slept itself (a stopped process, a machine that was held) must not take its own sleep for the silence
of all others: a tick that comes much too late moves every deadline on by as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

BEAT_S: Final = 0.25
SILENCE_S: Final = 2.0  # of a process
ROUTE_SILENCE_S: Final = 0.75  # of one way to it: the other is taken before the process seems dead

K = TypeVar("K")


@dataclass(slots=True)
class Liveness(Generic[K]):
    """Of any number of others. ``now_s`` is any clock that never runs backwards."""

    silence_s: float = SILENCE_S
    beat_s: float = BEAT_S
    _heard_s: dict[K, float] = field(default_factory=dict)
    _ticked_s: float | None = None

    def heard(self, who: K, now_s: float) -> bool:
        """Note that someone was heard; True: it was not there before."""
        new = who not in self._heard_s
        self._heard_s[who] = now_s
        return new

    def forget(self, who: K) -> None:
        """Expect nothing of someone any more."""
        self._heard_s.pop(who, None)

    def __contains__(self, who: K) -> bool:
        return who in self._heard_s

    def tick(self, now_s: float) -> list[K]:
        """Give those who have fallen silent since the last tick, and forget them."""
        slept_s = 0.0 if self._ticked_s is None else max(0.0, now_s - self._ticked_s - 2 * self.beat_s)
        self._ticked_s = now_s
        if slept_s:
            self._heard_s = {who: min(now_s, heard_s + slept_s) for who, heard_s in self._heard_s.items()}
        silent = [who for who, heard_s in self._heard_s.items() if now_s - heard_s > self.silence_s]
        for who in silent:
            del self._heard_s[who]
        return silent
