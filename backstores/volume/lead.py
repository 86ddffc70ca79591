"""The lead of a volume that several storage processors serve: it keeps their writers in order (D4).

``holdings`` decides; this carries out. The lead is beside the instance that has the range locks and the dirty regions
(``Volume``). Followers write legs themselves; each holding of theirs is a lease of the volume, and a task here for as
long as it lasts.

What the rest of the system must see to: a lead is put in the place of another, or of one that has died, only when all
followers are held, or fenced. A write that the old one has granted could else land behind what the new one copies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence

from backstores.block import BlockError, Offline, OutOfRange
from backstores.errors import TiergateError
from backstores.scsi.lead import Return, Wanted
from backstores.volume.holdings import (
    Ask,
    Effect,
    Ended,
    Fence,
    Fenced,
    Free,
    Grant,
    Holdings,
    Input,
    Key,
    Lost,
    Mend,
    Release,
    Take,
    Taken,
)
from backstores.volume.volume import Lease, Volume

log = logging.getLogger(__name__)

FenceOff = Callable[[str], Awaitable[None]]
"""Return once none of the writes that a follower has begun can reach a leg any more.

It goes on trying for as long as that takes: until the follower is dead, and the storage processors with the legs have
ended its sessions and what these had under way. Meanwhile its ranges are nobody's, unless it says by another nexus how
its writes have ended.
"""


class Lead:
    """Gives ranges of a volume to its followers."""

    def __init__(self, volume: Volume, fence: FenceOff) -> None:
        self._volume = volume
        self._fence = fence
        self._core = Holdings()
        self._granted: dict[Key, asyncio.Future[None]] = {}
        self._mends: dict[Key, asyncio.Future[bool]] = {}  # whether the legs are to be made equal, once it is over
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def hold(self, follower: str, nexus: Hashable, wanted: Wanted, returns: Sequence[Return] = ()) -> None:
        """Give a range to a follower, after what it gives back.

        Raises:
            Busy: it holds too many, or the volume is held.
            BlockError: the dirty bits can't be made durable, or there is no such range.
        """
        self.free(follower, returns)
        serial, lba, blocks = wanted
        if self._closed:
            raise Offline("the lead is somewhere else", lba)
        if not 0 < blocks <= self._volume.blocks - lba:
            raise OutOfRange(lba, blocks, self._volume.blocks)
        key = Key(follower, serial)
        self._step(Ask(key, nexus, lba, blocks))
        await asyncio.shield(self._granted[key])

    def free(self, follower: str, returns: Sequence[Return]) -> None:
        """Take ranges back."""
        for serial, settled in () if self._closed else returns:
            self._step(Free(Key(follower, serial), settled))

    def lose(self, nexus: Hashable) -> None:
        """Hear that a nexus has ended."""
        if not self._closed:
            self._step(Lost(nexus))

    async def close(self) -> None:
        """Lead no more. All followers are held: what they have is in doubt, until the volume makes it equal."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key in self._granted:  # of tasks that had not begun
            self._refuse(key, Offline("the lead is somewhere else"))

    # What the core wants

    def _step(self, event: Input) -> None:
        self._carry_out(self._core.step(event))

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Take(key, lba, blocks):
                    self._mends[key] = asyncio.get_running_loop().create_future()
                    self._granted[key] = asyncio.get_running_loop().create_future()
                    self._start(self._leased(key, lba, blocks))
                case Grant(key):
                    self._granted[key].set_result(None)
                case Mend(key):
                    self._mends[key].set_result(True)
                case Release(key):
                    self._mends[key].set_result(False)
                    self._refuse(key, Offline("the range was given back before it was granted"))
                case Fence(follower):
                    self._start(self._fenced(follower))

    async def _leased(self, key: Key, lba: int, blocks: int) -> None:
        """Keep a range for a follower from when it is free until the core has it released."""
        failure: BlockError = Offline("the lead is somewhere else", lba)
        try:
            async with self._volume.lease(lba, blocks) as lease:
                self._step(Taken(key))
                await self._over(key, lease)
        except BlockError as error:
            failure = error
        finally:
            self._step(Ended(key))
            self._refuse(key, failure)
            del self._mends[key], self._granted[key]

    def _refuse(self, key: Key, failure: BlockError) -> None:
        """End a HOLD that waits still."""
        granted = self._granted[key]
        if not granted.done():
            granted.set_exception(failure)
            granted.exception()  # nobody may be there any more to hear of it

    async def _over(self, key: Key, lease: Lease) -> None:
        if await self._mends[key]:
            try:
                await lease.mend()
            except TiergateError as error:
                log.error("what a follower has left of blocks %s stays in doubt: %s", lease.range, error)
        else:
            lease.settle()

    async def _fenced(self, follower: str) -> None:
        await self._fence(follower)
        self._step(Fenced(follower))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
