"""A volume: the door through which requests reach a tree of transforms, and the instance that leads (D4).

Theory of operation. A request is checked, a writer takes its range, ``plan`` says what to do, and the executor does it.
When a leaf fails, ``loss.lost_legs`` decides: if mirrors can spare the legs concerned, they are marked as failed
*durably*, a new tree is installed, and the request is planned again, which is harmless since it writes
the same data to the same blocks. Otherwise the request fails; what it left different between the legs
of a mirror is made equal again before anybody else may write there (``mending``).

A volume may have other instances on other storage processors, which follow this one (``follower``): they write legs
themselves, but take their ranges, and the dirty bits of these, from here (``lease``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType

from backstores.alu.base import AluDriver
from backstores.block import MUTATING, BlockError, Busy, MarkDirty, Offline, Op, Plan, Request, Run, check
from backstores.block import plan as planned
from backstores.device import Submit
from backstores.engine.beside import second_hand
from backstores.engine.engine import Engine
from backstores.engine.executor import LeafFailed, StageFailed
from backstores.errors import TiergateError
from backstores.objects import AnyObject, LegState, MirrorObject
from backstores.ranges import RangeLocks
from backstores.transforms.flat import FlatMap
from backstores.volume import hotpath, loss
from backstores.volume.answers import block_error, failures, final, joined, out_of_reach
from backstores.volume.dirty import DirtyLog
from backstores.volume.instance import Instance
from backstores.volume.mending import Mender, marks
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

Persist = Callable[[Sequence[AnyObject]], Awaitable[None]]
"""Store changed objects of a volume durably on the ALUs that still work, before it returns.

