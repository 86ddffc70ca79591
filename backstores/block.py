"""The vocabulary of the data path: a request, and the plan that carries it out.

Theory of operation. A volume is a tree of *transforms* over *leaves*. A transform does no I/O: asked
for a request it answers with *stages*. The steps of one stage run in parallel; the next stage starts
when all of them have ended well. ``plan`` walks the tree and merges what the transforms say into one
plan whose steps are leaf operations, so that no transform ever sees the data:

    a striped read                one stage: one leaf operation a leg
    a write to a clean mirror     mark the region dirty; then write every leg

A step that is no leaf operation (``MarkDirty``, ``Pause``, ``Fail``, ``Note``) is an effect that the
engine carries out; it is how a transform can ask for what it can't do itself.

Range and alignment are checked once, at the volume's door (``check``); transforms trust them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from backstores.errors import TiergateError, UsageError
from backstores.wwn import Wwn


class Op(enum.Enum):
    """The six operations that a block device knows."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"  # all that was acknowledged is on stable storage afterwards
    DISCARD = "discard"  # give the space back; reads as zeros
    ZERO = "zero"  # write zeros, allocated
    STATUS = "status"  # which blocks are backed by storage


MUTATING = frozenset({Op.WRITE, Op.DISCARD, Op.ZERO})


@dataclass(frozen=True, slots=True)
class Request:
    """What a front end asks of a block device.

    ``data`` is the source of a WRITE and the destination of a READ, exactly ``blocks`` blocks long.
    A FLUSH covers the whole device whatever its range says. ``fua``: stable before it is acknowledged.
    """

    op: Op
    lba: int
    blocks: int
    data: memoryview | None = None
    fua: bool = False


class Run(NamedTuple):
    """Consecutive blocks that are alike: the answer to a STATUS request is a list of these."""

    lba: int
    blocks: int
    mapped: bool


class Piece(NamedTuple):
    """A part of a request as a transform hands it to its child number ``child``.

    ``at`` says where its data lies: blocks from the first block of the transform's own request.
    """

    child: int
    lba: int
    blocks: int
    at: int


class Segment(NamedTuple):
    """Where a leaf operation's data lies in the request: blocks from the request's first block."""

    at: int
    blocks: int


@dataclass(slots=True)
class LeafOp:
    """One operation on one leaf. ``lba`` counts from the leaf's start; the segments are consecutive there.

    A FLUSH names the whole leaf and has no segments.
    """

    leaf: Leaf
    op: Op
    lba: int
    blocks: int
    segments: list[Segment]


class MarkDirty(NamedTuple):
    """Make the dirty bits of blocks [lba, lba + blocks) of a mirror durable on its legs (D2)."""

    mirror: Wwn
    lba: int
    blocks: int


class Pause(NamedTuple):
    """Let time pass."""

    seconds: float


class Fail(NamedTuple):
    """End the request with an operating system error, as a failing leaf would."""

    errno: int


class Note(NamedTuple):
    """Tell the log about a request."""

    text: str


Effect = MarkDirty | Pause | Fail | Note
Step = LeafOp | Effect
Stage = list[Step]
Plan = list[Stage]


class Transform(Protocol):
    """A node of a volume's tree."""

    @property
    def blocks(self) -> int:
        """The capacity in blocks."""

    @property
    def children(self) -> Sequence[Node]:
        """The nodes below."""

    def stages(self, op: Op, lba: int, blocks: int) -> Iterable[Iterable[Piece | Effect]]:
        """Say how an operation on [lba, lba + blocks) is carried out on the children."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A partition's extent on an ALU: the only node that has storage. ``start_bytes`` counts on the ALU."""

    wwn: Wwn
    alu: Wwn
    start_bytes: int
    blocks: int

    children: ClassVar[tuple[Node, ...]] = ()


Node = Transform | Leaf


def plan(root: Node, op: Op, lba: int, blocks: int) -> Plan:
    """Turn an operation on the root into stages of steps, each leaf's consecutive pieces as one step."""
    if not blocks and op is not Op.FLUSH:
        return []
    return [_merged(stage) for stage in _expand(root, op, lba, blocks, at=0)]


