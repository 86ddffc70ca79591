"""A range of a child as a device of its own, and the leaf that a partition object becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backstores.block import Leaf, Node, Piece
from backstores.errors import CorruptError
from backstores.objects import AnyObject, PartitionObject
from backstores.transforms.base import OneChild, Setting
from backstores.wwn import short


@dataclass(frozen=True, slots=True)
class Partition(OneChild):
    """Show the blocks [start, start + size_blocks) of the child as [0, size_blocks)."""

    start: int
    size_blocks: int

    @property
    def blocks(self) -> int:
        """The capacity in blocks."""
        return self.size_blocks

    def map(self, lba: int, blocks: int) -> Iterator[Piece]:
        """Yield the range, moved."""
        yield Piece(0, self.start + lba, blocks, 0)


def fitted(child: Node, blocks: int, parent: str) -> Node:
    """Give the first ``blocks`` blocks of a child: space behind them (allocation units) stays unused.

    Raises:
        CorruptError: the child is smaller than that.
    """
    if child.blocks < blocks:
        raise CorruptError(f"{parent} needs {blocks} blocks of a member that has {child.blocks}")
    return child if child.blocks == blocks else Partition(child, 0, blocks)


def leaf(definition: AnyObject, _children: tuple[Node, ...], setting: Setting) -> Leaf:
    """Make the leaf that a partition object describes.

    Raises:
        CorruptError: its extent does not consist of whole blocks.
    """
    assert isinstance(definition, PartitionObject)
    start_bytes, length_bytes = definition.extent.start_bytes, definition.extent.length_bytes
    if start_bytes < 0 or length_bytes <= 0 or (start_bytes | length_bytes) % setting.block_bytes:
        raise CorruptError(
            f"partition {short(definition.wwn)}: {length_bytes} bytes at {start_bytes}"
            f" are not whole blocks of {setting.block_bytes} bytes"
        )
    return Leaf(definition.wwn, definition.alu, start_bytes, length_bytes // setting.block_bytes)
