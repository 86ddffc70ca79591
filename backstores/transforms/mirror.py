"""Mirroring: the same blocks on every leg (R7).

A write that a crash cuts short leaves the legs different. So the dirty bits of what is about to be
written are made durable in a stage of their own, before any leg is touched (D2); after the crash
those regions, and no others, are copied from one leg to the rest.

Each block is read from one leg in sync, chosen by its address alone, so that all legs share the load
while a sequential reader still finds long runs on each. Wherever a read begins, it finds a block on the
same leg as every other: while a write is on its way to the legs, nobody sees it come and go. Only the
caller can know that a leg has failed: it tells the mirror by building a new one with new states.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backstores.block import MUTATING, Fail, MarkDirty, Node, Op, Piece
from backstores.errors import UsageError
from backstores.objects import MIB, AnyObject, LegState, MirrorObject
from backstores.transforms.base import Setting, Stages
from backstores.transforms.partition import fitted
from backstores.wwn import Wwn, short

READABLE: Final = frozenset({LegState.IN_SYNC})
WRITABLE: Final = frozenset({LegState.IN_SYNC})  # a stale leg stays out until it is rebuilt
READING: Final = frozenset({Op.READ, Op.STATUS})
SPREAD_BYTES: Final = MIB  # consecutive blocks that are read from the same leg


@dataclass(frozen=True, slots=True)
class Mirror:
    """Keep children of one size alike. ``readers`` and ``writers`` are the numbers of those that serve."""

    wwn: Wwn
    children: tuple[Node, ...]
    readers: tuple[int, ...]
    writers: tuple[int, ...]
    spread_blocks: int

    @property
    def blocks(self) -> int:
        """The capacity in blocks."""
        return self.children[0].blocks

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Read each block from one leg; mark dirty, then write every leg; flush every leg."""
        if not (self.readers if op in READING else self.writers):
            yield [Fail(errno.EIO)]
            return
        if op in READING:
            yield self._reads(lba, blocks)
            return
        if op in MUTATING:
            yield [MarkDirty(self.wwn, lba, blocks)]
        yield [Piece(leg, lba, blocks, 0) for leg in self.writers]

    def _reads(self, lba: int, blocks: int) -> Iterator[Piece]:
        if len(self.readers) == 1:
            yield Piece(self.readers[0], lba, blocks, 0)
            return
        at = 0
        while at < blocks:
            step, skip = divmod(lba + at, self.spread_blocks)
            run = min(blocks - at, self.spread_blocks - skip)
            yield Piece(self.readers[step % len(self.readers)], lba + at, run, at)
            at += run

    @classmethod
    def of(cls, definition: AnyObject, children: tuple[Node, ...], setting: Setting) -> Mirror:
        """Build it from its definition.

        Raises:
            CorruptError: a leg is too small.
            UsageError: the leg that reads are pinned to is not in sync.
        """
        assert isinstance(definition, MirrorObject)
        name = f"mirror {short(definition.wwn)}"
        readers = tuple(n for n, leg in enumerate(definition.legs) if leg.state in READABLE)
        pinned = setting.pinned.get(definition.wwn)
        if pinned is not None:
            readers = tuple(n for n in readers if definition.legs[n].child == pinned)
            if not readers:
                raise UsageError(f"{name}: {short(pinned)} is no leg in sync, so reads can't be pinned to it")
        return cls(
            wwn=definition.wwn,
            children=tuple(fitted(child, definition.blocks, name) for child in children),
            readers=readers,
            writers=tuple(n for n, leg in enumerate(definition.legs) if leg.state in WRITABLE),
            spread_blocks=SPREAD_BYTES // setting.block_bytes,
        )
