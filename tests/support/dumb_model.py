"""A model of a volume that is too dumb to be wrong: it looks at one block at a time.

``copies`` writes down, for every block of a tree, all leaf blocks that hold it. The model of the
disks is a dictionary; plans are carried out on it literally, block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backstores.block import Fail, Leaf, LeafOp, MarkDirty, Node, Note, Op, Pause, Plan
from backstores.transforms.concat import Concat
from backstores.transforms.fault import Delay, Error, Log
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition
from backstores.transforms.passthrough import Passthrough
from backstores.transforms.stripe import Stripe
from backstores.wwn import Wwn


class Place(NamedTuple):
    """One block of one leaf."""

    leaf: Wwn
    block: int


class Copies(NamedTuple):
    """Where one block of a volume lies: where a read may find it, and where a write must go."""

    readable: frozenset[Place]
    writable: frozenset[Place]


def copies(node: Node) -> list[Copies]:
    """List where each block of a node lies, from block 0 on."""
    match node:
        case Leaf():
            alone = [frozenset({Place(node.wwn, block)}) for block in range(node.blocks)]
            return [Copies(place, place) for place in alone]
        case Partition():
            return copies(node.child)[node.start : node.start + node.blocks]
        case Passthrough() | Error() | Delay() | Log():
            return copies(node.child)
        case Concat():
            return [block for child in node.children for block in copies(child)]
        case Stripe():
            return _dealt([copies(child) for child in node.children], node.chunk_blocks)
        case Mirror():
            legs = [copies(child) for child in node.children]
            return [
                Copies(
                    frozenset().union(*(legs[leg][block].readable for leg in node.readers)),
                    frozenset().union(*(legs[leg][block].writable for leg in node.writers)),
                )
                for block in range(len(legs[0]))
            ]
    raise AssertionError(f"the model does not know {type(node).__name__}")


def _dealt(hands: Sequence[list[Copies]], chunk_blocks: int) -> list[Copies]:
    """Take one chunk from each hand in turn until all are empty."""
    rest = [list(hand) for hand in hands]
    dealt: list[Copies] = []
    while any(rest):
        for hand in rest:
            dealt += hand[:chunk_blocks]
            del hand[:chunk_blocks]
    return dealt


@dataclass
class Disks:
    """The leaves' contents: a value for every block that was ever written, and what happened on the way."""

    content: dict[Place, int] = field(default_factory=dict)
    flushed: list[Wwn] = field(default_factory=list)
    dirty: set[tuple[Wwn, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    paused_s: float = 0.0

    def carry_out(self, plan: Plan, data: list[int]) -> None:
        """Execute a plan. ``data`` has one value a block: the source of a WRITE, the destination of a READ.

        Raises:
            OSError: the plan says so.
        """
        for stage in plan:
            for step in stage:
                match step:
                    case LeafOp():
                        self._leaf(step, data)
                    case MarkDirty():
                        self.dirty |= {(step.mirror, block) for block in range(step.lba, step.lba + step.blocks)}
                    case Pause():
                        self.paused_s += step.seconds
                    case Note():
                        self.notes.append(step.text)
                    case Fail():
                        raise OSError(step.errno, "the plan fails")

    def _leaf(self, step: LeafOp, data: list[int]) -> None:
        if step.op is Op.FLUSH:
            assert (step.lba, step.blocks, step.segments) == (0, step.leaf.blocks, [])
            self.flushed.append(step.leaf.wwn)
            return
        positions = [at for segment in step.segments for at in range(segment.at, segment.at + segment.blocks)]
        assert len(positions) == step.blocks
        assert step.lba >= 0
        assert step.lba + step.blocks <= step.leaf.blocks
        for block, position in enumerate(positions, step.lba):
            place = Place(step.leaf.wwn, block)
            match step.op:
                case Op.WRITE:
                    self.content[place] = data[position]
                case Op.READ:
                    data[position] = self.content.get(place, 0)
                case Op.ZERO:
                    self.content[place] = 0
                case Op.DISCARD:
                    self.content.pop(place, None)
                case Op.STATUS:
                    data[position] = place in self.content
