"""What the transforms share: the form of a map that never changes, and what a tree is built with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backstores.block import Effect, Node, Op, Piece
from backstores.wwn import Wwn

Stages = Iterable[Iterable[Piece | Effect]]


class StaticMap(Protocol):
    """A transform that maps blocks alike for every operation and at all times."""

    @property
    def children(self) -> Sequence[Node]:
        """The nodes below."""

    def map(self, lba: int, blocks: int) -> Iterator[Piece]:
        """Yield the pieces that back [lba, lba + blocks), in order."""


def in_one_stage(node: StaticMap, op: Op, lba: int, blocks: int) -> Stages:
    """Say everything at once; a FLUSH goes to every child, whatever its range."""
    if op is Op.FLUSH:
        yield (Piece(number, 0, child.blocks, 0) for number, child in enumerate(node.children))
    else:
        yield node.map(lba, blocks)


@dataclass(frozen=True, slots=True)
class OneChild:
    """A map over one child: as large, and handing on every request as it is, unless it says otherwise."""

    child: Node

    @property
    def children(self) -> tuple[Node]:
        """The node below, as in the other transforms."""
        return (self.child,)

    @property
    def blocks(self) -> int:
        """The capacity in blocks."""
        return self.child.blocks

    def map(self, lba: int, blocks: int) -> Iterator[Piece]:
        """Yield the same range."""
        yield Piece(0, lba, blocks, 0)

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Pass on what ``map`` says."""
        return in_one_stage(self, op, lba, blocks)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a tree is built with, beside its definitions.

    ``pinned`` names, for a mirror, the one leg that all its reads go to: while dirty regions are
    being copied, two reads of one block must not come from different legs (D2).
    """

    block_bytes: int
    pinned: Mapping[Wwn, Wwn] = field(default_factory=dict)
