"""Partitions: a range as a device, and the leaf of a partition object (R7)."""

from __future__ import annotations

import pytest

from backstores.block import Leaf, LeafOp, Op, Piece, plan
from backstores.errors import CorruptError
from backstores.objects import Extent, PartitionObject
from backstores.transforms.base import Setting
from backstores.transforms.partition import Partition, fitted, leaf
from tests.support.trees import make_leaf

LEAF = make_leaf(1, 100)


def definition(start_bytes: int, length_bytes: int) -> PartitionObject:
    return PartitionObject(wwn=LEAF.wwn, volume=LEAF.wwn, alu=LEAF.alu, extent=Extent(start_bytes, length_bytes))


def test_blocks_are_moved_by_the_start() -> None:
    part = Partition(LEAF, 30, 20)
    assert part.blocks == 20
    assert list(part.map(0, 20)) == [Piece(0, 30, 20, 0)]
    assert list(part.map(19, 1)) == [Piece(0, 49, 1, 0)]


def test_a_flush_goes_to_the_child() -> None:
    assert plan(Partition(LEAF, 30, 20), Op.FLUSH, 0, 0) == [[LeafOp(LEAF, Op.FLUSH, 0, 100, [])]]


def test_a_child_that_fits_is_left_alone_and_a_larger_one_is_cut() -> None:
    assert fitted(LEAF, 100, "test") is LEAF
    assert fitted(LEAF, 99, "test") == Partition(LEAF, 0, 99)


def test_a_child_that_is_too_small_is_refused() -> None:
    with pytest.raises(CorruptError, match="test needs 101 blocks of a member that has 100"):
        fitted(LEAF, 101, "test")


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_a_leaf_counts_in_the_volumes_blocks(block_bytes: int) -> None:
    made = leaf(definition(8 << 20, 1 << 20), (), Setting(block_bytes))
    assert made == Leaf(LEAF.wwn, LEAF.alu, 8 << 20, (1 << 20) // block_bytes)


@pytest.mark.parametrize(
    ("start_bytes", "length_bytes"),
    [(-4096, 4096), (0, 0), (0, -4096), (512, 4096), (4096, 512)],
    ids=["negative start", "empty", "negative length", "start in a block", "end in a block"],
)
def test_an_extent_that_is_not_of_whole_blocks_is_refused(start_bytes: int, length_bytes: int) -> None:
    with pytest.raises(CorruptError, match=f"{length_bytes} bytes at {start_bytes} are not whole blocks of 4096"):
        leaf(definition(start_bytes, length_bytes), (), Setting(4096))
