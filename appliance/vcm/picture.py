"""What the MIC knows of the system: told once, and again as it changes.

What changes several times in one step is told once. Messages are numbered without a gap, so that the MIC sees when one
was lost, and asks for all of it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from appliance.control.requests import Answer, Delta, PictureBegins, PictureEnds, Progress, ToMic
from appliance.vcm.courier import Courier
from appliance.vcm.vocabulary import TellMic

Draw = Callable[[], Delta | None]
"""Makes the message for one thing as it is now; None if there is nothing to tell of it yet."""


@dataclass(slots=True)
class Picture:
    """Tells the MIC. ``everything`` draws all that there is."""

    courier: Courier
    everything: Callable[[], Iterator[Delta]]
    incarnation: int = 0  # of the MIC; 0: none was heard of
    _serial: int = 0
    _changed: dict[tuple[str, str], Draw] = field(default_factory=dict)

    def meet(self, incarnation: int) -> bool:
        """Speak to this incarnation of the MIC from now on; False if a later one was heard of."""
        if incarnation > self.incarnation:
            self.incarnation, self._serial = incarnation, 0
        return incarnation == self.incarnation

    def changed(self, kind: str, name: str, draw: Draw) -> None:
        """Take note that something is to be told of."""
        self._changed[kind, name] = draw

    def tell(self, body: Answer | Progress | PictureBegins | PictureEnds | Delta) -> None:
        """Tell something now, behind all that has changed before."""
        self.flush()
        self._send(body)

    def flush(self) -> None:
        """Tell all that has changed."""
        changed, self._changed = self._changed, {}
        for draw in changed.values():
            delta = draw()
            if delta is not None:
                self._send(delta)

    def show_all(self) -> None:
        """Tell everything from the beginning."""
        self._changed.clear()
        self._send(PictureBegins())
        for delta in self.everything():
            self._send(delta)
        self._send(PictureEnds())

    def _send(self, body: Answer | Progress | PictureBegins | PictureEnds | Delta) -> None:
        if self.incarnation:
            self._serial += 1
            message = ToMic(self.courier.incarnation, self.incarnation, self._serial, body)
            self.courier.effects.append(TellMic(message))
