"""Unit attention conditions: what one nexus has yet to be told about a unit (SAM-5 clause 5.14).

Each condition waits once, however often it arose. A reset tells a host all there is to know, so it
takes the place of what waited before it; everything else is told in the order in which it arose.
"""

from __future__ import annotations

from typing import Final

from backstores.scsi.sense import Condition

RESETS: Final = (
    Condition.POWER_ON_OCCURRED,
    Condition.RESET_OCCURRED,
    Condition.BUS_RESET_OCCURRED,
    Condition.UNIT_RESET_OCCURRED,
)
"""From the strongest to the weakest."""


class Attentions:
    """The conditions that wait for one nexus at one unit."""

    def __init__(self) -> None:
        self._waiting: list[Condition] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def establish(self, condition: Condition) -> None:
        """Let a condition wait until it has been told."""
        if condition in RESETS:
            resets = [waiting for waiting in self._waiting if waiting in RESETS]
            self._waiting = [min([*resets, condition], key=RESETS.index)]
        elif condition not in self._waiting:
            self._waiting.append(condition)

    def take(self) -> Condition | None:
        """Give the next condition to tell, which then no longer waits."""
        return self._waiting.pop(0) if self._waiting else None

    def clear(self, condition: Condition) -> None:
        """Forget a condition that the host has learned of in another way."""
        self._waiting = [waiting for waiting in self._waiting if waiting is not condition]
