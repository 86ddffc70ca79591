"""The system image: what all ALUs together say."""

from __future__ import annotations

import msgspec
import pytest

from backstores.metadata.findings import Finding, Problem
from backstores.metadata.merge import AluRecord, SystemImage, system_image
from backstores.objects import AnyObject, ConcatObject
from backstores.transforms.tree import MAX_DEPTH
from backstores.wwn import Wwn
from tests.support.metadata import ALU, OTHER_ALU, mirror, name, partition, stripe, volume

VOLUME, MIRROR = volume(2, 3), mirror(3, [4, 5])
LEFT, RIGHT = partition(4, 8), partition(5, 8, alu=OTHER_ALU)


def image(left: tuple[AnyObject, ...], right: tuple[AnyObject, ...] | None = None) -> SystemImage:
    records = [AluRecord(ALU, left)]
    return system_image(records if right is None else [*records, AluRecord(OTHER_ALU, right)])


def problems(merged: SystemImage) -> list[tuple[Problem, Wwn | None]]:
    return [(finding.problem, finding.wwn) for finding in merged.findings]


def test_a_whole_volume() -> None:
    """R3: a T2 object on every ALU below it, a partition on its own alone."""
    merged = image((VOLUME, MIRROR, LEFT), (RIGHT, MIRROR, VOLUME))
    (tree,) = merged.volumes
    assert tree.objects == (VOLUME, MIRROR, LEFT, RIGHT)
    assert tree.volume == VOLUME
    assert tree.complete
    assert (merged.findings, merged.orphans) == ((), ())


def test_the_order_of_alus_makes_no_difference() -> None:
    left, right = AluRecord(ALU, (VOLUME, MIRROR, LEFT)), AluRecord(OTHER_ALU, (RIGHT, MIRROR, VOLUME))
    assert system_image([left, right]).volumes == system_image([right, left]).volumes


def test_the_higher_generation_counts() -> None:
    """M2: a change that a crash cut short between two ALUs."""
    newer = volume(2, 3, generation=2, called="renamed")
    merged = image((newer, MIRROR, LEFT), (VOLUME, MIRROR, RIGHT))
    assert merged.volumes[0].volume == newer
    assert merged.volumes[0].complete
    assert problems(merged) == [(Problem.STALE, VOLUME.wwn)]


def test_an_absent_alu_is_told_by_what_is_missing() -> None:
    merged = image((VOLUME, MIRROR, LEFT))
    (tree,) = merged.volumes
    assert not tree.complete
    assert tree.missing == (RIGHT.wwn,)
    assert tree.objects == (VOLUME, MIRROR, LEFT)
    assert [finding.problem for finding in tree.problems] == [Problem.MISSING]
    assert RIGHT.wwn in str(tree.problems[0])


def test_one_broken_volume_holds_up_no_other() -> None:
    """C3."""
    merged = image((VOLUME, MIRROR, LEFT, volume(12, 14, called="whole"), partition(14, 9, tree=12)))
    assert [(tree.volume.name, tree.complete) for tree in merged.volumes] == [("db", False), ("whole", True)]


def test_a_missing_copy_is_told_and_harms_nothing() -> None:
    merged = image((VOLUME, MIRROR, LEFT), (RIGHT,))
    assert merged.volumes[0].complete
    assert problems(merged) == [(Problem.MISSING, MIRROR.wwn), (Problem.MISSING, VOLUME.wwn)]


def test_copies_of_one_generation_that_differ_do_not_count() -> None:
    merged = image((VOLUME, MIRROR, LEFT), (volume(2, 3, called="other"), MIRROR, RIGHT))
    assert merged.volumes == ()
    assert (Problem.CONTRADICTION, VOLUME.wwn) in problems(merged)
    assert set(merged.orphans) == {MIRROR, LEFT, RIGHT}


def test_an_object_that_was_found_wrong_does_not_count_and_the_reason_is_told() -> None:
    wrong = Finding(Problem.OVERLAP, "partition", "it overlaps", LEFT.wwn)
    merged = system_image([AluRecord(ALU, (VOLUME, MIRROR, LEFT), (wrong,)), AluRecord(OTHER_ALU, (RIGHT,))])
    (tree,) = merged.volumes
    assert tree.missing == (LEFT.wwn,)
    assert "it overlaps" in str(tree.problems[0])


