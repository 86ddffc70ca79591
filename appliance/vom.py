"""The Virtual Volume state machine (VOM): what a storage processor runs of each volume, and how it is (R9).

An *instance* is a volume's second tier here, or its first-tier objects here. Orders move it through one table. Each
kind of mapping has a sub-VOM of its own: a function that makes the health of an object out of the health of what lies
below, in the order in which a stack is built, from the bottom up (step 534).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.control.orders import (
    Discover,
    ExposeT1,
    GoOffLine,
    GoOnLine,
    HoldVolume,
    MakeT1,
    MakeT2,
    RemoveT1,
    RemoveT2,
    ResumeVolume,
    SetShow,
    VolumeOrder,
)
from appliance.control.reports import LegsLost
from appliance.control.values import InstanceState, T1Runs, T2Runs, likeness
from appliance.decisions import Decision, Do, Refuse, Reply
from backstores.objects import (
    AnyObject,
    ConcatObject,
    LegState,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.wwn import Wwn, short


class Event(enum.StrEnum):
    """What happens to an instance of a volume's second tier."""

    MAKE = "make"
    SERVE = "serve"
    SHOW = "show"
    HOLD = "hold"
    LOSE = "lose legs"
    RESUME = "resume"
    STOP = "stop"
    REMOVE = "remove"


TRANSITIONS: Final[Mapping[InstanceState, Mapping[Event, InstanceState]]] = {
    InstanceState.ABSENT: {
        Event.MAKE: InstanceState.OFF_LINE,
        Event.STOP: InstanceState.ABSENT,
        Event.REMOVE: InstanceState.ABSENT,
    },
    InstanceState.OFF_LINE: {
        Event.MAKE: InstanceState.OFF_LINE,  # a newer generation takes its place
        Event.SERVE: InstanceState.ON_LINE,
        Event.STOP: InstanceState.OFF_LINE,
        Event.REMOVE: InstanceState.ABSENT,
    },
    InstanceState.ON_LINE: {
        Event.SERVE: InstanceState.ON_LINE,
        Event.SHOW: InstanceState.ON_LINE,
        Event.HOLD: InstanceState.HELD,
        Event.LOSE: InstanceState.HELD,
        Event.RESUME: InstanceState.ON_LINE,  # the VCM believed a report that was old
        Event.STOP: InstanceState.OFF_LINE,
        Event.REMOVE: InstanceState.ABSENT,
    },
    InstanceState.HELD: {
        Event.SHOW: InstanceState.HELD,
        Event.HOLD: InstanceState.HELD,
        Event.LOSE: InstanceState.HELD,
        Event.RESUME: InstanceState.ON_LINE,
        Event.STOP: InstanceState.OFF_LINE,
        Event.REMOVE: InstanceState.ABSENT,
    },
}

EVENTS: Final[Mapping[type[VolumeOrder], Event]] = {
    MakeT2: Event.MAKE,
    GoOnLine: Event.SERVE,
    SetShow: Event.SHOW,
    HoldVolume: Event.HOLD,
    ResumeVolume: Event.RESUME,
    GoOffLine: Event.STOP,
    RemoveT2: Event.REMOVE,
}
"""What an order to a second-tier instance does to it."""


class Health(enum.IntEnum):
    """How much of what lies below an object is there."""

    FAILED = 0
    DEGRADED = 1
    GOOD = 2


Below = Sequence[Health]


def _as_its_alu(_: AnyObject, below: Below) -> Health:
    [alu] = below
    return alu


def _needs_all(_: AnyObject, below: Below) -> Health:
    return min(below, default=Health.FAILED)


def _needs_one(mirror: AnyObject, below: Below) -> Health:
    assert isinstance(mirror, MirrorObject)
    legs = [health for leg, health in zip(mirror.legs, below, strict=True) if leg.state is LegState.IN_SYNC]
    if not any(legs):
        return Health.FAILED
    whole = len(legs) == len(mirror.legs) and all(health is Health.GOOD for health in legs)
    return Health.GOOD if whole else Health.DEGRADED


SUB_VOMS: Final[Mapping[type[AnyObject], Callable[[AnyObject, Below], Health]]] = {
    PartitionObject: _as_its_alu,
    StripeObject: _needs_all,
    ConcatObject: _needs_all,
    MirrorObject: _needs_one,
    VolumeObject: _needs_all,  # one of a legacy ALU, too, which stands on its one partition
}


def bottom_up(objects: Sequence[AnyObject]) -> Iterator[AnyObject]:
    """Yield a tree's objects, each behind all that it stands on."""
    by_wwn = {obj.wwn: obj for obj in objects}
    done: set[Wwn] = set()

    def below(obj: AnyObject) -> Iterator[AnyObject]:
        for child in obj.children:
            if child in by_wwn and child not in done:
                yield from below(by_wwn[child])
        done.add(obj.wwn)
        yield obj

    yield from below(objects[0])


