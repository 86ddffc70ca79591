"""Concatenation: members one behind the other (R7)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from backstores.block import Node, Op, Piece
from backstores.errors import CorruptError
from backstores.objects import AnyObject, ConcatObject
from backstores.transforms.base import Setting, Stages, in_one_stage
from backstores.wwn import short


@dataclass(frozen=True, slots=True)
class Concat:
    """Put children of any size one behind the other. ``ends`` holds the first block behind each."""

    children: tuple[Node, ...]
    ends: tuple[int, ...]

    @classmethod
    def over(cls, children: Sequence[Node]) -> Concat:
        """Join children."""
        return cls(tuple(children), tuple(accumulate(child.blocks for child in children)))

    @property
    def blocks(self) -> int:
        """The capacity in blocks."""
        return self.ends[-1]

    def map(self, lba: int, blocks: int) -> Iterator[Piece]:
        """Yield one piece a child that the range touches."""
        at = 0
        number = bisect_right(self.ends, lba)
        while at < blocks:
            end = self.ends[number]
            run = min(blocks, end - lba) - at
            yield Piece(number, lba + at - end + self.children[number].blocks, run, at)
            at += run
            number += 1

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Pass on what ``map`` says."""
        return in_one_stage(self, op, lba, blocks)

    @classmethod
    def of(cls, definition: AnyObject, children: tuple[Node, ...], _setting: Setting) -> Concat:
        """Build it from its definition.

        Raises:
            CorruptError: the members' sizes don't make up its own.
        """
        assert isinstance(definition, ConcatObject)
        joined = cls.over(children)
        if joined.blocks != definition.blocks:
            raise CorruptError(
                f"concat {short(definition.wwn)} has {definition.blocks} blocks, its members {joined.blocks}"
            )
        return joined
