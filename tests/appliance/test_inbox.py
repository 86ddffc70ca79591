"""An order is taken once, however often it arrives (R9)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.control.reports import Done
from appliance.inbox import Delivery, Inbox


def test_a_double_is_known_and_answered_again_once_there_is_an_answer() -> None:
    inbox = Inbox(vcm=1)
    assert inbox.deliver(1, 1) is Delivery.NEW
    assert inbox.deliver(1, 1) is Delivery.KNOWN
    assert inbox.answer(Done(number=1))
    assert inbox.deliver(1, 1) is Delivery.ANSWERED


def test_what_is_settled_is_forgotten_and_never_taken_again() -> None:
    inbox = Inbox(vcm=1)
    inbox.deliver(1, 1)
    inbox.answer(Done(number=1))
    inbox.deliver(2, 2)
    assert set(inbox.answers) == {2}
    assert inbox.deliver(1, 1) is Delivery.KNOWN


def test_a_new_vcm_counts_anew() -> None:
    """R9: the orders of its predecessor are void, and nobody waits for their answers."""
    inbox = Inbox(vcm=1)
    inbox.deliver(5, 5)
    inbox.turn_to(2)
    assert not inbox.answer(Done(number=5))
    assert inbox.deliver(1, 1) is Delivery.NEW


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), max_size=60))
def test_no_order_is_taken_twice(arrivals: list[tuple[int, int]]) -> None:
    """In whatever order they arrive, and whatever they say is settled."""
    inbox = Inbox(vcm=1)
    taken = [number for number, settled in arrivals if inbox.deliver(number, min(number, settled)) is Delivery.NEW]
    assert len(taken) == len(set(taken))
