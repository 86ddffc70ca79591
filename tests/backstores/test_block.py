"""How the answers of transforms become one plan, and what the door of the data path refuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest

from backstores.block import (
    Effect,
    Fail,
    Leaf,
    LeafOp,
    MarkDirty,
    Node,
    Note,
    Op,
    OutOfRange,
    Piece,
    Request,
    Segment,
    check,
    leaves,
    plan,
)
from backstores.errors import UsageError
from tests.support.trees import make_leaf

A, B = make_leaf(1, 100), make_leaf(2, 100)
MIRROR = make_leaf(3, 1).wwn


@dataclass
class Script:
    """A transform that gives the same answer whatever it is asked."""

    children: Sequence[Node]
    answer: Sequence[Sequence[Piece | Effect]]
    blocks: int = 200

    def stages(self, op: Op, lba: int, blocks: int) -> Iterable[Iterable[Piece | Effect]]:
        return self.answer


def read(leaf: Leaf, lba: int, blocks: int, *segments: tuple[int, int]) -> LeafOp:
    return LeafOp(leaf, Op.READ, lba, blocks, [Segment(*segment) for segment in segments])


def test_a_leaf_is_a_plan_of_one_step() -> None:
    assert plan(A, Op.READ, 7, 3) == [[read(A, 7, 3, (0, 3))]]


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.FLUSH])
def test_an_operation_on_no_blocks_is_an_empty_plan(op: Op) -> None:
    root = Script([A], [[MarkDirty(MIRROR, 0, 0)], [Piece(0, 0, 0, 0)]])
    assert plan(root, op, 5, 0) == []


def test_a_flush_names_the_whole_leaf_whatever_its_range() -> None:
    assert plan(A, Op.FLUSH, 7, 3) == [[LeafOp(A, Op.FLUSH, 0, 100, [])]]
    assert plan(Script([A], [[Piece(0, 0, 0, 0)]]), Op.FLUSH, 0, 0) == [[LeafOp(A, Op.FLUSH, 0, 100, [])]]


def test_consecutive_pieces_of_a_leaf_are_one_step_with_a_segment_each() -> None:
    root = Script([A, B], [[Piece(0, 10, 4, 0), Piece(1, 10, 4, 4), Piece(0, 14, 2, 8)]])
    assert plan(root, Op.READ, 0, 10) == [[read(A, 10, 6, (0, 4), (8, 2)), read(B, 10, 4, (4, 4))]]


@pytest.mark.parametrize("second", [15, 13, 8], ids=["gap", "overlap", "backwards"])
def test_pieces_that_do_not_follow_each_other_stay_apart(second: int) -> None:
    root = Script([A], [[Piece(0, 10, 4, 0), Piece(0, second, 2, 4)]])
    assert plan(root, Op.READ, 0, 6) == [[read(A, 10, 4, (0, 4)), read(A, second, 2, (4, 2))]]


def test_pieces_of_different_stages_stay_apart() -> None:
    root = Script([A], [[Piece(0, 0, 4, 0)], [Piece(0, 4, 4, 4)]])
    assert plan(root, Op.READ, 0, 8) == [[read(A, 0, 4, (0, 4))], [read(A, 4, 4, (4, 4))]]


def test_consecutive_marks_of_a_mirror_are_one() -> None:
    """A write of many chunks must not wait for as many marks (D2)."""
    other = A.wwn
    root = Script(
        [], [[MarkDirty(MIRROR, 0, 8), MarkDirty(other, 0, 8), MarkDirty(MIRROR, 8, 8), MarkDirty(MIRROR, 20, 1)]]
    )
    assert plan(root, Op.WRITE, 0, 8) == [[MarkDirty(MIRROR, 0, 16), MarkDirty(other, 0, 8), MarkDirty(MIRROR, 20, 1)]]


def test_effects_stay_in_their_stage() -> None:
    root = Script([A], [[Note("before")], [Piece(0, 0, 1, 0)], [Fail(5)]])
    assert plan(root, Op.READ, 0, 1) == [[Note("before")], [read(A, 0, 1, (0, 1))], [Fail(5)]]


def test_the_stages_of_siblings_run_side_by_side_and_the_parents_next_one_after_both() -> None:
    slow = Script([A], [[Note("first")], [Piece(0, 0, 1, 0)]])
    root = Script([slow, B], [[Piece(0, 0, 1, 0), Piece(1, 0, 1, 1)], [Note("last")]])
    assert plan(root, Op.READ, 0, 2) == [
        [Note("first"), read(B, 0, 1, (1, 1))],
        [read(A, 0, 1, (0, 1))],
        [Note("last")],
    ]


def test_positions_in_the_data_add_up_over_the_levels() -> None:
    inner = Script([A], [[Piece(0, 50, 2, 3)]])
    assert plan(Script([inner], [[Piece(0, 0, 9, 10)]]), Op.READ, 0, 20) == [[read(A, 50, 2, (13, 2))]]


def test_leaves_are_listed_from_the_first_to_the_last() -> None:
    assert list(leaves(Script([Script([B], []), A], []))) == [B, A]
    assert list(leaves(A)) == [A]


def request(op: Op, lba: int, blocks: int, length_bytes: int | None = None) -> Request:
    return Request(op, lba, blocks, None if length_bytes is None else memoryview(bytes(length_bytes)))


@pytest.mark.parametrize(
    "good",
    [
        request(Op.READ, 0, 100, 51200),
        request(Op.WRITE, 99, 1, 512),
        request(Op.DISCARD, 0, 100),
        request(Op.FLUSH, 0, 0),
        request(Op.READ, 100, 0),
    ],
    ids=["whole", "last block", "no data", "flush", "nothing at the end"],
)
def test_the_door_lets_pass_what_fits(good: Request) -> None:
    check(good, 100, 512)


@pytest.mark.parametrize(
    "bad",
    [
        request(Op.READ, 100, 1, 512),
        request(Op.WRITE, 99, 2, 1024),
        request(Op.DISCARD, -1, 2),
        request(Op.ZERO, 5, -1),
        request(Op.STATUS, 1 << 64, 1),
    ],
    ids=["past the end", "across the end", "before the start", "negative length", "far away"],
)
def test_the_door_refuses_ranges_that_do_not_lie_on_the_device(bad: Request) -> None:
    with pytest.raises(OutOfRange, match=rf"lba {bad.lba} \+ {bad.blocks} blocks is past the end \(100\)"):
        check(bad, 100, 512)


@pytest.mark.parametrize("length", [None, 511, 1024])
@pytest.mark.parametrize("op", [Op.READ, Op.WRITE])
def test_the_door_refuses_data_of_another_length(op: Op, length: int | None) -> None:
    with pytest.raises(UsageError, match=f"{op.value} of 1 blocks of 512 bytes with {length or 0} bytes"):
        check(request(op, 0, 1, length), 100, 512)
