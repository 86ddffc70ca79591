"""Faults that a test, or a person who tests, puts into a tree: error, delay and log."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from backstores.block import Fail, Note, Op, Pause
from backstores.transforms.base import OneChild, Stages

EVERY_OP = frozenset(Op)


@dataclass(frozen=True, slots=True)
class Error(OneChild):
    """Fail operations that touch the bad blocks [start, end); a FLUSH touches them all."""

    start: int
    end: int
    ops: frozenset[Op] = EVERY_OP
    errno: int = errno.EIO

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Fail, or pass on."""
        touched = op is Op.FLUSH or (lba < self.end and self.start < lba + blocks)
        return [[Fail(self.errno)]] if op in self.ops and touched else OneChild.stages(self, op, lba, blocks)


@dataclass(frozen=True, slots=True)
class Delay(OneChild):
    """Let time pass before an operation."""

    seconds: float
    ops: frozenset[Op] = EVERY_OP

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Pause, then pass on."""
        if op in self.ops:
            yield [Pause(self.seconds)]
        yield from OneChild.stages(self, op, lba, blocks)


@dataclass(frozen=True, slots=True)
class Log(OneChild):
    """Tell the log about every operation before it begins."""

    name: str

    def stages(self, op: Op, lba: int, blocks: int) -> Stages:
        """Note, then pass on."""
        yield [Note(f"{self.name}: {op.value} lba {lba} + {blocks} blocks")]
        yield from OneChild.stages(self, op, lba, blocks)
