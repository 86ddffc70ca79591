"""The gate of a volume: nobody works while it is held, everybody who waits is bounded, and order is kept (D7)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backstores.volume.gate import PASSAGES, Event, Gate, HoldLimits, Passage

MOST = 3


class AgainstModel(RuleBasedStateMachine):
    """Every step is compared with what the rules say of lists of names."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Gate[int] = Gate()
        self.numbers = 0
        self.at_work: list[int] = []
        self.waiting: list[int] = []
        self.late: set[int] = set()
        self.held = self.expired = self.shut = False

    @initialize()
    def start(self) -> None:
        assert self.gate.passage is Passage.OPEN

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    @rule()
    def arrive(self) -> None:
        visitor = self.number()
        welcome = not self.shut and (not self.held or (not self.expired and len(self.late) < MOST))
        assert self.gate.arrive(visitor) is welcome
        if welcome and self.held:
            self.late.add(visitor)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        visitor = data.draw(st.sampled_from(sorted(self.late)))
        self.gate.depart(visitor)
        self.late.discard(visitor)

    @rule(owner=st.booleans())
    def begin(self, owner: bool) -> None:
        waiter = self.number()
        free = owner or not (self.held or self.shut)
        assert self.gate.begin(owner=owner) is free
        if free:
            self.at_work.append(waiter)
            return
        welcome = not (self.shut or self.expired)
        assert self.gate.wait(waiter) is welcome
        if welcome:
            self.waiting.append(waiter)

    @precondition(lambda self: self.at_work)
    @rule()
    def end(self) -> None:
        self.at_work.pop()
        self.gate.end()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiter)
        self.gate.forget(waiter)

    @rule()
    def hold(self) -> None:
        self.gate.hold(HoldLimits(most_waiting=MOST))
        self.held, self.expired = not self.shut, False

    @rule()
    def resume(self) -> None:
        begun = self.gate.resume()
        assert begun == self.waiting, "in the order in which they came"
        self.at_work += begun
        self.waiting.clear()
        self.late.clear()
        self.held = self.expired = False

    @rule()
    def expire(self) -> None:
        assert self.gate.expire() == self.waiting
        self.waiting.clear()
        self.expired = self.held

    @precondition(lambda self: self.numbers > 12)
    @rule()
    def shut_it(self) -> None:
        assert self.gate.shut() == self.waiting
        self.waiting.clear()
        self.shut, self.held = True, False

    @invariant()
    def it_is_held_only_when_nobody_has_begun_before(self) -> None:
        if self.gate.passage is Passage.CLOSING:
            assert self.at_work
        assert self.shut == (self.gate.passage is Passage.SHUT)
        assert self.held == (self.gate.passage in (Passage.CLOSING, Passage.HELD))


AgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAgainstModel = AgainstModel.TestCase


@pytest.mark.parametrize(("passage", "event"), list(product(Passage, Event)), ids=lambda one: one.value)
def test_every_event_has_its_place_in_the_table(passage: Passage, event: Event) -> None:
    """QUIET is told by who was at work while it was closing, and to nobody else."""
    assert (event in PASSAGES[passage]) == (event is not Event.QUIET or passage is Passage.CLOSING)


def test_what_was_at_work_before_is_awaited() -> None:
    gate: Gate[str] = Gate()
    assert gate.begin()
    assert gate.begin()
    gate.hold(HoldLimits())
    assert not gate.begin()
    assert gate.wait("c")
    for expected in (Passage.CLOSING, Passage.HELD):
        gate.end()
        assert gate.passage is expected
    assert gate.resume() == ["c"]
    gate.hold(HoldLimits())
    assert gate.passage is Passage.CLOSING, "who was let in is at work"


def test_a_new_hold_has_its_own_time() -> None:
    """One that holds itself because a leg has failed is then held by the system, which may take longer."""
    gate: Gate[str] = Gate()
    gate.hold(HoldLimits())
    gate.expire()
    assert not gate.arrive("a")
    gate.hold(HoldLimits())
    assert gate.arrive("a")
    assert gate.wait("a")
