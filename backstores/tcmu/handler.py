"""Serves one TCMU device with a logical unit, in the loop: LIO's fabric on one side, our device server on the other.

    handler = await serve(hba=5447001, name="tg_db", nexus=nexus, on_lost=...)   # the device is enabled in configfs
    ...
    await handler.close()                                                       # drains first

The unit is LUN 0 of ``nexus``, whose LUN map has nothing else. An entry in the ring names neither initiator nor
port, so there is one nexus for all hosts of a device, and one device for each storage processor and volume.

What the kernel does itself, so that no entry comes for it: REPORT LUNS; PERSISTENT RESERVE IN/OUT and RESERVE/RELEASE
with all the conflicts that follow from them (unless ``attrib/pgr_support`` is 0); ALUA access checks; which host may
see what; the power-on and reset unit attentions. Everything else comes here: INQUIRY and VPD, mode pages, REPORT
TARGET PORT GROUPS, REPORT SUPPORTED OPERATION CODES. What differs for hosts is in docs/lio.md.

Theory of operation. A wake-up takes what is in the ring. Plain READs and WRITEs are done on the spot between the data
area and the disks' files; the rest become tasks that end in any order. All that ended in one turn of the loop is
told to the kernel by one kick.

**Start.** A fresh open sees no wake-up for what is in the ring already, so the ring is looked at once before waiting.
After a handler that was killed, its ring can't be gone on with: a completion may lie in the slot of a command that
was not carried out. Whoever starts a handler on such a device does, in this order: ``action/block_dev`` = 1,
``action/reset_ring`` = 1 (running commands end BUSY, and hosts try again), ``serve``, ``block_dev`` = 0.

**Stop.** ``action/block_dev`` = 1 keeps new commands out; ``close`` waits until all in the ring have ended. What
comes although the device was not blocked ends BUSY.

**Abort.** With ``attrib/tmr_notification`` = 1 the kernel tells of aborts and resets. It answers the host when the
commands concerned have been given back, so these end TASK ABORTED as soon as the device server lets go of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from backstores.errors import ProtocolError, TiergateError
from backstores.scsi import cdb, lun
from backstores.scsi.model import Command, Function, Nexus, Response, Status
from backstores.scsi.sense import Condition, Key, Sense, encode, key_of
from backstores.tcmu import formats, hotpath, uio
from backstores.tcmu.ring import Ring, RingCommand, RingError, RingTaskManagement, never
from backstores.wire import Buffer

log = logging.getLogger(__name__)

LUN: Final = lun.encode(0)
BATCH: Final = 64
"""So many entries are taken before the kernel is kicked, and before others have a turn in the loop."""

RESETS: Final = frozenset(
    {
        formats.Function.LOGICAL_UNIT_RESET,
        formats.Function.TARGET_WARM_RESET,
        formats.Function.TARGET_COLD_RESET,
    }
)
"""What resets the unit (its mode pages, too). Every other function aborts the commands it names, and no more."""

TEST_UNIT_READY: Final = cdb.TestUnitReady.build()
FAILED: Final = Response(Status.CHECK_CONDITION, encode(Sense(Condition.INTERNAL_TARGET_FAILURE)))
BUSY: Final = Response(Status.BUSY)
ABORTED: Final = Response(Status.TASK_ABORTED)
NOTHING: Final = memoryview(b"")

OnLost = Callable[[TiergateError], None]
"""Hear that nothing is served any more: the device was removed, or its ring is broken and must be reset."""


class Shared(Protocol):
    """An open device: ``uio.Mapping``, or its twin in tests."""

    @property
    def fd(self) -> int:
        """Readable when the kernel has put something in."""

    def view(self) -> memoryview:
        """Give a view of the memory; it has to be released before ``close``."""

    def acknowledge(self) -> None:
        """Take a wake-up.

        Raises:
            DeviceGone: the device was removed.
        """

    def kick(self) -> None:
        """Have the kernel look at the ring.

        Raises:
            DeviceGone: the device was removed.
        """

    def close(self) -> None:
        """Let go of the device."""


async def serve(hba: int, name: str, nexus: Nexus, on_lost: OnLost) -> Handler:
    """Open the device of backstore ``core/user_HBA/NAME`` and serve it; what is in its ring already comes first.

    Raises:
        UsageError: there is no such device, or another process has it.
        RingError: it has a ring that we don't know.
    """
    await hear_attentions(nexus)
    return Handler(uio.find(hba, name).open(), nexus, on_lost)


async def hear_attentions(nexus: Nexus) -> None:
    """Take the unit attentions of a new or reset nexus, of which the kernel tells every host itself."""
    while True:
        response = await nexus.execute(LUN, Command(TEST_UNIT_READY))
        if response is None or not response.sense or key_of(response.sense) != Key.UNIT_ATTENTION:
            return


class Handler:
    """Serves a device until it is closed or lost; ``lost`` then says why.

    Raises:
        RingError: the device has a ring that we don't know.
    """

    def __init__(self, shared: Shared, nexus: Nexus, on_lost: OnLost) -> None:
        self.lost: TiergateError | None = None
        self._shared = shared
        self._nexus = nexus
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._runs: set[asyncio.Task[None]] = set()
        self._kick_due = self._closing = self._closed = False
        memory = shared.view()
        try:
            self._ring = Ring(memory)
        except ProtocolError:
            memory.release()
            shared.close()
            raise
        self._now = hotpath.bind(memory, nexus, LUN)
        self._loop.add_reader(shared.fd, self._woken)
        self._take()

    async def close(self) -> None:
        """Give back all that is in the ring, and let the device go. The nexus stays open."""
        if self._closing:
            return
        self._closing = True
        self._now = never
        while self._runs or not (self.lost or self._ring.idle):
            self._take()
            await (asyncio.wait(self._runs) if self._runs else asyncio.sleep(0))
        self._kick()
        self._closed = True
        self._loop.remove_reader(self._shared.fd)
        self._ring.release()
        self._shared.close()

    # Entries

    def _woken(self) -> None:
        """Take what the kernel has put in."""
        try:
            self._shared.acknowledge()
        except uio.DeviceGone as gone:
            self._lose(gone)
        else:
            self._take()

    def _take(self) -> None:
        """Take a batch; if there is more, it has its turn after the others in the loop."""
        if self._closed or self.lost:
            return
        try:
            for entry in self._ring.take(self._now, BATCH):
                self._begin(entry)
        except RingError as broken:
            self._lose(broken)
        self._kick()
        if self._ring.pending:
            self._loop.call_soon(self._take)

    def _begin(self, entry: RingCommand | RingTaskManagement) -> None:
        if isinstance(entry, RingCommand) and self._closing:
            self._end(entry, BUSY, None)
            return
        work = self._execute(entry) if isinstance(entry, RingCommand) else self._manage(entry)
        run = self._loop.create_task(work)
        self._runs.add(run)  # the loop itself holds its tasks weakly
        run.add_done_callback(partial(self._finished, entry))

    def _finished(self, entry: RingCommand | RingTaskManagement, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        error = None if run.cancelled() else run.exception()
        if error is not None:
            log.error("a command failed inside of the target", exc_info=error)
            if isinstance(entry, RingCommand):
                self._end(entry, FAILED, None)

    async def _execute(self, entry: RingCommand) -> None:
        """Carry a command out the general way."""
        out_bytes = self._nexus.data_out_bytes(LUN, entry.cdb)
        data = _joined(entry.spans)[:out_bytes] if out_bytes else NOTHING
        # Of a command that sends data this is what the host announced; no other command asks for it.
        command = Command(entry.cdb, data, tag=entry.command_id, announced_bytes=entry.span_bytes)
        response = await self._nexus.execute(LUN, command) or ABORTED
        self._end(entry, response, response.data_in if entry.data_in_spans or not out_bytes else None)

    async def _manage(self, entry: RingTaskManagement) -> None:
        """Have the device server let go of commands; they are given back as they end."""
        named = formats.FUNCTION_NAMES.get(entry.function, f"function {entry.function}")
        log.info("the kernel reports %s: %d commands are aborted", named, len(entry.command_ids))
        if entry.function in RESETS:
            await self._nexus.manage(Function.LOGICAL_UNIT_RESET, LUN, 0)
            await hear_attentions(self._nexus)
        else:
            for command_id in entry.command_ids:
                await self._nexus.manage(Function.ABORT_TASK, LUN, command_id)

    def _end(self, entry: RingCommand, response: Response, data_in: Buffer | None) -> None:
        """Give a command back; the kernel hears of it with all others that end in this turn of the loop."""
        self._ring.complete(entry, response.status, response.sense, data_in)
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if self._closed or not self._ring.publish():
            return
        try:
            self._shared.kick()
        except uio.DeviceGone as gone:
            self._lose(gone)

    def _lose(self, error: TiergateError) -> None:
        if self.lost is None:
            self.lost = error
            self._loop.remove_reader(self._shared.fd)
            log.error("%s", error)
            self._on_lost(error)


def _joined(spans: Sequence[memoryview]) -> memoryview:
    """Give spans as one piece, copied only where they are several."""
    return spans[0] if len(spans) == 1 else memoryview(b"".join(spans))