The volume may be held, and resumed with another tree, while it does.
"""
Part = Callable[[Plan], Plan]

RESYNC_BYTES = 1 << 20  # copied while all writers wait


class Volume(Instance):
    """The instance of a volume that keeps writers in order, and its dirty regions: the only one, or the lead."""

    def __init__(
        self,
        objects: Sequence[AnyObject],
        drivers: Mapping[Wwn, AluDriver],
        engine: Engine,
        logs: Mapping[Wwn, DirtyLog],
        persist: Persist,
    ) -> None:
        super().__init__(objects, drivers, engine)
        self._logs = dict(logs)
        self._persist = persist
        self._mender = Mender(self, self._executor, self._door, self.block_bytes)
        self._locks = RangeLocks()
        self._changing = asyncio.Lock()
        self._untold: BlockError | None = None
        self._closed = False
        self.install(objects)

    def install(self, objects: Sequence[AnyObject], logs: Mapping[Wwn, DirtyLog] = MappingProxyType({})) -> None:
        """Go on with these objects, and the dirty-region logs of mirrors among them that are new.

        The caller has made them durable, and keeps out writers that must not see both.
        """
        self._logs.update(logs)
        for obj in objects:
            if isinstance(obj, MirrorObject):
                in_sync = {leg.child for leg in obj.legs if leg.state is LegState.IN_SYNC}
                self._logs[obj.wwn].keep(in_sync)
                if obj.wwn in self._pinned and self._pinned[obj.wwn] not in in_sync:
                    del self._pinned[obj.wwn]
                    self._pin(obj)
        self._plant(objects)

    def _hot(self, flat: FlatMap) -> tuple[hotpath.Now, hotpath.Now]:
        states = {mirror: dirty_log.hot for mirror, dirty_log in self._logs.items()}
        doubts = self._mender.doubts
        return hotpath.bind(flat, self._drivers, states, self._locks.entries, doubts, self.block_bytes, second_hand())

    @asynccontextmanager
    async def quiesced(self) -> AsyncIterator[None]:
        """Keep all writers out, and every other change of the tree, while the context lasts."""
        async with self._locks.hold(0, self.blocks), self._changing:
            yield

    def resume(
        self, objects: Sequence[AnyObject] | None = None, logs: Mapping[Wwn, DirtyLog] = MappingProxyType({})
    ) -> None:
        """Go on after ``hold_all``, with another tree or, without ``objects``, as before; see ``install``."""
        if objects is not None:
            self.install(objects, logs)
        self._go_on()

    # The general path

    async def _look(self, request: Request) -> list[Run]:
        if request.op is Op.FLUSH and self._untold is not None:
            error, self._untold = self._untold, None
            raise error
        return await self._carry_out(request)

    async def _change(self, request: Request) -> list[Run]:
        async with self._locks.hold(request.lba, request.blocks):
            return await self._change_held(request)

    async def _change_held(self, request: Request) -> list[Run]:
        """Carry out what changes blocks. The caller holds the range; it is in doubt until all legs have it."""
        self._mender.doubt(request.lba, request.blocks)
        runs = await self._carry_out(request)
        self._mender.settled(request.lba, request.blocks)
        return runs

    @asynccontextmanager
    async def hold(self, lba: int, blocks: int) -> AsyncIterator[Submit]:
        """Keep all other writers out of a range; what is yielded carries out requests in it."""
        with self._door.visit(lba):
            async with self._locks.hold(lba, blocks):
                yield _Held(self)

    async def _carry_out(self, request: Request, *, owner: bool = False, part: Part = lambda steps: steps) -> list[Run]:
        """Plan a request, or a part of what it takes, and do it: again if a leg was lost on the way."""
        begun = False
        while True:
            await self._door.begin(request.lba, owner=owner, begun=begun)
            try:
                objects = self.objects
                steps = part(planned(self.tree, request.op, request.lba, request.blocks))
                with self._writes_under_way(steps):
                    runs = await self._executor.run(steps, request, self.block_bytes)
                return joined(runs, request.lba)
            except StageFailed as error:
                failed = error
            finally:
                self._door.end()
            begun = True
            if not (self._door.is_open or owner) and out_of_reach(failed):
                continue
            if not await self._absorbed(failed, objects):
                if request.op in MUTATING:
                    await self._mender.undo(request.lba, request.blocks, steps, failed)
                elif request.op is Op.FLUSH:
                    for dirty_log in self._logs.values():
                        dirty_log.distrust()  # any leg may have lost anything that was not flushed before
                raise block_error(request, failed) from failed

    def _writes_under_way(self, steps: Plan) -> ExitStack:
        """Keep the dirty bits of what is being written from being cleared."""
        pins = ExitStack()
        for mark in marks(steps):
            pins.enter_context(self._logs[mark.mirror].writing(mark.lba, mark.blocks))
        return pins

    async def _mark_dirty(self, mark: MarkDirty) -> None:
        await self._logs[mark.mirror].mark(mark.lba, mark.blocks)

    @asynccontextmanager
    async def lease(self, lba: int, blocks: int) -> AsyncIterator[Lease]:
        """Leave a range to somebody who writes the legs himself: no other writer is there, its dirty bits are durable.

        Unless it is settled, or mended, before the context ends, it is in doubt.

        Raises:
            BlockError: the dirty bits could not be made durable.
        """
        whole = Request(Op.WRITE, lba, blocks)
        with self._door.visit(lba):
            async with self._locks.hold(lba, blocks):
                with self._writes_under_way(planned(self.tree, Op.WRITE, lba, blocks)):
                    await self._carry_out(whole, part=lambda steps: [list(marks(steps))])
                    lease = Lease(self, self._mender, lba, blocks)
                    try:
                        yield lease
                    finally:
                        if not lease.settled:
                            self._mender.doubt(lba, blocks)

    # Failure of a leg

    async def _absorbed(self, failed: StageFailed, objects: Sequence[AnyObject]) -> bool:
        """Give up the legs that failed, if the mirrors above can spare them; True: the request may be tried again."""
        async with self._changing:
            if objects != self.objects:
                return True  # somebody else met the same failure first
            lost = loss.lost_legs(objects, failures(failed))
            if lost is None:
                return False
            log.error("volume %s: giving up legs %s: %s", self.wwn[-8:], _short_names(lost), failed)
            await self._give_up(lost)
            return True

    async def _give_up(self, lost: Mapping[Wwn, set[Wwn]]) -> None:
        fresh = {
            obj.wwn: loss.without_legs(obj, lost[obj.wwn])
            for obj in self.objects
            if isinstance(obj, MirrorObject) and obj.wwn in lost
        }
        try:
            await self._persist(list(fresh.values()))
        except TiergateError as error:
            # Without a durable record that the leg is stale, a restart could serve its old data (D3).
            raise Offline(f"a leg failed, and that can't be recorded: {error}") from error
        # The volume may have been resumed meanwhile, with a tree that knows of it.
        self.install([max(obj, fresh.get(obj.wwn, obj), key=lambda one: one.generation) for obj in self.objects])

    async def stay_different(
        self, objects: Sequence[AnyObject], mirror: Wwn, others: set[Wwn], failed: StageFailed
    ) -> None:
        """Give up legs of a mirror that could not be made equal."""
        async with self._changing:
            if objects == self.objects:
                log.error("volume %s: legs of mirror %s stay different: %s", self.wwn[-8:], mirror[-8:], failed)
                await self._give_up(loss.lost_legs(objects, failures(failed)) or {mirror: others})

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
                await self._patiently(partial(self._resynchronize_step, mirror, at, min(step, lba + blocks - at)))
            self._logs[mirror].copied([region])
            progress(done / len(todo))
        async with self.quiesced():  # a write on its way may have reached the leg that served reads until now alone
            self._pinned.clear()
            self.install(self.objects)

    async def _resynchronize_step(self, mirror: Wwn, lba: int, blocks: int) -> None:
        async with self._locks.hold(0, self.blocks):
            await self._mender.equalize(mirror, lba, blocks)

    async def _patiently(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step of something long; when the volume is held for too long, again once it is resumed."""
        while True:
            await self._door.opened()
            with suppress(Busy):
                return await step()

    def pin_reads(self) -> bool:
        """Send reads of mirrors that an unclean stop left dirty to one leg each; say whether there are any."""
        for obj in self.objects:
            if isinstance(obj, MirrorObject) and self._logs[obj.wwn].dirty_at_open:
                self._pin(obj)
        self.install(self.objects)
        return bool(self._pinned)

    def _pin(self, mirror: MirrorObject) -> None:
        """Send reads of a mirror to its first leg in sync, if there is another that may differ."""
        in_sync = [leg.child for leg in mirror.legs if leg.state is LegState.IN_SYNC]
        if len(in_sync) > 1:
            self._pinned[mirror.wwn] = in_sync[0]

    async def clean(self) -> None:
        """Clear the dirty bits of regions that were not written to lately. Called every few seconds.

        Raises:
            BlockError: a flush has failed, or the volume is held.
        """
        objects, candidates = self.objects, {mirror: found.idle_regions() for mirror, found in self._logs.items()}
        for lba, blocks in sorted(self._mender.doubts):  # what is in doubt from now on is in no candidate
            async with self._locks.hold(lba, blocks):
                await self._mender.dispel(lba, blocks)
        if self._pinned or loss.degraded(self.objects) or not any(candidates.values()):
            return  # what a missing leg has not got stays marked for its return
        try:
            await self._carry_out(Request(Op.FLUSH, 0, self.blocks))
        except Busy:
            raise
        except BlockError as error:
            self._untold = error  # the hosts, whose data it concerns, have not asked
            raise
        await self._door.begin(0)
        try:
            if self.objects == objects:  # a leg that was lost by the flush may lack any of them
                for mirror, regions in candidates.items():
                    await self._logs[mirror].clear(regions)
        finally:
            self._door.end()

    async def close(self) -> None:
        """Let what runs end, flush, and record that the legs are equal. Requests that come later are refused.

        Who waits for a volume that is held to be resumed is refused. Its tree must still be the volume's: else
        ``abandon`` it.

        Raises:
            BlockError: the flush failed; dirty regions stay marked.
        """
        if not self._door.is_open:
            self._door.shut()  # those who wait at it have ranges, which we wait for
        async with self._locks.hold(0, self.blocks):
            if self._closed:
                return
            self._closed = True
            self.read_now, self.write_now = hotpath.never, hotpath.never
            await self._door.begin(0, owner=True)
            try:
                for lba, blocks in sorted(self._mender.doubts):
                    await self._mender.dispel(lba, blocks, owner=True)
                await self._carry_out(Request(Op.FLUSH, 0, self.blocks), owner=True)
                if not self._pinned and not loss.degraded(self.objects):
                    for dirty_log in self._logs.values():
                        dirty_log.idle_regions()  # what was active is idle now: nobody can write any more
                        await dirty_log.clear(dirty_log.idle_regions())
            finally:
                self._door.end()
                self._door.shut()
                self._bind()  # a leg that failed meanwhile has brought the hot path back


class Lease:
    """A range that is left to somebody else."""

    def __init__(self, volume: Volume, mender: Mender, lba: int, blocks: int) -> None:
        self.settled = False
        self._volume = volume
        self._mender = mender
        self.range = (lba, blocks)

    def settle(self) -> None:
        """Take his word that all legs are equal there."""
        self.settled = True

    async def mend(self) -> None:
        """Make the legs equal, whatever he has left.

        Raises:
            BlockError: that could not be done; the range is in doubt.
        """
        self._mender.doubt(*self.range)
        await self._volume._patiently(partial(self._mender.dispel, *self.range))
        self.settled = True


class _Held:
    """Requests of one that holds a range."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out without taking the range again."""
        check(request, self._volume.blocks, self._volume.block_bytes)
        if request.op not in MUTATING:
            return await self._volume._carry_out(request)
        try:
            return await self._volume._change_held(request)
        except Busy as busy:
            raise final(busy) from None


def _short_names(lost: Mapping[Wwn, set[Wwn]]) -> str:
    return ", ".join(f"{child[-8:]} of {mirror[-8:]}" for mirror, legs in lost.items() for child in sorted(legs))
