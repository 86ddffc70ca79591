"""Orders are repeated until they are answered, and answered once (R9)."""

from __future__ import annotations

from appliance.control.orders import Ordered, Scan
from appliance.control.reports import Done, Refused
from appliance.vcm.courier import AGAIN_S, Answer, Courier, Lost
from appliance.vcm.vocabulary import Tell

SCAN = Scan(paths=())


class Desk:
    """A courier, and what came of its orders."""

    def __init__(self) -> None:
        self.courier = Courier(incarnation=7)
        self.courier.meet("sp1", 3)
        self.answers: list[Answer] = []

    def order(self) -> None:
        """Give an order."""
        self.courier.order("sp1", SCAN, self.answers.append)

    def sent(self) -> list[tuple[int, int]]:
        """Take what was sent: number and settled."""
        told, self.courier.effects = self.courier.effects, []
        bodies = [effect.message.body for effect in told if isinstance(effect, Tell)]
        return [(body.number, body.settled) for body in bodies if isinstance(body, Ordered)]


def test_an_order_goes_to_the_process_that_was_met() -> None:
    desk = Desk()
    desk.order()
    [effect] = desk.courier.effects
    assert isinstance(effect, Tell)
    assert (effect.message.vcm, effect.message.incarnation) == (7, 3)


def test_it_is_sent_again_until_it_is_answered() -> None:
    """R9: the order or its answer may have been lost."""
    desk = Desk()
    desk.order()
    desk.courier.tick(AGAIN_S / 2)
    assert desk.sent() == [(1, 1)]
    desk.courier.tick(AGAIN_S)
    assert desk.sent() == [(1, 1)]
    desk.courier.answered("sp1", Done(number=1))
    desk.courier.tick(2 * AGAIN_S)
    assert desk.sent() == []


def test_each_answer_is_passed_on_once() -> None:
    desk = Desk()
    desk.order()
    refused = Refused(number=1, reason="no")
    desk.courier.answered("sp1", refused)
    desk.courier.answered("sp1", refused)
    desk.courier.answered("sp2", Done(number=1))
    assert desk.answers == [refused]


def test_the_receiver_is_told_up_to_where_all_is_answered() -> None:
    """So that it may forget its answers."""
    desk = Desk()
    for _ in range(3):
        desk.order()
    desk.courier.answered("sp1", Done(number=1))
    desk.courier.answered("sp1", Done(number=3))
    desk.sent()
    desk.order()
    assert desk.sent() == [(4, 2)]


def test_what_a_lost_storage_processor_was_ordered_is_lost() -> None:
    desk = Desk()
    desk.order()
    desk.order()
    desk.courier.lose("sp1", "it died")
    assert desk.answers == [Lost("it died")] * 2
    assert desk.courier.waiting() == []
