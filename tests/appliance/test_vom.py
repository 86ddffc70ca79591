"""What a storage processor runs of a volume, and how it is: the tables, exhaustively (R9)."""

from __future__ import annotations

from itertools import product

import pytest

from appliance.control.orders import (
    ExposeT1,
    GoOffLine,
    GoOnLine,
    HoldVolume,
    MakeT1,
    MakeT2,
    Reference,
    RemoveT1,
    RemoveT2,
    ResumeVolume,
    SetShow,
    VolumeOrder,
)
from appliance.control.reports import LegsLost
from appliance.control.values import Grant, InstanceState, Role, Show, likeness
from appliance.decisions import Do, Refuse, Reply
from appliance.simulation.plant import Builder, alu_wwn
from appliance.vom import EVENTS, SUB_VOMS, TRANSITIONS, Event, Health, Vom, bottom_up, health
from backstores.objects import AnyObject, PartitionObject
from backstores.wwn import Wwn

TREE = Builder().volume("stripe-mirror", [alu_wwn(number) for number in range(4)])
VOLUME = TREE[0].wwn
PARTS = [obj for obj in TREE if isinstance(obj, PartitionObject)]


def made(generation: int = 1, references: tuple[Reference, ...] | None = None) -> MakeT2:
    """Give an order that makes the volume, all of it by references."""
    if references is None:
        references = tuple(Reference(part.wwn, "sp9") for part in PARTS)
    return MakeT2(
        volume=VOLUME, generation=generation, likeness="it", role=Role.ALONE, objects=TREE, references=references
    )


ORDERS: dict[Event, VolumeOrder] = {
    Event.MAKE: made(),
    Event.SERVE: GoOnLine(volume=VOLUME, generation=1, show=Show()),
    Event.SHOW: SetShow(volume=VOLUME, show=Show()),
    Event.HOLD: HoldVolume(volume=VOLUME, generation=1, most_s=1.0),
    Event.RESUME: ResumeVolume(volume=VOLUME, generation=1),
    Event.STOP: GoOffLine(volume=VOLUME, generation=1, reason="it should"),
    Event.REMOVE: RemoveT2(volume=VOLUME, generation=1),
}
WAYS: dict[InstanceState, list[Event]] = {
    InstanceState.ABSENT: [],
    InstanceState.OFF_LINE: [Event.MAKE],
    InstanceState.ON_LINE: [Event.MAKE, Event.SERVE],
    InstanceState.HELD: [Event.MAKE, Event.SERVE, Event.HOLD],
}
"""How each state is reached."""


def vom_in(state: InstanceState) -> Vom:
    """Give a VOM whose one volume is in a state."""
    vom = Vom()
    for event in WAYS[state]:
        vom.carried(ORDERS[event])
    assert vom.state(VOLUME) is state
    return vom


@pytest.mark.parametrize(("state", "event"), list(product(InstanceState, ORDERS)), ids=str)
def test_an_order_does_what_the_table_says_or_is_refused(state: InstanceState, event: Event) -> None:
    """R9: nothing else leads from one state to another."""
    vom = vom_in(state)
    decision = vom.decide(ORDERS[event])
    if event not in TRANSITIONS[state]:
        assert isinstance(decision, Refuse)
        assert str(state) in decision.reason
    elif isinstance(decision, Do):
        vom.carried(ORDERS[event])
        assert vom.state(VOLUME) is TRANSITIONS[state][event]
    else:
        assert isinstance(decision, Reply)
        assert TRANSITIONS[state][event] is state


def test_every_order_to_an_instance_has_its_event() -> None:
    assert set(EVENTS.values()) == set(ORDERS) == set(Event) - {Event.LOSE}


def test_an_order_of_an_older_generation_is_refused() -> None:
    """R12: a late order does not bring back what is past."""
    vom = Vom()
    vom.decide(made(generation=5))
    decision = vom.decide(HoldVolume(volume=VOLUME, generation=4, most_s=1.0))
    assert isinstance(decision, Refuse)
    assert "generation 4" in decision.reason
    assert "5 was seen" in decision.reason


