"""Makes the legs of mirrors equal where a change has left them different, or may have (D2).

A change that failed is mended before its range is given to anybody else, so that two reads never differ. One that did
not even get that far (cancelled; nothing could be recorded; a leg refused the hot path and the command was aborted
before its general way) leaves its range *in doubt*, until somebody dispels that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backstores.block import Leaf, MarkDirty, Node, Op, Piece, Plan, leaves, plan
from backstores.engine.executor import Executor, StageFailed
from backstores.objects import AnyObject, LegState, MirrorObject
from backstores.volume.door import Door
from backstores.volume.equalize import Equalizer
from backstores.volume.hotpath import Doubts
from backstores.wwn import Wwn


class Mirrored(Protocol):
    """The volume whose legs are mended."""

    objects: tuple[AnyObject, ...]
    tree: Node

    async def stay_different(
        self, objects: Sequence[AnyObject], mirror: Wwn, others: set[Wwn], failed: StageFailed
    ) -> None:
        """Give up the legs that can't be made equal, or the ``others`` than the source; ``objects`` were there then."""


class Mender:
    """Knows which ranges of a volume are in doubt."""

    def __init__(self, volume: Mirrored, executor: Executor, door: Door, block_bytes: int) -> None:
        self.doubts: Doubts = set()
        self._volume = volume
        self._door = door
        self._equalizer = Equalizer(executor, block_bytes)

    def doubt(self, lba: int, blocks: int) -> None:
        """Note that legs may differ in a range from now on."""
        self.doubts.add((lba, blocks))

    def settled(self, lba: int, blocks: int) -> None:
        """Note that all legs agree in a range."""
        end = lba + blocks
        self.doubts.difference_update([(at, n) for at, n in self.doubts if lba <= at and at + n <= end])

    async def undo(self, lba: int, blocks: int, steps: Plan, failed: StageFailed) -> None:
        """After a change that failed for good: make the legs equal where it may have left them different.

        The caller holds the range. A leg that met a full disk is the one to copy from: what the others have
        more than it can be taken back from them, but not given to it.
        """
        blamed = {failure.leaf for failure in failed.failures}
        for mark in marks(steps):
            legs = enumerate(_find(self._volume.tree, mark.mirror).children)
            source = next((n for n, leg in legs if any(leaf.wwn in blamed for leaf in leaves(leg))), None)
            await self.equalize(mark.mirror, mark.lba, mark.blocks, source)
        self.settled(lba, blocks)

    async def dispel(self, lba: int, blocks: int, *, owner: bool = False) -> None:
        """Make the legs equal in a range that is in doubt. The caller holds it.

        Raises:
            Busy: the volume is held; the range stays in doubt.
            Offline: that a leg can't be made equal can't be recorded; the range stays in doubt.
        """
        if (lba, blocks) in self.doubts:  # else the change was under way, and has ended well meanwhile
            for mark in marks(plan(self._volume.tree, Op.WRITE, lba, blocks)):
                await self.equalize(mark.mirror, mark.lba, mark.blocks, owner=owner)
            self.settled(lba, blocks)

    async def equalize(
        self, mirror: Wwn, lba: int, blocks: int, source: int | None = None, *, owner: bool = False
    ) -> None:
        """Make the legs of a mirror equal in a range; one that can't be made equal is given up.

        Without a ``source``, each block is copied from the leg that it is read from: nobody sees it change.
        """
        for piece in _reads(_find(self._volume.tree, mirror), lba, blocks):
            await self._copy(mirror, piece.lba, piece.blocks, piece.child if source is None else source, owner)

    async def _copy(self, mirror: Wwn, lba: int, blocks: int, source: int, owner: bool) -> None:
        while True:
            await self._door.begin(lba, owner=owner, begun=True)
            try:
                objects = self._volume.objects
                definition = next(obj for obj in objects if obj.wwn == mirror)
                assert isinstance(definition, MirrorObject)
                children = _find(self._volume.tree, mirror).children
                legs = [n for n, leg in enumerate(definition.legs) if leg.state is LegState.IN_SYNC]
                if len(legs) < 2:
                    return
                source = source if source in legs else legs[0]
                others = {definition.legs[n].child for n in legs if n != source}
                await self._equalizer.run([children[n] for n in legs], legs.index(source), lba, blocks)
                return
            except StageFailed as error:
                failed = error
            finally:
                self._door.end()
            await self._volume.stay_different(objects, mirror, others, failed)


def marks(steps: Plan) -> list[MarkDirty]:
    """Give the ranges of mirrors that a plan changes."""
    return [step for stage in steps for step in stage if isinstance(step, MarkDirty)]


def _reads(node: Node, lba: int, blocks: int) -> list[Piece]:
    """Say which leg of a mirror serves reads of which blocks."""
    assert not isinstance(node, Leaf)
    return [part for stage in node.stages(Op.READ, lba, blocks) for part in stage if isinstance(part, Piece)]


def _find(node: Node, mirror: Wwn) -> Node:
    """Give the node of a mirror; it is there, for the plan named it."""
    pending = [node]
    while True:
        node = pending.pop()
        if getattr(node, "wwn", None) == mirror:
            return node
        pending.extend(node.children)