def _expand(node: Node, op: Op, lba: int, blocks: int, at: int) -> Plan:
    if isinstance(node, Leaf):
        if op is Op.FLUSH:
            return [[LeafOp(node, op, 0, node.blocks, [])]]
        return [[LeafOp(node, op, lba, blocks, [Segment(at, blocks)])]]
    result: Plan = []
    for parts in node.stages(op, lba, blocks):
        base = len(result)
        for part in parts:
            if isinstance(part, Piece):
                below = _expand(node.children[part.child], op, part.lba, part.blocks, at + part.at)
            else:
                below = [[part]]
            for depth, steps in enumerate(below, base):
                if depth == len(result):
                    result.append([])
                result[depth].extend(steps)
    return result


def _merged(stage: Stage) -> Stage:
    """Join steps on one leaf, and marks of one mirror, that are consecutive there."""
    result: Stage = []
    last: dict[Wwn, int] = {}
    for step in stage:
        if isinstance(step, LeafOp | MarkDirty):
            wwn = step.leaf.wwn if isinstance(step, LeafOp) else step.mirror
            if wwn in last and _joined(result, last[wwn], step):
                continue
            last[wwn] = len(result)
        result.append(step)
    return result


def _joined(stage: Stage, index: int, step: LeafOp | MarkDirty) -> bool:
    """Lengthen the step at ``index`` by a step that begins where it ends; say whether it does."""
    before = stage[index]
    assert isinstance(before, LeafOp | MarkDirty)
    if before.lba + before.blocks != step.lba:
        return False
    if isinstance(before, MarkDirty):
        stage[index] = before._replace(blocks=before.blocks + step.blocks)
    else:
        assert isinstance(step, LeafOp)
        before.blocks += step.blocks
        before.segments.extend(step.segments)
    return True


def leaves(root: Node) -> Iterator[Leaf]:
    """Yield the leaves below a node, from the first to the last."""
    if isinstance(root, Leaf):
        yield root
    for child in root.children:
        yield from leaves(child)


def check(request: Request, blocks: int, block_bytes: int) -> None:
    """Refuse a request that does not fit the device: the one place where ranges are checked.

    Raises:
        OutOfRange: it reaches past the end.
        UsageError: its data has another length than its blocks.
    """
    if request.lba < 0 or request.blocks < 0 or request.lba + request.blocks > blocks:
        raise OutOfRange(request.lba, request.blocks, blocks)
    if request.op in (Op.READ, Op.WRITE):
        length = 0 if request.data is None else request.data.nbytes
        if length != request.blocks * block_bytes:
            raise UsageError(
                f"{request.op.value} of {request.blocks} blocks of {block_bytes} bytes with {length} bytes of data"
            )


class BlockError(TiergateError):
    """A request that a device could not carry out. ``lba`` is the first block of the device that is concerned."""

    def __init__(self, message: str, lba: int = 0) -> None:
        super().__init__(message)
        self.lba = lba


class OutOfRange(BlockError):
    """A range that does not lie on the device."""

    def __init__(self, lba: int, blocks: int, limit: int) -> None:
        super().__init__(f"lba {lba} + {blocks} blocks is past the end ({limit})", lba)
        self.blocks = blocks
        self.limit = limit


class ReadFailed(BlockError):
    """No good copy of a block could be read."""


class WriteFailed(BlockError):
    """A block, or a flush, did not reach any storage it should have reached."""


class NoSpace(BlockError):
    """The storage below a thin volume is full."""


class Offline(BlockError):
    """The device can't serve anything now: closing, or without its last good leg."""


class Busy(BlockError):
    """The device is held, and will serve again: who asks once more has lost nothing (D7).

    ``begun``: a part of what was asked for may be done already.
    """

    def __init__(self, message: str, lba: int = 0, *, begun: bool = False) -> None:
        super().__init__(message, lba)
        self.begun = begun
