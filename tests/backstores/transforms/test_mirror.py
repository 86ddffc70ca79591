"""Mirrors: dirty before written, every leg written, one leg read (R7, D2)."""

from __future__ import annotations

import errno

import pytest

from backstores.block import Fail, LeafOp, MarkDirty, Op, Plan, Segment, plan
from backstores.errors import CorruptError, UsageError
from backstores.objects import Leg, LegState, MirrorObject
from backstores.transforms.base import Setting
from backstores.transforms.mirror import Mirror
from tests.support.trees import make_leaf

MIB_BLOCKS = 2048
LEAVES = tuple(make_leaf(number, 8 * MIB_BLOCKS) for number in (1, 2, 3))
WWN = make_leaf(9, 1).wwn
IN_SYNC, STALE, FAILED = LegState
DEAD = [STALE, FAILED]


def mirror(
    *states: LegState, pinned: int | None = None, block_bytes: int = 512, blocks: int = LEAVES[0].blocks
) -> Mirror:
    legs = tuple(Leg(leaf.wwn, state) for leaf, state in zip(LEAVES, states, strict=False))
    definition = MirrorObject(wwn=WWN, volume=WWN, legs=legs, region_blocks=1, blocks=blocks)
    pins = {} if pinned is None else {WWN: LEAVES[pinned].wwn}
    return Mirror.of(definition, LEAVES[: len(legs)], Setting(block_bytes, pins))


def on_legs(op: Op, lba: int, blocks: int, *legs: int) -> list[LeafOp]:
    return [LeafOp(LEAVES[leg], op, lba, blocks, [Segment(0, blocks)]) for leg in legs]


def read_leg(tree: Mirror, lba: int, op: Op = Op.READ) -> int:
    [[step]] = plan(tree, op, lba, 1)
    assert isinstance(step, LeafOp)
    return LEAVES.index(step.leaf)


@pytest.mark.parametrize("op", [Op.WRITE, Op.DISCARD, Op.ZERO])
def test_a_change_marks_the_region_and_then_goes_to_every_leg_at_once(op: Op) -> None:
    """D2: the mark has a stage of its own before any leg is touched."""
    assert plan(mirror(IN_SYNC, IN_SYNC), op, 7, 9) == [[MarkDirty(WWN, 7, 9)], [*on_legs(op, 7, 9, 0, 1)]]


def test_reads_go_round_the_legs_in_steps_of_1_mib() -> None:
    tree = mirror(IN_SYNC, IN_SYNC, IN_SYNC)
    starts = [number * MIB_BLOCKS for number in range(5)]
    assert [read_leg(tree, lba) for lba in starts] == [0, 1, 2, 0, 1]
    assert [read_leg(tree, lba + MIB_BLOCKS - 1) for lba in starts] == [0, 1, 2, 0, 1]


def test_a_step_is_1_mib_with_large_blocks_too() -> None:
    tree = mirror(IN_SYNC, IN_SYNC, block_bytes=4096)
    assert [read_leg(tree, lba) for lba in (255, 256, 511, 512)] == [0, 1, 1, 0]


def test_a_long_read_finds_each_block_where_a_short_one_does() -> None:
    """While a write is on its way to the legs, nobody sees it come and go by reading from elsewhere on."""
    tree = mirror(IN_SYNC, IN_SYNC)
    [steps] = plan(tree, Op.READ, MIB_BLOCKS - 8, MIB_BLOCKS + 16)
    assert steps == [
        LeafOp(LEAVES[0], Op.READ, MIB_BLOCKS - 8, 8, [Segment(0, 8)]),
        LeafOp(LEAVES[1], Op.READ, MIB_BLOCKS, MIB_BLOCKS, [Segment(8, MIB_BLOCKS)]),
        LeafOp(LEAVES[0], Op.READ, 2 * MIB_BLOCKS, 8, [Segment(MIB_BLOCKS + 8, 8)]),
    ]


def test_a_long_read_from_the_last_leg_is_one_step() -> None:
    whole = LEAVES[0].blocks
    assert plan(mirror(FAILED, IN_SYNC), Op.READ, 0, whole) == [[*on_legs(Op.READ, 0, whole, 1)]]


def test_status_asks_one_leg() -> None:
    assert plan(mirror(IN_SYNC, IN_SYNC), Op.STATUS, 0, 9) == [[*on_legs(Op.STATUS, 0, 9, 0)]]


@pytest.mark.parametrize("dead", DEAD)
def test_a_leg_that_is_not_in_sync_is_neither_read_nor_written(dead: LegState) -> None:
    tree = mirror(IN_SYNC, dead, IN_SYNC)
    assert {read_leg(tree, lba) for lba in range(0, tree.blocks, MIB_BLOCKS)} == {0, 2}
    assert plan(tree, Op.WRITE, 0, 1)[1] == on_legs(Op.WRITE, 0, 1, 0, 2)


def test_a_flush_goes_to_every_leg_that_takes_writes() -> None:
    steps = plan(mirror(IN_SYNC, FAILED, IN_SYNC), Op.FLUSH, 0, 0)
    assert steps == [[LeafOp(LEAVES[leg], Op.FLUSH, 0, LEAVES[leg].blocks, []) for leg in (0, 2)]]


@pytest.mark.parametrize("op", Op)
def test_without_a_good_leg_everything_fails(op: Op) -> None:
    expected: Plan = [[Fail(errno.EIO)]]
    assert plan(mirror(FAILED, STALE), op, 0, 1) == expected


def test_while_a_leg_is_pinned_all_reads_go_to_it_and_writes_to_all() -> None:
    """D2: while dirty regions are copied, two reads never come from different legs."""
    tree = mirror(IN_SYNC, IN_SYNC, IN_SYNC, pinned=1)
    assert {read_leg(tree, lba) for lba in range(0, tree.blocks, MIB_BLOCKS)} == {1}
    assert {read_leg(tree, lba, Op.STATUS) for lba in range(0, tree.blocks, MIB_BLOCKS)} == {1}
    assert plan(tree, Op.WRITE, 0, 1)[1] == on_legs(Op.WRITE, 0, 1, 0, 1, 2)


@pytest.mark.parametrize("dead", DEAD)
def test_no_leg_can_be_pinned_that_is_not_in_sync(dead: LegState) -> None:
    with pytest.raises(UsageError, match="is no leg in sync"):
        mirror(IN_SYNC, dead, pinned=1)


def test_a_mirror_larger_than_its_legs_is_refused() -> None:
    with pytest.raises(CorruptError, match="needs 16385 blocks of a member that has 16384"):
        mirror(IN_SYNC, IN_SYNC, blocks=LEAVES[0].blocks + 1)


def test_arithmetic_holds_at_8_eib() -> None:
    """The leg of the last block is exact at a size that a float would spoil (R7)."""
    huge = 1 << 63
    tree = Mirror(WWN, (make_leaf(1, huge), make_leaf(2, huge)), (0, 1), (0, 1), spread_blocks=1)
    [[step]] = plan(tree, Op.READ, huge - 1, 1)
    assert isinstance(step, LeafOp)
    assert (step.leaf, step.lba) == (tree.children[1], huge - 1)