def test_a_good_copy_stands_in_for_one_found_wrong() -> None:
    wrong = Finding(Problem.DUPLICATE, "volume", "twice", VOLUME.wwn)
    merged = system_image(
        [AluRecord(ALU, (VOLUME, MIRROR, LEFT), (wrong,)), AluRecord(OTHER_ALU, (VOLUME, MIRROR, RIGHT))]
    )
    assert merged.volumes[0].complete


def test_a_partition_on_an_alu_not_its_own_does_not_count() -> None:
    merged = image((VOLUME, MIRROR, LEFT, RIGHT))
    assert merged.volumes[0].missing == (RIGHT.wwn,)
    assert (Problem.FOREIGN, RIGHT.wwn) in problems(merged)


def test_orphans_are_told() -> None:
    """What a deletion that was cut short leaves."""
    merged = image((MIRROR, LEFT), (MIRROR, RIGHT))
    assert merged.volumes == ()
    assert merged.orphans == (MIRROR, LEFT, RIGHT)
    assert {problem for problem, _ in problems(merged)} == {Problem.ORPHAN}


def concat(number: int, *members: int, tree: int = 2) -> ConcatObject:
    return ConcatObject(
        wwn=name(number), volume=name(tree), children=tuple(name(member) for member in members), blocks=1
    )


@pytest.mark.parametrize(
    "objects",
    [
        (volume(2, 2),),
        (volume(2, 3), concat(3, 3)),
        (volume(2, 3), concat(3, 4), concat(4, 3)),
        (volume(2, 3), concat(3, 4, 4), LEFT),
        (volume(2, 3), concat(3, 4, 6), concat(6, 4), LEFT),
        (volume(2, 3), concat(3, 12), volume(12, 13), partition(13, 9, tree=12)),
        (volume(2, 3), concat(3, 4), partition(4, 8, tree=12)),
    ],
    ids=["own-root", "own-child", "loop", "child-twice", "child-of-two", "volume-inside", "of-another-volume"],
)
def test_a_tree_that_contradicts_itself_ends_and_is_told(objects: tuple[AnyObject, ...]) -> None:
    tree = image(objects).volumes[0]
    assert Problem.CONTRADICTION in {finding.problem for finding in tree.problems}
    assert len(set(tree.objects)) == len(tree.objects)


def test_parents_come_before_children_and_children_in_their_order() -> None:
    objects = (volume(2, 3), stripe(3, [9, 5]), mirror(9, [4]), mirror(5, [6]), partition(4, 8), partition(6, 9))
    (tree,) = image(objects).volumes
    assert [item.wwn for item in tree.objects] == [name(number) for number in (2, 3, 9, 4, 5, 6)]


def test_two_volumes_of_one_name_are_told() -> None:
    merged = image((volume(2, 4), LEFT, volume(12, 14), partition(14, 9, tree=12)))
    assert problems(merged) == [(Problem.DUPLICATE, name(2)), (Problem.DUPLICATE, name(12))]
    assert all(tree.complete for tree in merged.volumes)


def test_no_alus_no_volumes() -> None:
    assert system_image([]) == SystemImage((), (), ())


def test_an_alu_that_is_there_twice_is_told() -> None:
    """A copy of a disk, attached beside it."""
    record = AluRecord(ALU, (volume(2, 4), LEFT))
    merged = system_image([record, record])
    assert merged.volumes == system_image([record]).volumes
    assert [(finding.problem, finding.where) for finding in merged.findings] == [(Problem.DUPLICATE, f"alu {ALU}")]


def test_generation_of_a_mirror_counts_for_itself() -> None:
    """D3 builds on this: the survivors' definition of the mirror is the newer one."""
    degraded = msgspec.structs.replace(MIRROR, generation=2, fail_sequence=1)
    merged = image((VOLUME, MIRROR, LEFT), (VOLUME, degraded, RIGHT))
    assert degraded in merged.volumes[0].objects


@pytest.mark.parametrize(("levels", "complete"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (5000, False)])
def test_a_chain_is_followed_as_far_as_a_tree_may_be_deep(levels: int, complete: bool) -> None:
    """S3: a disk may hold a chain of thousands; nobody behind this need mind how deep he recurses."""
    chain = [stripe(number, [number + 1]) for number in range(3, levels + 2)]
    (tree,) = image((VOLUME, *chain, partition(levels + 2, 8))).volumes
    assert tree.complete is complete
    assert len(tree.objects) <= MAX_DEPTH + 1
    assert complete or "deeper than 16 levels" in str(tree.problems[0])
