"""Striping: consecutive chunks go round robin over equal members (R7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backstores.block import Node, Op, Piece
from backstores.errors import CorruptError
from backstores.objects import AnyObject, StripeObject
from backstores.transforms.base import Setting, Stages, in_one_stage
from backstores.transforms.partition import fitted
from backstores.wwn import short


@dataclass(frozen=True, slots=True)
class Stripe:
    """Spread chunks over equal children, each of which holds whole chunks."""

    children: tuple[Node, ...]
    chunk_blocks: int

    @property
    def blocks(self) -> int:
        """The capacity in blocks."""
        return len(self.children) * self.children[0].blocks

    def map(self, lba: int, blocks: int) -> Iterator[Piece]:
        """Yield one piece a chunk that the range touches."""
        if len(self.children) == 1:
            yield Piece(0, lba, blocks, 0)
            return
        at = 0
        while at < blocks:
            chunk, skip = divmod(lba + at, self.chunk_blocks)
            row, child = divmod(chunk, len(self.children))
            run = min(blocks - at, self.chunk_blocks - skip)
            yield Piece(child, row * self.chunk_blocks + skip, run, at)
            at += run

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Pass on what ``map`` says."""
        return in_one_stage(self, op, lba, blocks)

    @classmethod
    def of(cls, definition: AnyObject, children: tuple[Node, ...], _setting: Setting) -> Stripe:
        """Build it from its definition.

        Raises:
            CorruptError: its size is not one of whole rows, or a member is too small.
        """
        assert isinstance(definition, StripeObject)
        name = f"stripe {short(definition.wwn)}"
        chunk_blocks = definition.chunk_blocks
        row_blocks = chunk_blocks * len(children)
        if chunk_blocks < 1 or definition.blocks % row_blocks:
            raise CorruptError(f"{name}: {definition.blocks} blocks are not whole rows of {row_blocks}")
        column_blocks = definition.blocks // len(children)
        return cls(tuple(fitted(child, column_blocks, name) for child in children), chunk_blocks)
