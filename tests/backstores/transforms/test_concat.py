"""Concatenations: members one behind the other (R7)."""

from __future__ import annotations

import pytest

from backstores.block import Piece
from backstores.errors import CorruptError
from backstores.objects import ConcatObject
from backstores.transforms.base import Setting
from backstores.transforms.concat import Concat
from tests.support.trees import make_leaf

LEAVES = tuple(make_leaf(blocks, blocks) for blocks in (5, 1, 2, 7))
CONCAT = Concat.over(LEAVES)


def test_a_concat_is_as_large_as_its_members() -> None:
    assert CONCAT.blocks == 15


@pytest.mark.parametrize(
    ("lba", "blocks", "pieces"),
    [
        pytest.param(0, 5, [Piece(0, 0, 5, 0)], id="one member"),
        pytest.param(4, 2, [Piece(0, 4, 1, 0), Piece(1, 0, 1, 1)], id="one boundary"),
        pytest.param(5, 1, [Piece(1, 0, 1, 0)], id="a member of one block"),
        pytest.param(
            3, 8, [Piece(0, 3, 2, 0), Piece(1, 0, 1, 2), Piece(2, 0, 2, 3), Piece(3, 0, 3, 5)], id="three boundaries"
        ),
        pytest.param(14, 1, [Piece(3, 6, 1, 0)], id="the last block"),
    ],
)
def test_where_blocks_lie(lba: int, blocks: int, pieces: list[Piece]) -> None:
    assert list(CONCAT.map(lba, blocks)) == pieces


def test_arithmetic_holds_beyond_8_eib() -> None:
    """Every number is exact at sizes that a float or 64 bits would spoil (R7)."""
    huge = (1 << 63) - 1
    concat = Concat.over([make_leaf(1, huge), make_leaf(2, huge), make_leaf(3, 1)])
    assert concat.blocks == 2 * huge + 1
    assert list(concat.map(huge - 1, 2)) == [Piece(0, huge - 1, 1, 0), Piece(1, 0, 1, 1)]
    assert list(concat.map(2 * huge - 1, 2)) == [Piece(1, huge - 1, 1, 0), Piece(2, 0, 1, 1)]


@pytest.mark.parametrize("blocks", [14, 16, -15])
def test_a_definition_of_another_size_than_its_members_is_refused(blocks: int) -> None:
    name = LEAVES[0].wwn
    bad = ConcatObject(wwn=name, volume=name, children=tuple(leaf.wwn for leaf in LEAVES), blocks=blocks)
    with pytest.raises(CorruptError, match=f"has {blocks} blocks, its members 15"):
        Concat.of(bad, LEAVES, Setting(512))
