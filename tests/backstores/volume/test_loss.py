"""The decision which legs a failure costs (R27): every case as a row."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import msgspec
import pytest

from backstores.objects import AnyObject, Leg, LegState, MirrorObject
from backstores.volume.loss import Failure, degraded, lost_legs, without_legs
from tests.support.volumes import object_wwn, stripe_over_mirrors

OBJECTS = stripe_over_mirrors(width=2, legs=2)
# In the order in which stripe_over_mirrors numbers them: volume 1, legs 2 and 3 of mirror 4, legs 5 and 6 of mirror 7.
LEG_A0, LEG_A1, MIRROR_A, LEG_B0, LEG_B1, MIRROR_B = map(object_wwn, range(2, 8))


def failures(*legs: str, code: int = errno.EIO) -> list[Failure]:
    return [Failure(leg, code) for leg in legs]


def with_state(state: LegState, *children: str) -> tuple[AnyObject, ...]:
    """Give the objects with some legs in another state."""

    def changed(obj: AnyObject) -> AnyObject:
        if not isinstance(obj, MirrorObject):
            return obj
        legs = tuple(Leg(leg.child, state) if leg.child in children else leg for leg in obj.legs)
        return msgspec.structs.replace(obj, legs=legs)

    return tuple(changed(obj) for obj in OBJECTS)


@pytest.mark.parametrize(
    ("objects", "failed", "lost"),
    [
        pytest.param(OBJECTS, failures(LEG_A0), {MIRROR_A: {LEG_A0}}, id="one leg of one mirror"),
        pytest.param(
            OBJECTS, failures(LEG_A0, LEG_B1), {MIRROR_A: {LEG_A0}, MIRROR_B: {LEG_B1}}, id="one leg of each mirror"
        ),
        pytest.param(OBJECTS, failures(LEG_A0, LEG_A1), None, id="both legs of a mirror at once"),
        pytest.param(OBJECTS, failures(LEG_A0, LEG_A0), {MIRROR_A: {LEG_A0}}, id="one leg twice"),
        pytest.param(with_state(LegState.FAILED, LEG_A0), failures(LEG_A1), None, id="the last leg in sync"),
        pytest.param(with_state(LegState.STALE, LEG_A0), failures(LEG_A1), None, id="the other leg is stale"),
        pytest.param(OBJECTS, failures(LEG_A0, code=errno.ENOSPC), None, id="a full disk is no fault of the leg"),
        pytest.param(OBJECTS, failures(LEG_A0, code=errno.EDQUOT), None, id="nor is a quota"),
        pytest.param(OBJECTS, [*failures(LEG_A0), *failures(LEG_B0, code=errno.ENOSPC)], None, id="one of each"),
        pytest.param(OBJECTS, [Failure(None, errno.EIO)], None, id="no leaf is to blame"),
        pytest.param(OBJECTS, failures(object_wwn(99)), None, id="a leaf below no mirror"),
        pytest.param(OBJECTS, [], {}, id="nothing"),
    ],
)
def test_what_failures_cost(
    objects: tuple[AnyObject, ...], failed: Iterable[Failure], lost: dict[str, set[str]] | None
) -> None:
    assert lost_legs(objects, failed) == lost


def test_a_lost_leg_below_a_nested_mirror_is_spared_by_the_inner_mirror_first() -> None:
    """Of two mirrors above a leaf, the inner one pays if it can, the outer one with its whole leg if it can't."""
    outer, inner, leaf_a, leaf_b, leaf_c = (object_wwn(n) for n in range(20, 25))

    def mirror(wwn: str, *children: str) -> MirrorObject:
        return MirrorObject(
            wwn=wwn, volume=object_wwn(1), legs=tuple(Leg(child) for child in children), region_blocks=512, blocks=512
        )

    tree = (mirror(outer, inner, leaf_c), mirror(inner, leaf_a, leaf_b))
    assert lost_legs(tree, failures(leaf_a)) == {inner: {leaf_a}}
    assert lost_legs(tree, failures(leaf_a, leaf_b)) == {inner: {leaf_a}, outer: {inner}}
    assert lost_legs(tree, failures(leaf_a, leaf_b, leaf_c)) is None


def test_a_mirror_without_a_leg_is_a_new_generation_with_a_higher_fail_sequence() -> None:
    """D3: the survivors' record must win over the one on the failed leg."""
    before = next(obj for obj in OBJECTS if isinstance(obj, MirrorObject))
    after = without_legs(before, {LEG_A0})
    assert (after.generation, after.fail_sequence) == (before.generation + 1, before.fail_sequence + 1)
    assert [leg.state for leg in after.legs] == [LegState.FAILED, LegState.IN_SYNC]
    assert degraded([after]) == [f"leg {LEG_A0[-8:]} of mirror {MIRROR_A[-8:]} is failed"]