def health(objects: Sequence[AnyObject], there: Collection[Wwn]) -> dict[Wwn, Health]:
    """Say how each object of a tree is, when these of its partitions are there."""
    found: dict[Wwn, Health] = {}
    for obj in bottom_up(objects):
        if isinstance(obj, PartitionObject):
            below = [Health.GOOD if obj.wwn in there else Health.FAILED]
        else:
            below = [found.get(child, Health.FAILED) for child in obj.children]
        found[obj.wwn] = SUB_VOMS[type(obj)](obj, below)
    return found


@dataclass(frozen=True, slots=True)
class SecondTier:
    """A volume's second tier here, as it was made."""

    made: MakeT2
    state: InstanceState
    shown: str = ""

    def runs(self) -> T2Runs:
        """Describe it for the VCM."""
        made = self.made
        return T2Runs(made.volume, made.generation, made.likeness, made.role, self.state, self.shown)


class Vom:
    """All instances of a storage processor."""

    def __init__(self) -> None:
        self.first: dict[Wwn, T1Runs] = {}
        self.second: dict[Wwn, SecondTier] = {}
        self.lost: dict[Wwn, LegsLost] = {}  # told again and again, until the volume goes on
        self._generations: dict[Wwn, int] = {}

    def state(self, volume: Wwn) -> InstanceState:
        """Give the state of a volume's second tier here."""
        instance = self.second.get(volume)
        return InstanceState.ABSENT if instance is None else instance.state

    def decide(self, order: VolumeOrder) -> Decision:
        """Say what to do about an order."""
        if not isinstance(order, SetShow):
            seen = self._generations.get(order.volume, 0)
            if order.generation < seen:
                return Refuse(f"generation {order.generation} of volume {short(order.volume)} is past: {seen} was seen")
            self._generations[order.volume] = order.generation
        if type(order) in EVENTS:
            return self._decide_second(order)
        if isinstance(order, RemoveT1) and order.volume not in self.first:
            return Reply()
        if isinstance(order, ExposeT1) and order.volume not in self.first:
            return Refuse(f"volume {short(order.volume)} has no first-tier object here: nothing to expose")
        return Do(order)

    def _decide_second(self, order: VolumeOrder) -> Decision:
        state, event = self.state(order.volume), EVENTS[type(order)]
        if event not in TRANSITIONS[state]:
            return Refuse(f"volume {short(order.volume)} is {state} here: no way to {event} it")
        if state is InstanceState.ABSENT and event in (Event.STOP, Event.REMOVE):
            return Reply()
        made = order if isinstance(order, MakeT2) else order.made if isinstance(order, ResumeVolume) else None
        return (self._missing(made) if made else None) or Do(order)

    def _missing(self, made: MakeT2) -> Refuse | None:
        """Refuse a tree that can't be built of what is here and what is referred to."""
        here = self.first.get(made.volume)
        there = {obj.wwn for obj in here.objects} if here else set()
        there |= {reference.object for reference in made.references}
        if health(made.objects, there)[made.objects[0].wwn] is not Health.FAILED:
            return None
        missing = [short(obj.wwn) for obj in made.objects if isinstance(obj, PartitionObject) and obj.wwn not in there]
        return Refuse(f"volume {short(made.volume)} can't be built: neither here nor referred to: {', '.join(missing)}")

    def carried(self, order: VolumeOrder) -> None:
        """Take note that an order was carried out."""
        volume = order.volume
        if isinstance(order, MakeT1):
            shown_to = self.first[volume].shown_to if volume in self.first else ()
            self.first[volume] = T1Runs(volume, order.generation, order.objects, shown_to)
        elif isinstance(order, ExposeT1):
            names = tuple(sorted(grant.sp for grant in order.grants))
            self.first[volume] = T1Runs(volume, order.generation, self.first[volume].objects, names)
        elif isinstance(order, RemoveT1):
            self.first.pop(volume, None)
        elif not isinstance(order, Discover):
            self._move(volume, EVENTS[type(order)], order)

    def _move(self, volume: Wwn, event: Event, order: VolumeOrder) -> None:
        state = TRANSITIONS[self.state(volume)][event]
        if state is not InstanceState.HELD:
            self.lost.pop(volume, None)
        if state is InstanceState.ABSENT:
            self.second.pop(volume, None)
            return
        if isinstance(order, MakeT2):
            self.second[volume] = SecondTier(order, state)
            return
        instance = replace(self.second[volume], state=state)
        if isinstance(order, ResumeVolume) and order.made is not None:
            instance = replace(instance, made=order.made)
        elif isinstance(order, GoOnLine | SetShow):
            instance = replace(instance, shown=likeness(order.show))
        self.second[volume] = instance

    def lose_legs(self, report: LegsLost) -> bool:
        """Take note that a volume holds itself because legs have failed; False if it does not serve."""
        volume = report.volume
        if Event.LOSE not in TRANSITIONS[self.state(volume)]:
            return False
        made, state = self.second[volume].made, TRANSITIONS[self.state(volume)][Event.LOSE]
        self.second[volume] = replace(self.second[volume], state=state)
        self.lost[volume] = LegsLost(volume=volume, generation=made.generation, legs=report.legs)
        return True
