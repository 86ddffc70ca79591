"""A volume: the door through which requests reach a tree of transforms.

Theory of operation. The tree is immutable and stands for one state of the volume's objects. A request
is checked, a writer takes its range, ``plan`` says what to do, and the executor does it. When a leaf
fails, ``loss.lost_legs`` decides: if mirrors can spare the legs concerned, they are marked as failed
*durably*, a new tree is installed, and the request is planned again, which is harmless since it writes
the same data to the same blocks. Otherwise the request fails; what it left different between the legs
of a mirror is made equal again before anybody else may write there, so that two reads never differ.

A change that did not even get that far (cancelled; nothing could be recorded; a leg refused the hot path
and the command was aborted before its general way) leaves its range in doubt: in ``_doubts``, from where
``clean`` and ``close`` make the legs equal before they clear any dirty bit (D2).

The hot path (``read_now``, ``write_now``) is bound anew with each tree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from types import MappingProxyType

from backstores.alu.base import AluDriver
from backstores.block import (
    MUTATING,
    BlockError,
    Leaf,
    MarkDirty,
    Node,
    Offline,
    Op,
    Piece,
    Plan,
    Request,
    Run,
    check,
    leaves,
    plan,
)
from backstores.device import Submit
from backstores.engine.beside import second_hand
from backstores.engine.engine import Engine
from backstores.engine.executor import Executor, LeafFailed, StageFailed
from backstores.errors import TiergateError
from backstores.objects import AnyObject, LegState, MirrorObject, StripeObject, VolumeObject
from backstores.ranges import RangeLocks
from backstores.transforms.flat import flatten
from backstores.transforms.tree import build
from backstores.volume import hotpath, loss
from backstores.volume.answers import block_error, joined
from backstores.volume.dirty import DirtyLog
from backstores.volume.equalize import Equalizer
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

Persist = Callable[[Sequence[AnyObject]], Awaitable[None]]
"""Store changed objects of a volume durably on the ALUs that still work, before it returns."""

PHYSICAL_BYTES = 4096
OPTIMAL_BYTES = 1 << 20
"""Linux never sends more in one command than we call optimal, so of rows that are smaller we name several."""
RESYNC_BYTES = 1 << 20  # copied while all writers wait


class Volume:
    """A ``backstores.device.BlockDevice`` over a volume's objects, the volume object first."""

    def __init__(
        self,
        objects: Sequence[AnyObject],
        drivers: Mapping[Wwn, AluDriver],
        engine: Engine,
        logs: Mapping[Wwn, DirtyLog],
        persist: Persist,
    ) -> None:
        head = objects[0]
        assert isinstance(head, VolumeObject)
        self.wwn = head.wwn
        self.block_bytes = head.block_bytes
        self.physical_block_bytes = max(PHYSICAL_BYTES, head.block_bytes)
        self._drivers = drivers
        self._logs = dict(logs)
        self._persist = persist
        self._executor = Executor(engine, drivers, self._mark_dirty)
        self._equalizer = Equalizer(self._executor, head.block_bytes)
        self._locks = RangeLocks()
        self._changing = asyncio.Lock()
        self._pinned: dict[Wwn, Wwn] = {}
        self._doubts: hotpath.Doubts = set()
        self._untold: BlockError | None = None
        self._open = True
        self.read_now: hotpath.Now = hotpath.never
        self.write_now: hotpath.Now = hotpath.never
        self.install(objects)

    def install(self, objects: Sequence[AnyObject], logs: Mapping[Wwn, DirtyLog] = MappingProxyType({})) -> None:
        """Go on with these objects, and the dirty-region logs of mirrors among them that are new.

        The caller has made them durable, and keeps out writers that must not see both.
        """
        self._logs.update(logs)
        head = objects[0]
        assert isinstance(head, VolumeObject)
        self.objects = tuple(objects)
        self.blocks = head.blocks
        self._tree = build(self.objects, self._pinned)
        stripes = [obj for obj in objects if isinstance(obj, StripeObject)]
        physical_blocks = self.physical_block_bytes // self.block_bytes
        self.granularity_blocks = max([physical_blocks, *(obj.chunk_blocks for obj in stripes)])
        row_blocks = max([self.granularity_blocks, *(s.chunk_blocks * len(s.children) for s in stripes)])
        self.optimal_blocks = row_blocks * max(1, OPTIMAL_BYTES // (row_blocks * self.block_bytes))
        self._bind()

    def _bind(self) -> None:
        flat = flatten(self._tree)
        self.read_now, self.write_now = hotpath.never, hotpath.never
        if flat is not None and self._open:
            states = {mirror: dirty_log.hot for mirror, dirty_log in self._logs.items()}
            self.read_now, self.write_now = hotpath.bind(
                flat, self._drivers, states, self._locks.entries, self._doubts, self.block_bytes, second_hand()
            )

    @asynccontextmanager
    async def quiesced(self) -> AsyncIterator[None]:
        """Keep all writers out, and every other change of the tree, while the context lasts."""
        async with self._locks.hold(0, self.blocks), self._changing:
            yield

    # The general path

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out, waiting for other writers where it has to.

        Raises:
            BlockError: it could not be carried out; the subclass says why.
        """
        check(request, self.blocks, self.block_bytes)
        if self._done_now(request):
            return []
        if request.op in MUTATING:
            async with self._locks.hold(request.lba, request.blocks):
                return await self._change(request)
        if request.op is Op.FLUSH and self._untold is not None:
            error, self._untold = self._untold, None
            raise error
        return await self._carry_out(request)

    async def _change(self, request: Request) -> list[Run]:
        """Carry out what changes blocks. The caller holds the range; it is in doubt until all legs have it."""
        self._doubts.add((request.lba, request.blocks))
        runs = await self._carry_out(request)
        self._settled(request.lba, request.blocks)
        return runs

    def _done_now(self, request: Request) -> bool:
        """Try the hot path for what came by the general one: its data had to be gathered, or digests checked."""
        if request.data is None or not request.blocks or request.fua:
            return False
        now = self.read_now if request.op is Op.READ else self.write_now
        return now(request.lba, request.blocks, request.data)

    @asynccontextmanager
    async def hold(self, lba: int, blocks: int) -> AsyncIterator[Submit]:
        """Keep all other writers out of a range; what is yielded carries out requests in it."""
        async with self._locks.hold(lba, blocks):
            yield _Held(self)

    async def _carry_out(self, request: Request) -> list[Run]:
        while True:
            if not self._open:
                raise Offline("the volume is off line", request.lba)
            objects = self.objects
            steps = plan(self._tree, request.op, request.lba, request.blocks)
            try:
                with self._writes_under_way(steps):
                    runs = await self._executor.run(steps, request, self.block_bytes)
                return joined(runs, request.lba)
            except StageFailed as failed:
                if not await self._absorbed(failed, objects):
                    if request.op in MUTATING:
                        await self._settle(request, steps, failed)
                    elif request.op is Op.FLUSH:
                        for dirty_log in self._logs.values():
                            dirty_log.distrust()  # any leg may have lost anything that was not flushed before
                    raise block_error(request, failed) from failed

    def _writes_under_way(self, steps: Plan) -> ExitStack:
        """Keep the dirty bits of what is being written from being cleared."""
        pins = ExitStack()
        for mark in _marks(steps):
            pins.enter_context(self._logs[mark.mirror].writing(mark.lba, mark.blocks))
        return pins

    async def _mark_dirty(self, mark: MarkDirty) -> None:
        await self._logs[mark.mirror].mark(mark.lba, mark.blocks)

    # Failure of a leg

    async def _absorbed(self, failed: StageFailed, objects: Sequence[AnyObject]) -> bool:
        """Give up the legs that failed, if the mirrors above can spare them; True: the request may be tried again."""
        failures = _failures(failed)
        async with self._changing:
            if objects != self.objects:
                return True  # somebody else met the same failure first
            lost = loss.lost_legs(objects, failures)
            if lost is None:
                return False
            log.error("volume %s: giving up legs %s: %s", self.wwn[-8:], _short_names(lost), failed)
            await self._give_up(lost)
            return True

    async def _give_up(self, lost: Mapping[Wwn, set[Wwn]]) -> None:
        changed = [
            loss.without_legs(obj, lost[obj.wwn]) if isinstance(obj, MirrorObject) and obj.wwn in lost else obj
            for obj in self.objects
        ]
        fresh = [new for new, old in zip(changed, self.objects, strict=True) if new is not old]
        try:
            await self._persist(fresh)
        except TiergateError as error:
            # Without a durable record that the leg is stale, a restart could serve its old data (D3).
            raise Offline(f"a leg failed, and that can't be recorded: {error}") from error
        for mirror, legs in lost.items():
            self._logs[mirror].drop(legs)
            if self._pinned.get(mirror) in legs:
                del self._pinned[mirror]
                self._pin(next(obj for obj in changed if obj.wwn == mirror))
        self.install(changed)

    async def _settle(self, request: Request, steps: Plan, failed: StageFailed) -> None:
        """After a change that failed for good: make the legs equal where it may have left them different.

        The caller holds the range. A leg that met a full disk is the one to copy from: what the others have
        more than it can be taken back from them, but not given to it.
        """
        blamed = {failure.leaf for failure in failed.failures}
        for mark in _marks(steps):
            legs = enumerate(_find(self._tree, mark.mirror).children)
            source = next((n for n, leg in legs if any(leaf.wwn in blamed for leaf in leaves(leg))), None)
            await self._equalize(mark.mirror, mark.lba, mark.blocks, source)
        self._settled(request.lba, request.blocks)

    def _settled(self, lba: int, blocks: int) -> None:
        """Note that all legs agree in a range."""
        end = lba + blocks
        self._doubts.difference_update([(at, n) for at, n in self._doubts if lba <= at and at + n <= end])

    async def _dispel(self, lba: int, blocks: int) -> None:
        """Make the legs equal in a range that is in doubt. The caller holds it.

        Raises:
            Offline: that a leg can't be made equal can't be recorded; the range stays in doubt.
        """
        if (lba, blocks) in self._doubts:  # else the change was under way, and has ended well meanwhile
            for mark in _marks(plan(self._tree, Op.WRITE, lba, blocks)):
                await self._equalize(mark.mirror, mark.lba, mark.blocks)
            self._settled(lba, blocks)

    async def _equalize(self, mirror: Wwn, lba: int, blocks: int, source: int | None = None) -> None:
        """Make the legs of a mirror equal in a range; one that can't be made equal is given up.

        Without a ``source``, each block is copied from the leg that it is read from: nobody sees it change.
        """
        for piece in _reads(_find(self._tree, mirror), lba, blocks):
            await self._copy(mirror, piece.lba, piece.blocks, piece.child if source is None else source)

    async def _copy(self, mirror: Wwn, lba: int, blocks: int, source: int) -> None:
        while True:
            objects = self.objects
            definition = next(obj for obj in objects if obj.wwn == mirror)
            assert isinstance(definition, MirrorObject)
            legs = [n for n, leg in enumerate(definition.legs) if leg.state is LegState.IN_SYNC]
            if len(legs) < 2:
                return
            source = source if source in legs else legs[0]
            children = _find(self._tree, mirror).children
            try:
                await self._equalizer.run([children[n] for n in legs], legs.index(source), lba, blocks)
                return
            except StageFailed as failed:
                others = {definition.legs[n].child for n in legs if n != source}
                async with self._changing:
                    if objects == self.objects:
                        log.error("volume %s: legs of mirror %s stay different: %s", self.wwn[-8:], mirror[-8:], failed)
                        await self._give_up(loss.lost_legs(objects, _failures(failed)) or {mirror: others})

    # Dirty regions

    async def publish_logs(self) -> None:
        """Make the bitmaps of all legs alike, before the first request. A leg that does not take it is given up.

        Raises:
            StageFailed: a mirror can't spare the leg.
            Offline: that the leg has failed can't be recorded.
        """
        for dirty_log in self._logs.values():
            while True:
                objects = self.objects
                try:
                    await dirty_log.publish()
                    break
                except LeafFailed as failure:
                    failed = StageFailed([failure])
                    if not await self._absorbed(failed, objects):
                        raise failed from failure

    async def resynchronize(self, progress: Callable[[float], None] = lambda fraction: None) -> None:
        """Copy what an unclean stop left dirty from one leg to the others; reads go to that leg meanwhile (D2)."""
        todo = [(mirror, region) for mirror, found in self._logs.items() for region in found.dirty_at_open]
        step = RESYNC_BYTES // self.block_bytes
        for done, (mirror, region) in enumerate(todo, 1):
            lba, blocks = self._logs[mirror].geometry.extent(region)
            for at in range(lba, lba + blocks, step):
                async with self._locks.hold(0, self.blocks):
                    await self._equalize(mirror, at, min(step, lba + blocks - at))
            self._logs[mirror].copied([region])
            progress(done / len(todo))
        async with self.quiesced():  # a write on its way may have reached the leg that served reads until now alone
            self._pinned.clear()
            self.install(self.objects)

    def pin_reads(self) -> bool:
        """Send reads of mirrors that an unclean stop left dirty to one leg each; say whether there are any."""
        for obj in self.objects:
            if isinstance(obj, MirrorObject) and self._logs[obj.wwn].dirty_at_open:
                self._pin(obj)
        self.install(self.objects)
        return bool(self._pinned)

    def _pin(self, mirror: AnyObject) -> None:
        """Send reads of a mirror to its first leg in sync, if there is another that may differ."""
        assert isinstance(mirror, MirrorObject)
        in_sync = [leg.child for leg in mirror.legs if leg.state is LegState.IN_SYNC]
        if len(in_sync) > 1:
            self._pinned[mirror.wwn] = in_sync[0]

    async def clean(self) -> None:
        """Clear the dirty bits of regions that were not written to lately. Called every few seconds."""
        candidates = {mirror: found.idle_regions() for mirror, found in self._logs.items()}
        for lba, blocks in sorted(self._doubts):  # what is in doubt from now on is in regions that are no candidates
            async with self._locks.hold(lba, blocks):
                await self._dispel(lba, blocks)
        if self._pinned or loss.degraded(self.objects) or not any(candidates.values()):
            return  # what a missing leg has not got stays marked for its return
        try:
            await self._carry_out(Request(Op.FLUSH, 0, self.blocks))
        except BlockError as error:
            self._untold = error  # the hosts, whose data it concerns, have not asked
            raise
        if not loss.degraded(self.objects):  # still: a leg that is lost by the flush may lack any of them
            for mirror, regions in candidates.items():
                await self._logs[mirror].clear(regions)

    async def close(self) -> None:
        """Let what runs end, flush, and record that the legs are equal. Requests that come later are refused.

        Raises:
            BlockError: the flush failed; dirty regions stay marked.
        """
        async with self._locks.hold(0, self.blocks):
            if not self._open:
                return
            self.read_now, self.write_now = hotpath.never, hotpath.never
            try:
                for lba, blocks in sorted(self._doubts):
                    await self._dispel(lba, blocks)
                await self._carry_out(Request(Op.FLUSH, 0, self.blocks))
                if not self._pinned and not loss.degraded(self.objects):
                    for dirty_log in self._logs.values():
                        dirty_log.idle_regions()  # what was active is idle now: nobody can write any more
                        await dirty_log.clear(dirty_log.idle_regions())
            finally:
                self._open = False
                self._bind()  # a leg that failed meanwhile has brought the hot path back


class _Held:
    """Requests of one that holds a range."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out without taking the range again."""
        check(request, self._volume.blocks, self._volume.block_bytes)
        change = self._volume._change if request.op in MUTATING else self._volume._carry_out
        return await change(request)


def _marks(steps: Plan) -> Iterable[MarkDirty]:
    return [step for stage in steps for step in stage if isinstance(step, MarkDirty)]


def _failures(failed: StageFailed) -> list[loss.Failure]:
    return [loss.Failure(failure.leaf, failure.errno, failure.op is Op.FLUSH) for failure in failed.failures]


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


def _short_names(lost: Mapping[Wwn, set[Wwn]]) -> str:
    return ", ".join(f"{child[-8:]} of {mirror[-8:]}" for mirror, legs in lost.items() for child in sorted(legs))
