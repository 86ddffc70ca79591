"""What storage processors prove themselves with to each other (CHAP), made anew by each VCM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Secrets:
    """One secret for each pair. ``make`` gives a new one that nobody can guess."""

    make: Callable[[], str]
    _known: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def of(self, initiator: str, target: str) -> str:
        """Give the secret by which one is let in by the other."""
        pair = (initiator, target)
        if pair not in self._known:
            self._known[pair] = self.make()
        return self._known[pair]

    def knows(self, initiator: str, target: str) -> bool:
        """Whether there is one that was made by this VCM."""
        return (initiator, target) in self._known
