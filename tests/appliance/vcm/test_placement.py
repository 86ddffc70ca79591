"""Who runs what: Figures 6 and 7 object by object, leads, references, and what can't be placed (R12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest

from appliance.control.orders import Reference
from appliance.control.values import Role
from appliance.simulation.plant import Builder, alu_wwn
from appliance.vcm.placement import Placement, Plant, Unplaced, place, serving
from backstores.objects import AnyObject, Leg, LegState, MirrorObject, PartitionObject

ALUS = [alu_wwn(number) for number in range(4)]
FIGURE_7 = {ALUS[0]: "sp410", ALUS[1]: "sp410", ALUS[2]: "sp420", ALUS[3]: "sp430"}
"""Two ALUs hang on the first storage processor, one on each of the others; 420 and 430 face hosts."""


def plant(openers: Mapping[str, str], incarnation: int = 1) -> Plant:
    """Make a plant in which these storage processors have these ALUs open."""
    return Plant(lambda alu: openers.get(alu), lambda sp: incarnation)


def placed(objects: Sequence[AnyObject], facing: Sequence[str], openers: Mapping[str, str]) -> Placement:
    """Place what can be placed."""
    placement = place(objects, facing, plant(openers))
    assert isinstance(placement, Placement), placement
    return placement


def partitions(objects: Sequence[AnyObject]) -> list[PartitionObject]:
    """List the partitions of a tree, in the order of their ALUs."""
    return [obj for obj in objects if isinstance(obj, PartitionObject)]


def test_a_stripe_over_mirrors_is_placed_as_in_figure_7() -> None:
    """R12, Fig. 6 and 7: four partitions on three storage processors, two of which face hosts."""
    objects = Builder().volume("stripe-mirror", ALUS)
    p620, p630, p640, p650 = partitions(objects)
    placement = placed(objects, ["sp420", "sp430"], FIGURE_7)
    assert placement.t1 == {"sp410": (p620, p630), "sp420": (p640,), "sp430": (p650,)}
    assert placement.t2["sp420"].references == (
        Reference(p620.wwn, "sp410"),
        Reference(p630.wwn, "sp410"),
        Reference(p650.wwn, "sp430"),
    )
    assert placement.t2["sp430"].references == (
        Reference(p620.wwn, "sp410"),
        Reference(p630.wwn, "sp410"),
        Reference(p640.wwn, "sp420"),
    )
    assert placement.referrers("sp420") == ("sp410", "sp430")
    assert placement.referrers("sp430") == ("sp410", "sp420")


def test_who_has_the_first_leg_leads_those_that_face_hosts() -> None:
    """R12, D4: one orders overlapping writes, and serves no host for it."""
    placement = placed(Builder().volume("stripe-mirror", ALUS), ["sp420", "sp430"], FIGURE_7)
    assert {sp: part.role for sp, part in placement.t2.items()} == {
        "sp410": Role.LEAD,
        "sp420": Role.FOLLOWER,
        "sp430": Role.FOLLOWER,
    }
    assert placement.t2["sp410"].followers == ("sp420", "sp430")
    assert placement.t2["sp430"].lead == "sp410"


ROLES = {
    "one writer": ("mirror", ["sp420"], {"sp420": Role.ALONE}),
    "the lead faces hosts, too": ("mirror", ["sp410", "sp430"], {"sp410": Role.LEAD, "sp430": Role.FOLLOWER}),
    "no mirror": ("stripe", ["sp420", "sp430"], {"sp420": Role.FREE, "sp430": Role.FREE}),
    "no host": ("mirror", [], {"sp410": Role.ALONE}),
}


@pytest.mark.parametrize("name", ROLES)
def test_roles(name: str) -> None:
    """D4: a lead where several write what must stay equal, and nowhere else."""
    layout, facing, roles = ROLES[name]
    placement = placed(Builder().volume(layout, ALUS[:2]), facing, FIGURE_7)
    assert {sp: part.role for sp, part in placement.t2.items()} == roles


def test_what_lies_here_needs_no_reference() -> None:
    """R12: an LRN for what is at the same storage processor."""
    placement = placed(Builder().volume("stripe", ALUS[:2]), ["sp410"], FIGURE_7)
    assert placement.t2["sp410"].references == ()


def test_a_volume_whose_alu_nobody_has_open_is_not_placed() -> None:
    """R10: it stays off line, with its reason."""
    found = place(Builder().volume("stripe", ALUS[:2]), ["sp420"], plant({ALUS[0]: "sp410"}))
    assert isinstance(found, Unplaced)
    assert ALUS[1] in found.reason


def with_leg_failed(objects: Sequence[AnyObject], leg: int) -> list[AnyObject]:
    """Give a tree whose mirrors have lost a leg."""
    found: list[AnyObject] = []
    for obj in objects:
        if isinstance(obj, MirrorObject):
            legs = tuple(
                Leg(one.child, LegState.FAILED if number == leg else one.state) for number, one in enumerate(obj.legs)
            )
            found.append(msgspec.structs.replace(obj, legs=legs))
        else:
            found.append(obj)
    return found


@pytest.mark.parametrize(("leg", "lead"), [(0, "sp420"), (1, "sp410")])
def test_a_failed_leg_is_neither_placed_nor_leads(leg: int, lead: str) -> None:
    """R28: the volume goes on without it, though nobody reaches its ALU."""
    objects = with_leg_failed(Builder().volume("mirror", [ALUS[0], ALUS[2]]), leg)
    left = {alu: sp for alu, sp in FIGURE_7.items() if alu != (ALUS[0], ALUS[2])[leg]}
    placement = placed(objects, ["sp410", "sp430"], left)
    assert [part.wwn for part in serving(objects)] == [partitions(objects)[1 - leg].wwn]
    assert [sp for sp, part in placement.t2.items() if part.role is Role.LEAD] == [lead]


LIKENESS = {
    "nothing": (lambda objects: objects, 1, True),
    "another tree": (lambda objects: with_leg_failed(objects, 1), 1, False),
    "a process that was started again": (lambda objects: objects, 2, False),
}


@pytest.mark.parametrize("name", LIKENESS)
def test_the_likeness_tells_what_has_changed(name: str) -> None:
    """R12: what runs is left alone as long as it is what should run."""
    change, incarnation, same = LIKENESS[name]
    objects = Builder().volume("mirror", [ALUS[0], ALUS[2]])
    before = place(objects, ["sp420"], plant(FIGURE_7))
    after = place(change(objects), ["sp420"], plant(FIGURE_7, incarnation))
    assert isinstance(before, Placement)
    assert isinstance(after, Placement)
    assert (before.t2["sp420"].likeness == after.t2["sp420"].likeness) is same
