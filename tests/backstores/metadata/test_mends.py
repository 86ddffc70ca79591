"""What is mended of what the ALUs hold, and what is left alone."""

from __future__ import annotations

import msgspec
import pytest

from backstores.metadata.findings import Finding, Problem
from backstores.metadata.mends import Action, mended, mends, summary
from backstores.metadata.merge import AluRecord, system_image
from backstores.objects import DELETED_LAYOUT, AnyObject, Deletion, VolumeObject
from backstores.wwn import Wwn
from tests.support.metadata import ALU, OTHER_ALU, mirror, name, partition, stripe, volume

VOLUME, MIRROR = volume(2, 3), mirror(3, [4, 5])
LEFT, RIGHT = partition(4, 8), partition(5, 8, alu=OTHER_ALU)
WHOLE = (VOLUME, MIRROR, LEFT), (VOLUME, MIRROR, RIGHT)
NEWER = volume(2, 3, generation=2, called="renamed")

Objects = tuple[AnyObject, ...]
Told = set[tuple[Wwn, Action, AnyObject]]
PUT, DROP = Action.PUT, Action.DROP


def tombstone(*missing: int, alus: tuple[Wwn, ...] = (ALU, OTHER_ALU), generation: int = 2) -> VolumeObject:
    waits = Deletion(alus=alus, missing=tuple(name(number) for number in missing))
    return msgspec.structs.replace(VOLUME, generation=generation, layout=DELETED_LAYOUT, deletion=waits)


OLD_TOMBSTONE = msgspec.structs.replace(tombstone(), deletion=msgspec.UNSET)  # of the first format version


def told(left: Objects, right: Objects | None, complete: bool = True, *findings: Finding) -> Told:
    records = [AluRecord(ALU, left, findings)]
    if right is not None:
        records.append(AluRecord(OTHER_ALU, right))
    return {(mend.alu, mend.action, mend.item) for mend in mends(records, system_image(records), complete)}


def dropped(left: Objects, right: Objects = ()) -> Told:
    return {(ALU, DROP, item) for item in left} | {(OTHER_ALU, DROP, item) for item in right}


CASES: dict[str, tuple[Objects, Objects, Told]] = {
    "nothing-is-wrong": (*WHOLE, set()),
    "a-copy-is-missing": ((VOLUME, MIRROR, LEFT), (VOLUME, RIGHT), {(OTHER_ALU, PUT, MIRROR)}),
    "a-copy-is-old": ((VOLUME, MIRROR, LEFT), (NEWER, MIRROR, RIGHT), {(ALU, PUT, NEWER)}),
    "only-one-volume-object": ((VOLUME, MIRROR, LEFT), (MIRROR, RIGHT), {(OTHER_ALU, PUT, VOLUME)}),
    "a-volume-never-came-to-be": ((MIRROR, LEFT), (MIRROR, RIGHT), dropped((MIRROR, LEFT), (MIRROR, RIGHT))),
    "growth-never-came-to-be": (
        (*WHOLE[0], stripe(6, [3, 7])),
        (*WHOLE[1], partition(7, 9, alu=OTHER_ALU)),
        dropped((stripe(6, [3, 7]),), (partition(7, 9, alu=OTHER_ALU),)),
    ),
    "a-copy-where-no-part-is": (
        (VOLUME, LEFT, volume(12, 14, called="one")),
        (RIGHT, VOLUME, partition(14, 9, tree=12, alu=OTHER_ALU), MIRROR),
        {(ALU, PUT, MIRROR), (OTHER_ALU, PUT, volume(12, 14, called="one"))},
    ),
    "settled-copies-where-no-part-is": (
        (volume(2, 4), LEFT),
        (volume(2, 4),),
        dropped((), (volume(2, 4),)),
    ),
    "the-newest-copy-is-where-no-part-is": (
        (volume(2, 4), LEFT),
        (volume(2, 4, generation=2),),
        {(ALU, PUT, volume(2, 4, generation=2))},
    ),
    "deleted-everywhere": ((tombstone(),), (tombstone(),), dropped((tombstone(),), (tombstone(),))),
    "deleted-but-on-one": (
        (tombstone(),),
        WHOLE[1],
        {(OTHER_ALU, PUT, tombstone()), *dropped((), (MIRROR, RIGHT))},
    ),
    "deleted-and-waiting-for-an-alu": (
        (tombstone(alus=(ALU, name(9))),),
        (),
        {(OTHER_ALU, PUT, tombstone(alus=(ALU, name(9))))},
    ),
    "deleted-and-waiting-for-a-part": ((tombstone(9),), (), {(OTHER_ALU, PUT, tombstone(9))}),
    "waiting-everywhere": ((tombstone(9),), (tombstone(9),), set()),
    "a-part-turned-up": (
        (tombstone(5, alus=(ALU,)),),
        (RIGHT,),
        {
            (ALU, PUT, tombstone(generation=3)),
            (OTHER_ALU, PUT, tombstone(generation=3)),
            (OTHER_ALU, DROP, RIGHT),
        },
    ),
    "a-part-turned-up-and-leads-to-another": (
        (tombstone(3, 5, alus=(ALU,)),),
        (MIRROR,),
        {
            (ALU, PUT, tombstone(4, 5, generation=3)),
            (OTHER_ALU, PUT, tombstone(4, 5, generation=3)),
            (OTHER_ALU, DROP, MIRROR),
        },
    ),
    "deleted-by-the-first-format": ((OLD_TOMBSTONE,), (), dropped((OLD_TOMBSTONE,))),
    "deleted-by-the-first-format-with-parts": ((OLD_TOMBSTONE,), (RIGHT,), dropped((), (RIGHT,))),
    "deleted-twice": (
        (tombstone(alus=(ALU,)),),
        (tombstone(9, alus=(OTHER_ALU,)),),
        {(ALU, PUT, tombstone(9)), (OTHER_ALU, PUT, tombstone(9))},
    ),
    "deleted-in-the-generation-of-a-change": ((NEWER,), (tombstone(9),), {(ALU, PUT, tombstone(9))}),
    "contradictions-are-left-alone": (
        (VOLUME, MIRROR, LEFT),
        (volume(2, 3, called="other"), MIRROR, RIGHT),
        set(),
    ),
    "what-a-contradiction-leads-to-is-left-alone": ((NEWER, LEFT), (volume(2, 9, generation=2), MIRROR, RIGHT), set()),
}


