"""Stripes: chunks round robin (R7)."""

from __future__ import annotations

import pytest

from backstores.block import Leaf, LeafOp, Op, Piece, Segment, plan
from backstores.errors import CorruptError
from backstores.objects import StripeObject
from backstores.transforms.base import Setting
from backstores.transforms.partition import Partition
from backstores.transforms.stripe import Stripe
from tests.support.trees import make_leaf

LEAVES = tuple(make_leaf(number, 12) for number in (1, 2, 3))
STRIPE = Stripe(LEAVES, 4)
HUGE = 1 << 54  # blocks a leg: with 1024 legs of 512-byte blocks, 2^73 bytes


def definition(blocks: int, chunk_blocks: int = 4) -> StripeObject:
    leaf = LEAVES[0]
    children = tuple(leaf.wwn for leaf in LEAVES)
    return StripeObject(wwn=leaf.wwn, volume=leaf.wwn, children=children, chunk_blocks=chunk_blocks, blocks=blocks)


def test_a_stripe_is_as_large_as_its_members() -> None:
    assert STRIPE.blocks == 36


@pytest.mark.parametrize(
    ("lba", "blocks", "pieces"),
    [
        pytest.param(0, 4, [Piece(0, 0, 4, 0)], id="one chunk"),
        pytest.param(5, 2, [Piece(1, 1, 2, 0)], id="inside a chunk"),
        pytest.param(3, 2, [Piece(0, 3, 1, 0), Piece(1, 0, 1, 1)], id="one boundary"),
        pytest.param(11, 2, [Piece(2, 3, 1, 0), Piece(0, 4, 1, 1)], id="from the last column to the first"),
        pytest.param(
            2,
            15,
            [Piece(0, 2, 2, 0), Piece(1, 0, 4, 2), Piece(2, 0, 4, 6), Piece(0, 4, 4, 10), Piece(1, 4, 1, 14)],
            id="four boundaries",
        ),
        pytest.param(35, 1, [Piece(2, 11, 1, 0)], id="the last block"),
    ],
)
def test_where_blocks_lie(lba: int, blocks: int, pieces: list[Piece]) -> None:
    assert list(STRIPE.map(lba, blocks)) == pieces


def test_a_full_read_is_one_step_a_member() -> None:
    [stage] = plan(STRIPE, Op.READ, 0, 36)
    assert stage[0] == LeafOp(LEAVES[0], Op.READ, 0, 12, [Segment(0, 4), Segment(12, 4), Segment(24, 4)])
    assert len(stage) == 3


@pytest.mark.parametrize("width", [2, 3, 1000, 1024])
@pytest.mark.parametrize("chunk_blocks", [1, 128, 1 << 15])
def test_arithmetic_holds_beyond_8_eib(width: int, chunk_blocks: int) -> None:
    """Every number is exact at sizes that a float or 64 bits would spoil (R7)."""
    leaf: Leaf = make_leaf(1, HUGE)
    stripe = Stripe((leaf,) * width, chunk_blocks)
    assert stripe.blocks == width * HUGE
    last = stripe.blocks - 1
    assert list(stripe.map(last, 1)) == [Piece(width - 1, HUGE - 1, 1, 0)]
    boundary = stripe.blocks // 2 // chunk_blocks * chunk_blocks
    before, behind = stripe.map(boundary - 1, 2)
    for piece, lba in ((before, boundary - 1), (behind, boundary)):
        row, skip = divmod(piece.lba, chunk_blocks)
        assert (row * width + piece.child) * chunk_blocks + skip == lba


def test_space_of_a_member_behind_its_last_whole_chunk_is_left() -> None:
    larger = (make_leaf(1, 15), *LEAVES[1:])
    stripe = Stripe.of(definition(36), larger, Setting(512))
    assert stripe.children[0] == Partition(larger[0], 0, 12)
    assert stripe.children[1:] == LEAVES[1:]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param(definition(35), "35 blocks are not whole rows of 12", id="not whole rows"),
        pytest.param(definition(36, chunk_blocks=0), "36 blocks are not whole rows of 0", id="no chunk"),
        pytest.param(definition(36, chunk_blocks=-4), "not whole rows", id="negative chunk"),
        pytest.param(definition(48), "needs 16 blocks of a member that has 12", id="members too small"),
    ],
)
def test_a_damaged_definition_is_refused(bad: StripeObject, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        Stripe.of(bad, LEAVES, Setting(512))
