"""What every instance of a volume has, the one that leads and those that follow: a tree, sizes, and a door.

The tree is immutable and stands for one state of the volume's objects. ``install`` puts another one in its place;
``hold_all`` makes sure that nobody is at work with the old one, and ``resume`` lets those go on who have waited. The
hot path (``read_now``, ``write_now``) is bound anew with each tree, and is off unless the door is open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from backstores.alu.base import AluDriver
from backstores.block import MUTATING, MarkDirty, Op, Request, Run, check
from backstores.engine.engine import Engine
from backstores.engine.executor import Executor
from backstores.objects import AnyObject, StripeObject, VolumeObject
from backstores.transforms.flat import FlatMap, flatten
from backstores.transforms.tree import build
from backstores.volume import hotpath
from backstores.volume.door import Door
from backstores.volume.gate import HoldLimits
from backstores.wwn import Wwn

PHYSICAL_BYTES = 4096
OPTIMAL_BYTES = 1 << 20
"""Linux never sends more in one command than we call optimal, so of rows that are smaller we name several."""


class Instance(ABC):
    """A ``backstores.device.BlockDevice`` over a volume's objects, the volume object first."""

    def __init__(self, objects: Sequence[AnyObject], drivers: Mapping[Wwn, AluDriver], engine: Engine) -> None:
        head = objects[0]
        assert isinstance(head, VolumeObject)
        self.wwn = head.wwn
        self.block_bytes = head.block_bytes
        self.physical_block_bytes = max(PHYSICAL_BYTES, head.block_bytes)
        self._drivers = drivers
        self._executor = Executor(engine, drivers, self._mark_dirty)
        self._door = Door()
        self._pinned: dict[Wwn, Wwn] = {}  # mirrors, and the leg that alone is read
        self.read_now: hotpath.Now = hotpath.never
        self.write_now: hotpath.Now = hotpath.never

    def _plant(self, objects: Sequence[AnyObject]) -> None:
        """Go on with these objects."""
        head = objects[0]
        assert isinstance(head, VolumeObject)
        self.objects = tuple(objects)
        self.blocks = head.blocks
        self.tree = build(self.objects, self._pinned)
        stripes = [obj for obj in objects if isinstance(obj, StripeObject)]
        physical_blocks = self.physical_block_bytes // self.block_bytes
        self.granularity_blocks = max([physical_blocks, *(obj.chunk_blocks for obj in stripes)])
        row_blocks = max([self.granularity_blocks, *(s.chunk_blocks * len(s.children) for s in stripes)])
        self.optimal_blocks = row_blocks * max(1, OPTIMAL_BYTES // (row_blocks * self.block_bytes))
        self._bind()

    def _bind(self) -> None:
        flat = flatten(self.tree)
        self.read_now, self.write_now = hotpath.never, hotpath.never
        if flat is not None and self._door.is_open:
            self.read_now, self.write_now = self._hot(flat)

    @abstractmethod
    def _hot(self, flat: FlatMap) -> tuple[hotpath.Now, hotpath.Now]:
        """Make the hot path of a tree."""

    @abstractmethod
    async def _mark_dirty(self, mark: MarkDirty) -> None:
        """Make dirty bits durable, if that is this instance's to do."""

    # Requests

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out, waiting for other writers where it has to.

        Raises:
            BlockError: it could not be carried out; the subclass says why.
        """
        check(request, self.blocks, self.block_bytes)
        if self._done_now(request):
            return []
        carry_out = self._change if request.op in MUTATING else self._look
        if self._door.is_open:
            return await carry_out(request)
        with self._door.visit(request.lba):
            return await carry_out(request)

    def _done_now(self, request: Request) -> bool:
        """Try the hot path for what came by the general one: its data had to be gathered, or digests checked."""
        if request.data is None or not request.blocks or request.fua:
            return False
        now = self.read_now if request.op is Op.READ else self.write_now
        return now(request.lba, request.blocks, request.data)

    @abstractmethod
    async def _look(self, request: Request) -> list[Run]:
        """Carry out what changes nothing."""

    @abstractmethod
    async def _change(self, request: Request) -> list[Run]:
        """Carry out what changes blocks, when no other writer is there."""

    # Its holder

    @property
    def held_for_s(self) -> float:
        """How long it has been held; 0 if it is not."""
        return self._door.held_for_s

    async def hold_all(self, limits: HoldLimits) -> None:
        """Let what is at work end, and what comes wait, until it is resumed. Then no leg is read or written (1504).

        What has begun and waits for something else (its range, a record that a leg has failed) goes on afterwards,
        by the tree that there is then.

        Raises:
            UsageError: it was resumed, or taken off line, before that.
        """
        self.read_now, self.write_now = hotpath.never, hotpath.never
        await self._door.hold(limits)

    def _go_on(self) -> None:
        """Let those go on who have waited, in order."""
        self._door.resume()
        self._bind()

    def abandon(self) -> None:
        """Serve nothing any more, and touch nothing: another instance serves, and hosts may ask again."""
        self._door.shut(handed_over=True)
        self._bind()
