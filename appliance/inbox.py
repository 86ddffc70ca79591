"""Takes each order of a VCM once, though the bus may lose, delay, double and reorder it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from appliance.control.reports import Done, Refused


class Delivery(enum.Enum):
    """What an order that arrives is."""

    NEW = enum.auto()
    KNOWN = enum.auto()  # it is being carried out, or it was and the VCM knows
    ANSWERED = enum.auto()  # the answer may have been lost: give it again


@dataclass(slots=True)
class Inbox:
    """The orders of one incarnation of the VCM. Answers are kept until the VCM says that it has them."""

    vcm: int = 0
    answers: dict[int, Done | Refused | None] = field(default_factory=dict)
    _settled: int = 0

    def turn_to(self, vcm: int) -> None:
        """Take orders from a later incarnation, whose numbers begin anew."""
        self.vcm, self._settled = vcm, 0
        self.answers.clear()

    def deliver(self, number: int, settled: int) -> Delivery:
        """Say what to do about an order."""
        if settled > self._settled:
            self._settled = settled
            for old in [old for old in self.answers if old < settled]:
                del self.answers[old]
        if number < self._settled:
            return Delivery.KNOWN
        if number in self.answers:
            return Delivery.KNOWN if self.answers[number] is None else Delivery.ANSWERED
        self.answers[number] = None
        return Delivery.NEW

    def answer(self, answer: Done | Refused) -> bool:
        """Remember the answer to an order that was taken; False if nobody waits for it any more."""
        waited = answer.number in self.answers
        if waited:
            self.answers[answer.number] = answer
        return waited
