"""What is to be ordered next for a volume: a pure function of what runs and of what should run.

The rules stand in the order in which they apply; the first that has something to order makes the next stage, and when
none has, all is as it should be. Read from ``MAKE_T1`` to ``GO_ON_LINE`` they are the initialization of a volume (steps
522 to 542), and its creation; all of them in turn are a change under I/O: held, followers before the lead; changed;
distributed; gone on with, the lead before its followers (steps 1502 to 1512).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
from appliance.control.values import Access, Grant, InstanceState, Role, Show, T1Runs, T2Runs, likeness
from appliance.vcm.placement import Part, Placement
from backstores.objects import AnyObject, PartitionObject, VolumeObject
from backstores.wwn import Wwn

MOST_HOLD_S: Final = 20.0
"""How long a request may wait in a volume that is held, before its host is told that it is busy (D7)."""


class Step(enum.StrEnum):
    """A stage, with the number that the description gives it."""

    HOLD_FOLLOWERS = "1504 hold the followers"
    HOLD_OTHERS = "1504 hold"
    CHANGE = "1508 change the tree"
    TAKE_OFF_LINE = "disable the LUN maps"
    REMOVE_T2 = "delete second-tier objects"
    MAKE_T1 = "522 distribute first-tier objects"
    EXPOSE = "526 expose first-tier objects"
    DISCOVER = "528 discover them"
    MAKE_LEAD = "530 distribute second-tier objects"
    MAKE_FOLLOWERS = "530 distribute second-tier objects to followers"
    RESUME_OTHERS = "1512 go on"
    RESUME_FOLLOWERS = "1512 followers go on"
    GO_ON_LINE = "542 on line"
    SHOW = "show to hosts"
    TRIM_T1 = "remove first-tier objects that nothing refers to"


Orders = Iterator[tuple[str, VolumeOrder]]


@dataclass(frozen=True, slots=True)
class View:
    """A volume: what should run (``placement``; None: nothing), and what runs.

    ``linked``: who has found whose first-tier objects since these were exposed last. ``holding``: the tree is about to
    change, so that nothing may be served until it has. ``access`` and ``grant`` know ways and secrets.
    """

    volume: Wwn
    objects: tuple[AnyObject, ...]
    generation: int
    placement: Placement | None
    t1: Mapping[str, T1Runs]
    t2: Mapping[str, T2Runs]
    linked: frozenset[tuple[str, str]]
    holding: bool
    create: bool
    show: Callable[[str], Show | None]
    access: Callable[[str, str], Access]
    grant: Callable[[str, str], Grant]
    granted: Callable[[str, str], bool]

    @property
    def wanted(self) -> Mapping[str, Part]:
        """What should run of the second tier."""
        return self.placement.t2 if self.placement else {}

    def differs(self, sp: str) -> bool:
        """Whether the second tier at a storage processor is not what it should be."""
        return sp in self.t2 and sp in self.wanted and self.t2[sp].likeness != self.wanted[sp].likeness

    def made(self, sp: str) -> MakeT2:
        """Give the order that makes the second tier at a storage processor."""
        part = self.wanted[sp]
        return MakeT2(
            volume=self.volume,
            generation=self.generation,
            likeness=part.likeness,
            role=part.role,
            objects=self.objects,
            references=part.references,
            followers=tuple(self.grant(follower, sp) for follower in part.followers),
            lead=None if part.lead is None else self.access(sp, part.lead),
            create=self.create and part.role is not Role.FOLLOWER,
        )


# Held: followers first, since a follower's write ends only with the lead's help


def _hold(view: View, *, followers: bool) -> Orders:
    on_line = {sp: runs for sp, runs in view.t2.items() if runs.state is InstanceState.ON_LINE}
    if not view.holding and not any(view.differs(sp) for sp in on_line):
        return
    for sp, runs in on_line.items():
        if (runs.role is Role.FOLLOWER) is followers:
            yield sp, HoldVolume(volume=view.volume, generation=view.generation, most_s=MOST_HOLD_S)


def hold_followers(view: View) -> Orders:
    """Hold the followers."""
    return _hold(view, followers=True)


def hold_others(view: View) -> Orders:
    """Hold the lead, or who else serves the volume."""
    return _hold(view, followers=False)


# Removed: what should not run any more


def take_off_line(view: View) -> Orders:
    """Stop serving hosts where the volume is not served any more."""
    for sp, runs in view.t2.items():
        if sp not in view.wanted and runs.state is not InstanceState.OFF_LINE:
            yield sp, GoOffLine(volume=view.volume, generation=view.generation, reason="it is no longer served here")


def remove_t2(view: View) -> Orders:
    """Delete second tiers that should not run, and those off line that should be others."""
    for sp, runs in view.t2.items():
        if runs.state is InstanceState.OFF_LINE and (sp not in view.wanted or view.differs(sp)):
            yield sp, RemoveT2(volume=view.volume, generation=view.generation)


# The first tier


def make_t1(view: View) -> Orders:
    """Distribute first-tier objects; what runs already and may still be referred to stays."""
    if not view.placement:
        return
    for sp, wanted in view.placement.t1.items():
        running = view.t1[sp].objects if sp in view.t1 else ()
        if not set(wanted) <= set(running):
            names = {partition.wwn for partition in wanted}
            yield sp, _make_t1(view, (*wanted, *(obj for obj in running if obj.wwn not in names)))


def _make_t1(view: View, objects: tuple[PartitionObject, ...]) -> MakeT1:
    head = view.objects[0]
    assert isinstance(head, VolumeObject)
    return MakeT1(volume=view.volume, generation=view.generation, block_bytes=head.block_bytes, objects=objects)


def _to_be_linked(view: View, sp: str) -> bool:
    return sp not in view.t2 or view.differs(sp)


def expose(view: View) -> Orders:
    """Show first-tier objects to those that refer to them, and to nobody else."""
    if not view.placement:
        return
    for sp in view.placement.t1:
        referrers = view.placement.referrers(sp)
        unknown = any(_to_be_linked(view, name) and not view.granted(name, sp) for name in referrers)
        if unknown or set(view.t1[sp].shown_to) != set(referrers):
            grants = tuple(view.grant(name, sp) for name in referrers)
            yield sp, ExposeT1(volume=view.volume, generation=view.generation, grants=grants)


def discover(view: View) -> Orders:
    """Have those that will refer to first-tier objects find them."""
    for sp, part in view.wanted.items():
        if not _to_be_linked(view, sp):
            continue
        for target in dict.fromkeys(reference.sp for reference in part.references):
            if (sp, target) not in view.linked:
                objects = tuple(reference.object for reference in part.references if reference.sp == target)
                access = view.access(sp, target)
                yield sp, Discover(volume=view.volume, generation=view.generation, access=access, objects=objects)


def trim_t1(view: View) -> Orders:
    """Remove first-tier objects that nothing refers to any more."""
    wanted = view.placement.t1 if view.placement else {}
    for sp, runs in view.t1.items():
        if sp not in wanted:
            yield sp, RemoveT1(volume=view.volume, generation=view.generation)
        elif set(runs.objects) != set(wanted[sp]):
            yield sp, _make_t1(view, wanted[sp])


# The second tier


def _make_t2(view: View, *, followers: bool) -> Orders:
    for sp, part in view.wanted.items():
        if sp not in view.t2 and (part.role is Role.FOLLOWER) is followers:
            yield sp, view.made(sp)


def make_lead(view: View) -> Orders:
    """Make the second tier, but that of followers."""
    return _make_t2(view, followers=False)


def make_followers(view: View) -> Orders:
    """Make the second tier of followers, who find a lead now."""
    return _make_t2(view, followers=True)


def _resume(view: View, *, followers: bool) -> Orders:
    for sp, part in view.wanted.items():
        held = sp in view.t2 and view.t2[sp].state is InstanceState.HELD
        if held and (part.role is Role.FOLLOWER) is followers:
            made = view.made(sp) if view.differs(sp) else None
            yield sp, ResumeVolume(volume=view.volume, generation=view.generation, made=made)


def resume_others(view: View) -> Orders:
    """Go on, with the new tree or the old one."""
    return _resume(view, followers=False)


def resume_followers(view: View) -> Orders:
    """Go on at the followers."""
    return _resume(view, followers=True)


def go_on_line(view: View) -> Orders:
    """Serve hosts: all of the volume is confirmed (step 538)."""
    for sp in view.wanted:
        if view.t2[sp].state is InstanceState.OFF_LINE:
            yield sp, GoOnLine(volume=view.volume, generation=view.generation, show=view.show(sp) or Show())


def show(view: View) -> Orders:
    """Have the hosts see what they should."""
    for sp in view.wanted:
        shown = view.show(sp)
        if shown is not None and view.t2[sp].shown != likeness(shown):
            yield sp, SetShow(volume=view.volume, show=shown)


Rule = Callable[[View], Orders]

BEFORE_CHANGE: Final[Mapping[Step, Rule]] = {
    Step.HOLD_FOLLOWERS: hold_followers,
    Step.HOLD_OTHERS: hold_others,
}
"""What must have been done before the tree may change; each wants nothing to do before the next."""

RULES: Final[Mapping[Step, Rule]] = {
    **BEFORE_CHANGE,
    Step.TAKE_OFF_LINE: take_off_line,
    Step.REMOVE_T2: remove_t2,
    Step.MAKE_T1: make_t1,
    Step.EXPOSE: expose,
    Step.DISCOVER: discover,
    Step.MAKE_LEAD: make_lead,
    Step.RESUME_OTHERS: resume_others,
    Step.MAKE_FOLLOWERS: make_followers,
    Step.RESUME_FOLLOWERS: resume_followers,
    Step.GO_ON_LINE: go_on_line,
    Step.SHOW: show,
    Step.TRIM_T1: trim_t1,
}


def next_stage(view: View) -> tuple[Step, list[tuple[str, VolumeOrder]]] | None:
    """Give what is to be ordered next, side by side; None if there is nothing."""
    for step, rule in (BEFORE_CHANGE if view.holding else RULES).items():
        orders = list(rule(view))
        if orders:
            return step, orders
    return None
