"""Orders that are repeated until they are answered, and what else the VCM wants done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from appliance.control.orders import Order, Ordered, ToSp, TurnedAway, Welcome, WhoIsThere
from appliance.control.reports import Done, Refused
from appliance.vcm.vocabulary import Effect, Log, Tell

AGAIN_S: Final = 1.0
"""How long an answer may take until the order is sent again: it, or the answer, may have been lost."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Whether the order was carried out is not known, and no longer matters: the storage processor is gone."""

    reason: str


Answer = Done | Refused | Lost
Then = Callable[[Answer], None]


@dataclass(slots=True)
class _Pending:
    order: Order
    then: Then
    sent_s: float


@dataclass(slots=True)
class Courier:
    """Sends for the VCM. ``incarnation`` is higher than that of each earlier VCM."""

    incarnation: int
    now_s: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    _incarnations: dict[str, int] = field(default_factory=dict)
    _pending: dict[str, dict[int, _Pending]] = field(default_factory=dict)
    _number: int = 0

    def log(self, text: str, *, serious: bool = False) -> None:
        """Note something for people."""
        self.effects.append(Log(text, serious))

    def meet(self, sp: str, incarnation: int) -> None:
        """Take a storage processor's process for the one to whom orders go."""
        self._incarnations[sp] = incarnation

    def tell(self, sp: str, body: Welcome | TurnedAway | WhoIsThere, incarnation: int) -> None:
        """Send what is no order, once."""
        self.effects.append(Tell(sp, ToSp(self.incarnation, incarnation, body)))

    def order(self, sp: str, order: Order, then: Then) -> None:
        """Send an order. ``then`` is called once, with the answer."""
        self._number += 1
        self._pending.setdefault(sp, {})[self._number] = _Pending(order, then, self.now_s)
        self._send(sp, self._number)

    def _send(self, sp: str, number: int) -> None:
        pending = self._pending[sp]
        settled = next(iter(pending))  # the oldest that waits for its answer
        body = Ordered(number=number, settled=settled, order=pending[number].order)
        self.effects.append(Tell(sp, ToSp(self.incarnation, self._incarnations[sp], body)))

    def answered(self, sp: str, answer: Done | Refused) -> None:
        """Pass an answer on; one that was passed on before is left alone."""
        pending = self._pending.get(sp, {}).pop(answer.number, None)
        if pending is not None:
            pending.then(answer)

    def lose(self, sp: str, reason: str) -> None:
        """Give up what a storage processor was ordered, and will not answer."""
        for pending in self._pending.pop(sp, {}).values():
            pending.then(Lost(reason))

    def tick(self, now_s: float) -> None:
        """Send again what was not answered for a while."""
        self.now_s = now_s
        for sp, pending in self._pending.items():
            for number, waiting in pending.items():
                if now_s - waiting.sent_s >= AGAIN_S:
                    waiting.sent_s = now_s
                    self._send(sp, number)

    def waiting(self) -> list[tuple[str, str]]:
        """Say which orders have not been answered, for people: the storage processor, the order."""
        return [(sp, type(one.order).__name__) for sp, pending in self._pending.items() for one in pending.values()]