def test_a_tree_is_built_of_what_is_here_and_what_is_referred_to() -> None:
    """R12: each object stands on others; what is missing is named."""
    vom = Vom()
    vom.carried(MakeT1(volume=VOLUME, generation=1, block_bytes=512, objects=(PARTS[0],)))
    elsewhere = tuple(Reference(part.wwn, "sp9") for part in PARTS[2:])
    assert isinstance(vom.decide(made(references=elsewhere)), Do)  # the first mirror has one leg
    refused = vom.decide(made(references=elsewhere[:0]))
    assert isinstance(refused, Refuse)
    assert PARTS[3].wwn[-8:] in refused.reason


def test_nothing_is_exposed_that_is_not_there() -> None:
    decision = Vom().decide(ExposeT1(volume=VOLUME, generation=1, grants=(Grant("sp2", "secret"),)))
    assert isinstance(decision, Refuse)


def test_what_was_removed_before_need_not_be_removed() -> None:
    assert isinstance(Vom().decide(RemoveT1(volume=VOLUME, generation=1)), Reply)


def test_legs_that_are_lost_are_told_until_the_volume_goes_on() -> None:
    """R28, D3: the report may be lost, the hosts wait."""
    vom = vom_in(InstanceState.ON_LINE)
    assert vom.lose_legs(LegsLost(volume=VOLUME, generation=0, legs=(PARTS[0].wwn,)))
    assert vom.state(VOLUME) is InstanceState.HELD
    assert vom.lost[VOLUME].generation == 1
    vom.carried(ORDERS[Event.RESUME])
    assert not vom.lost


@pytest.mark.parametrize("state", [InstanceState.ABSENT, InstanceState.OFF_LINE], ids=str)
def test_what_does_not_serve_loses_no_legs(state: InstanceState) -> None:
    assert not vom_in(state).lose_legs(LegsLost(volume=VOLUME, generation=0, legs=(PARTS[0].wwn,)))


def test_what_is_shown_is_told_by_its_likeness() -> None:
    """R10: so that a VCM that starts anew leaves alone what is right."""
    vom = vom_in(InstanceState.ON_LINE)
    assert vom.second[VOLUME].runs().shown == likeness(Show())


# The sub-VOMs


def test_a_stack_is_built_from_the_bottom_up() -> None:
    """R12, step 534."""
    built: set[Wwn] = set()
    for obj in bottom_up(TREE):
        assert set(obj.children) <= built
        built.add(obj.wwn)
    assert built == {obj.wwn for obj in TREE}


def test_each_mapping_has_a_sub_vom() -> None:
    """R9."""
    assert set(SUB_VOMS) == set(AnyObject.__args__)


HEALTHS = {
    "all there": ({0, 1, 2, 3}, Health.GOOD),
    "a leg of a mirror gone": ({0, 2, 3}, Health.DEGRADED),
    "a leg of each gone": ({1, 2}, Health.DEGRADED),
    "both legs of one gone": ({2, 3}, Health.FAILED),
    "nothing there": (set(), Health.FAILED),
}


@pytest.mark.parametrize("name", HEALTHS)
def test_a_volume_is_as_what_lies_below_lets_it_be(name: str) -> None:
    """R9, R27."""
    there, expected = HEALTHS[name]
    assert health(TREE, {PARTS[number].wwn for number in there})[VOLUME] is expected


@pytest.mark.parametrize("layout", ["stripe", "concat"])
def test_a_volume_without_mirrors_needs_all_of_it(layout: str) -> None:
    tree = Builder().volume(layout, [alu_wwn(0), alu_wwn(1)])
    parts = {obj.wwn for obj in tree if isinstance(obj, PartitionObject)}
    assert health(tree, parts)[tree[0].wwn] is Health.GOOD
    assert health(tree, set(sorted(parts)[:1]))[tree[0].wwn] is Health.FAILED
