"""What all ALUs together say of the GS set: all cases of members lost, in doubt, behind or older copies (R4, M4)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.metadata.gscopy import Copy
from backstores.metadata.gsformat import MOST_MEMBERS, GsImage, RosterEntry, Usage
from backstores.metadata.gsquorum import (
    MOST_DETACHED,
    Candidate,
    Look,
    choose,
    committed,
    next_members,
    staleness,
    with_entries,
)
from backstores.wwn import Wwn
from tests.support.gs import alu, alus, image

EPOCH = 5
OLD = image(6, epoch=EPOCH, generation=7)
STATES = ("new", "old", "blank", "doubt", "stale", "away")
VOTING = frozenset({"new", "old", "blank"})


def look(name: Wwn, state: str, old: GsImage, new: GsImage) -> Look | None:
    """Make what is read of a member in one of the states."""
    match state:
        case "away":
            return None
        case "doubt":
            return Look(Copy(name, image=None, doubt="damaged"), EPOCH)
        case "stale":
            return Look(Copy(name, image=replace(old, epoch=EPOCH - 1)), EPOCH - 1)
        case "blank":
            return Look(Copy(name), EPOCH)
        case _:
            return Look(Copy(name, image=new if state == "new" else old), EPOCH)


def looks(states: Sequence[str], old: GsImage, new: GsImage) -> list[Look]:
    pairs = zip(alus(len(states)), states, strict=True)
    return [found for name, state in pairs if (found := look(name, state, old, new)) is not None]


@pytest.mark.parametrize("count", range(1, MOST_MEMBERS + 1))
def test_every_subset_of_members(count: int) -> None:
    """M4: a set is usable exactly where a majority has a vote; then it is the newest image that any of them holds."""
    old, new = image(count, epoch=EPOCH, generation=7), image(count, epoch=EPOCH, generation=8)
    for states in itertools.product(STATES, repeat=count):
        choice = choose(looks(states, old, new))
        if choice.image is None:
            assert not {"new", "old", "stale"} & set(states)
            continue
        voting = sum(state in VOTING for state in states)
        assert choice.usable == (2 * voting > count), states
        assert (choice.image == new) == ("new" in states), states
        assert len(choice.stale) == states.count("stale")
        silent = {name for name, state in zip(alus(count), states, strict=True) if state not in VOTING}
        assert set(choice.missing) == (set() if choice.usable else silent)
        if 2 * states.count("new") > count:  # it was committed
            assert choice.image == new


@pytest.mark.parametrize("count", range(1, MOST_MEMBERS))
def test_every_subset_while_the_members_change(count: int) -> None:
    """M4: an image that names old and new members needs a majority of both to be taken up."""
    total = MOST_MEMBERS
    before = alus(total)[-count:]
    members = alus(total)[: total - 1]
    joint = GsImage(EPOCH, 8, 0, members, before)
    for present in itertools.product((True, False), repeat=total):
        there = {name for name, is_there in zip(alus(total), present, strict=True) if is_there}
        if not there:
            continue
        choice = choose([Look(Copy(name, image=joint), EPOCH) for name in sorted(there)])
        both = all(2 * len(there & set(group)) > len(group) for group in (members, before))
        assert choice.usable == both == committed(joint, there)


def test_an_older_epoch_never_wins_by_its_generation() -> None:
    """M5: what an older writer left on a minority does not count, however often it wrote."""
    late = replace(OLD, epoch=EPOCH - 1, generation=1000)
    found = [Look(Copy(alu(0), image=late), EPOCH), *(Look(Copy(alu(n), image=OLD), EPOCH) for n in range(1, 5))]
    assert choose(found).image == OLD


@pytest.mark.parametrize("epochs", [(0, 0), (0, 3), (9, 3)])
def test_without_any_image_only_alus_that_no_set_has_fenced_may_form_one(epochs: tuple[int, int]) -> None:
    choice = choose([Look(Copy(alu(number)), epoch) for number, epoch in enumerate(epochs)])
    assert choice.image is None
    assert choice.usable == (set(epochs) == {0})
    assert choice.epoch == max(epochs)


def test_two_images_of_one_order_are_a_contradiction() -> None:
    """M6: nobody of ours writes that; a person must look."""
    other = replace(OLD, time_ns=1)
    choice = choose([Look(Copy(alu(n), image=one), EPOCH) for n, one in enumerate([OLD, OLD, OLD, OLD, other])])
    assert not choice.usable
    assert "two different images of epoch 5, generation 7" in choice.contradiction


def test_of_several_first_images_any_will_do() -> None:
    """They are of attempts to form a set that were cut short, and say nothing yet."""
    first = GsImage(1, 1, 1, alus(3))
    other = GsImage(1, 1, 2, (alu(2), alu(3)))
    choice = choose([Look(Copy(alu(0), image=first)), Look(Copy(alu(1))), Look(Copy(alu(2), image=other))])
    assert choice.usable
    assert choice.image == first


@pytest.mark.parametrize(
    ("epoch", "generation", "stale"),
    [
        (5, 7, False),
        (6, 7, False),
        (5, 9, False),
        (5, None, False),
        (4, 9, True),
        (5, 6, True),
        (6, 6, True),
        (4, None, True),
    ],
)
def test_what_is_an_older_copy(epoch: int, generation: int | None, stale: bool) -> None:
    """R4, R30: a late return has what the roster says of it; what has less was copied before that."""
    known = replace(OLD, roster=(RosterEntry(alu(0), "/disks/0", epoch=5, generation=7),))
    why = staleness(Look(Copy(alu(0)), epoch, generation), known)
    assert bool(why) is stale
    assert staleness(Look(Copy(alu(1)), epoch, generation), known) == "", "nothing is known of it"


DISKS = st.lists(st.integers(0, 5), min_size=1, max_size=10)


def candidates(disks: Sequence[int]) -> list[Candidate]:
    return [Candidate(alu(number), f"disk {disk}") for number, disk in enumerate(disks)]


@given(DISKS, st.data())
def test_members_lie_on_as_many_disks_as_can_be(disks: list[int], data: st.DataObject) -> None:
    """R4: six where there are six, by different devices where told apart; chosen once, nothing moves."""
    there = candidates(disks)
    current = data.draw(st.lists(st.sampled_from(alus(12)), unique=True, max_size=MOST_MEMBERS))
    members = next_members(current, there)
    chosen = [one for one in there if one.alu in members]
    assert len(chosen) == min(MOST_MEMBERS, len(there))
    assert len({one.disk for one in chosen}) == min(MOST_MEMBERS, len(set(disks)))
    assert len(set(members)) == len(members) <= MOST_MEMBERS
    assert set(members) - {one.alu for one in chosen} <= set(current)
    assert set(next_members(members, there)) == set(members)


EXAMPLES = {
    "first": ((), (0, 1, 2), (0, 1, 2)),
    "grows": ((0, 1), (0, 1, 2), (0, 1, 2)),
    "is-full": ((0, 1, 2, 3, 4, 5), range(8), (0, 1, 2, 3, 4, 5)),
    "replaces": ((0, 1, 2, 3, 4, 5), (0, 2, 3, 4, 5, 6), (0, 2, 3, 4, 5, 6)),
    "keeps-one-of-three-that-is-away": ((0, 1, 2), (0, 1), (0, 1, 2)),
    "lets-one-of-four-go": ((0, 1, 2, 3), (0, 1, 3), (0, 1, 3)),
    "lets-one-of-six-go": ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 5), (0, 1, 2, 3, 5)),
    "keeps-two-of-five": ((0, 1, 2, 3, 4), (0, 1, 2), (0, 1, 2, 3, 4)),
    "is-alone": ((0,), (0,), (0,)),
}


@pytest.mark.parametrize(("current", "there", "expected"), EXAMPLES.values(), ids=EXAMPLES)
def test_who_is_a_member_next(current: Sequence[int], there: Sequence[int], expected: Sequence[int]) -> None:
    """R4: the set grows and mends itself; members that are away stay where that costs no majority."""
    found = next_members([alu(n) for n in current], [Candidate(alu(n), f"disk {n}") for n in there])
    assert set(found) == {alu(n) for n in expected}


@pytest.mark.parametrize(
    ("epoch", "generation", "expected"),
    [(5, 9, (5, 9)), (5, 6, (5, 7)), (4, 6, (5, 7)), (6, 3, (6, 3))],
    ids=["newer", "older-objects", "older-epoch", "next-epoch"],
)
def test_the_roster_does_not_go_back_in_one_epoch(epoch: int, generation: int, expected: tuple[int, int]) -> None:
    """M2: an ALU that is seen with less is an older copy; the roster must go on saying so."""
    known = [RosterEntry(alu(0), "a", epoch=5, generation=7)]
    [entry] = with_entries(known, [RosterEntry(alu(0), "b", epoch=epoch, generation=generation)])
    assert (entry.path, entry.epoch, entry.generation) == ("b", *expected)


def test_only_so_many_detached_alus_are_remembered() -> None:
    """The roster has an end: those longest gone are forgotten first, never one that is attached."""
    gone = [RosterEntry(alu(n), "", Usage.DETACHED, epoch=n) for n in range(1, MOST_DETACHED + 3)]
    kept = with_entries([RosterEntry(alu(500), "here"), *gone], ())
    assert len(kept) == MOST_DETACHED + 1
    assert {alu(1), alu(2)}.isdisjoint(entry.alu for entry in kept)
