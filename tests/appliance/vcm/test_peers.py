"""Storage processors that come, fall silent, and go (R9, C3)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from appliance.control.orders import Order, Ordered, Report, Scan, ToSp, TurnedAway, Welcome, WhoIsThere
from appliance.control.reports import Beat, Done, FromSp, Hello, Result, RunsPart, Scanned
from appliance.control.values import InstanceState, Role, SpState, T2Runs
from appliance.simulation.plant import object_wwn
from appliance.vcm.courier import Courier
from appliance.vcm.peers import EXPECT_S, FENCE_S, SILENT_S, TRANSITIONS, Notices, PeerEvent, Peers
from appliance.vcm.vocabulary import Fence, Site, Tell

RUNS = T2Runs(object_wwn(1), 1, "likeness", Role.FREE, InstanceState.OFF_LINE, "")


class Desk:
    """A VCM's peers; the notices that they give."""

    def __init__(self, *expected: str) -> None:
        self.courier = Courier(incarnation=7)
        self.notices: list[tuple[str, str]] = []
        notices = Notices(
            changed=lambda peer: None,
            joined=self._note("joined"),
            silent=self._note("silent"),
            back=self._note("back"),
            gone=self._note("gone"),
        )
        self.peers = Peers(self.courier, Site(expected), notices)
        self.tick(0.0)

    def _note(self, what: str):  # type: ignore[no-untyped-def]  # a notice
        return lambda peer: self.notices.append((what, peer.name))

    def tick(self, now_s: float) -> None:
        """Let time go on."""
        self.courier.now_s = now_s
        self.peers.tick(now_s)

    def say(self, body: Hello | Beat | Done, *, incarnation: int = 3, vcm: int = 7) -> bool:
        """Have sp1 say something."""
        return self.peers.said(FromSp("sp1", incarnation, vcm, body))

    def told(self) -> Iterator[Ordered | Welcome | TurnedAway | WhoIsThere]:
        """Take what sp1 is told."""
        effects, self.courier.effects = self.courier.effects, []
        for effect in effects:
            if isinstance(effect, Tell):
                message: ToSp = effect.message
                yield message.body

    def answer(self, result: Result) -> Order:
        """Have sp1 carry out the order that it was given; gives the order."""
        [ordered] = [body for body in self.told() if isinstance(body, Ordered)]
        self.courier.answered("sp1", Done(number=ordered.number, result=result))
        return ordered.order

    def join(self) -> None:
        """Have sp1 join, which runs nothing."""
        self.say(Hello(blade="b1", internal_portals=()), vcm=0)
        self.answer(Scanned(found=()))
        self.answer(RunsPart(t1=(), t2=(), cursor=None))


def test_one_that_says_hello_is_welcomed_and_asked_what_it_finds() -> None:
    """R10: steps 502 to 506."""
    desk = Desk("sp1")
    desk.say(Hello(blade="b1", internal_portals=()), vcm=0)
    welcome, scan = desk.told()
    assert isinstance(welcome, Welcome)
    assert isinstance(scan, Ordered)
    assert isinstance(scan.order, Scan)


@pytest.mark.parametrize("runs", [0, 1], ids=["it said that it runs nothing", "it said that it runs something"])
def test_one_that_is_there_tells_what_it_runs_before_it_joins(runs: int) -> None:
    """C1: a VCM that has started anew changes nothing before it knows, nor takes the word of a hello for it.

    An order of its predecessor may be under way when hello is said, and is not counted then.
    """
    desk = Desk("sp1")
    desk.say(Hello(blade="b1", internal_portals=(), runs=runs), vcm=0)
    desk.answer(Scanned(found=()))
    assert desk.notices == []
    assert desk.answer(RunsPart(t1=(), t2=(RUNS,), cursor=None)) == Report(cursor=0)
    assert desk.notices == [("joined", "sp1")]
    assert desk.peers["sp1"].t2 == [RUNS]


def test_one_that_runs_something_is_waited_for() -> None:
    """C1: what it serves must not be served elsewhere."""
    desk = Desk("sp1")
    desk.say(Hello(blade="b1", internal_portals=(), runs=1), vcm=0)
    desk.answer(Scanned(found=()))
    assert desk.peers.expecting() == ["sp1"]
    desk.answer(RunsPart(t1=(), t2=(RUNS,), cursor=None))
    assert not desk.peers.expecting()


def test_silence_is_noticed_and_ends_when_it_is_heard_again() -> None:
    desk = Desk("sp1")
    desk.join()
    desk.tick(SILENT_S)
    assert desk.notices[-1] == ("silent", "sp1")
    assert desk.peers.counts("sp1")  # it may serve
    desk.say(Beat(load=0.1, epoch=0))
    assert desk.notices[-1] == ("back", "sp1")


@pytest.mark.parametrize(("joins", "after_s"), [(True, FENCE_S), (False, EXPECT_S)], ids=["silent", "never heard of"])
def test_one_that_may_serve_unheard_is_ended_not_given_up(joins: bool, after_s: float) -> None:
    """D4: what it serves must not be served elsewhere before it is dead."""
    desk = Desk("sp1")
    if joins:
        desk.join()
        desk.tick(SILENT_S)
    desk.tick(after_s)
    assert any(isinstance(effect, Fence) and effect.sp == "sp1" for effect in desk.courier.effects)
    assert ("gone", "sp1") not in desk.notices
    desk.peers.died("sp1", 0)
    assert desk.notices[-1] == ("gone", "sp1")


def test_the_death_of_a_predecessor_is_not_its_own() -> None:
    """R9: the supervisor's word may come late."""
    desk = Desk("sp1")
    desk.join()
    desk.peers.died("sp1", 2)
    assert desk.peers.at_work("sp1")


def test_a_message_of_a_predecessor_is_nobody_s() -> None:
    desk = Desk("sp1")
    desk.join()
    list(desk.told())
    assert not desk.say(Beat(load=0.1, epoch=0), incarnation=2)
    assert list(desk.told()) == []


def test_one_that_takes_orders_of_an_earlier_vcm_is_asked_who_it_is() -> None:
    """R9: its answers are to orders that this VCM did not give."""
    desk = Desk("sp1")
    assert not desk.say(Done(number=1), vcm=6)
    assert [type(body) for body in desk.told()] == [WhoIsThere]


def test_a_second_hello_of_the_same_process_changes_nothing() -> None:
    """The welcome was lost."""
    desk = Desk("sp1")
    desk.join()
    desk.say(Hello(blade="b1", internal_portals=()))
    assert [type(body) for body in desk.told()] == [Welcome]
    assert desk.notices == [("joined", "sp1")]


def test_one_that_the_topology_does_not_name_may_join() -> None:
    """R19: ``tiergate sp --join``; the bus has seen its key."""
    desk = Desk()
    desk.join()
    assert desk.peers.at_work("sp1")


def test_one_that_others_know_is_expected() -> None:
    """D4: it may serve what they show to it."""
    desk = Desk("sp1")
    desk.join()
    assert not desk.peers.expecting()
    desk.peers.expect("sp9")
    assert desk.peers.expecting() == ["sp9"]


@pytest.mark.parametrize(("state", "event"), list(product(SpState, PeerEvent)), ids=str)
def test_every_way_through_the_table_ends_in_a_state_that_has_ways_on(state: SpState, event: PeerEvent) -> None:
    """R9: nobody is stuck: each can say hello again, or die."""
    target = TRANSITIONS[state].get(event)
    if target is not None:
        assert {PeerEvent.HELLO, PeerEvent.DEATH} <= set(TRANSITIONS[target])