@pytest.mark.parametrize(("left", "right", "expected"), CASES.values(), ids=CASES)
def test_what_is_mended(left: Objects, right: Objects, expected: Told) -> None:
    """R3, M6: all ALUs are there, and could be read whole."""
    assert told(left, right) == expected


CERTAINTY: dict[str, tuple[Objects, Objects, Told]] = {
    "copies-are-put": ((VOLUME, LEFT), (NEWER, MIRROR, RIGHT), {(ALU, PUT, NEWER), (ALU, PUT, MIRROR)}),
    "a-deleted-volume-is-buried": ((tombstone(),), (tombstone(), RIGHT), dropped((), (RIGHT,))),
    "a-tombstone-stays-and-spreads": ((tombstone(),), (), {(OTHER_ALU, PUT, tombstone())}),
    "the-first-format-says-not-for-what": ((OLD_TOMBSTONE,), (), {(OTHER_ALU, PUT, OLD_TOMBSTONE)}),
    "a-volume-object-may-be-away": ((MIRROR, LEFT), (MIRROR, RIGHT), set()),
    "a-grown-volume-object-may-be-away": ((*WHOLE[0], partition(6, 9)), WHOLE[1], set()),
}


@pytest.mark.parametrize(("left", "right", "expected"), CERTAINTY.values(), ids=CERTAINTY)
def test_what_is_mended_while_an_alu_is_away(left: Objects, right: Objects, expected: Told) -> None:
    """R30, M6: nothing that the absent one could give a meaning to is dropped."""
    assert told(left, right, False) == expected


LOST = Finding(Problem.LOST, "object region", "generation 7 can't be read")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((VOLUME, LEFT), WHOLE[1], set()),
        ((MIRROR, LEFT), (MIRROR, RIGHT), set()),
        ((RIGHT,), (tombstone(),), set()),
        ((), (tombstone(alus=(OTHER_ALU,)), RIGHT), dropped((), (RIGHT,))),
    ],
    ids=["it-lacks-a-copy", "it-may-have-had-the-volume", "it-has-a-part", "parts-elsewhere"],
)
def test_an_alu_that_has_lost_something_is_left_alone(left: Objects, right: Objects, expected: Told) -> None:
    """A commit would overwrite the traces of what it lost."""
    assert told(left, right, True, LOST) == expected


def test_a_tombstone_stays_while_an_alu_that_is_left_alone_has_a_part() -> None:
    assert told((partition(4, 8),), (tombstone(alus=(OTHER_ALU,)),), True, LOST) == set()


def test_an_alu_that_is_there_twice_is_left_alone() -> None:
    """A copy of a disk, attached beside it: which is which?"""
    record = AluRecord(ALU, (VOLUME, LEFT))
    records = [record, record, AluRecord(OTHER_ALU, WHOLE[1])]
    assert mends(records, system_image(records), complete=True) == []


def test_what_was_unfinished_or_never_written_keeps_nothing_from_being_mended() -> None:
    harmless = [Finding(problem, "object region", "") for problem in (Problem.UNFINISHED, Problem.ABSENT)]
    assert told((MIRROR, LEFT), (), True, *harmless) == dropped((MIRROR, LEFT))


def test_mended_objects_keep_their_place_and_new_ones_come_last() -> None:
    records = [AluRecord(ALU, (partition(8, 20, tree=9), VOLUME, LEFT)), AluRecord(OTHER_ALU, (NEWER, MIRROR, RIGHT))]
    todo = [mend for mend in mends(records, system_image(records), complete=True) if mend.alu == ALU]
    assert mended(records[0].objects, todo) == [NEWER, LEFT, MIRROR]
    assert summary(todo).count("put 1") == 2
    assert "drop 1 (it has no volume)" in summary(todo)


def test_a_mend_says_what_it_does() -> None:
    records = [AluRecord(ALU, (VOLUME, LEFT)), AluRecord(OTHER_ALU, WHOLE[1])]
    [mend] = mends(records, system_image(records), complete=False)
    assert str(mend) == f"alu {ALU}: put mirror {MIRROR.wwn}: it had no copy of it"
