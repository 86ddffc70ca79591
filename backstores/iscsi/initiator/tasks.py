"""Commands from their submission to their end (RFC 7143, clauses 4.2.5, 11.3-11.8), without I/O.

A task waits until the target's CmdSN window and our own depth have room, goes out with as much of its data as
the target takes unasked, serves the target's R2Ts, gathers Data-In, and ends with a status. All PDUs of a task come in
order on the one connection of its session (DataPDUInOrder, DataSequenceInOrder), so whatever does not go on
exactly where the last one ended is a violation; that also bounds what a hostile target can make us send.

A task that can't end any more, since its connection has died or it was aborted, ends without a status: it is
*lost*, and nobody knows whether the target has carried it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from backstores.iscsi.initiator.formats import NO_DATA, PACK_COMMAND, READ, SCSI_COMMAND, WRITE, WRITE_GOES_ON
from backstores.iscsi.initiator.outbox import Outbox
from backstores.iscsi.initiator.serials import PeerError, Serials
from backstores.iscsi.limits import QUEUE_DEPTH
from backstores.iscsi.pdu import NO_TAG, DataOut, R2t
from backstores.iscsi.serial import MASK

CDB_BYTES: Final = 16
EMPTY: Final = memoryview(bytearray())


class Task:
    """One SCSI command of ours, and in the end its outcome.

    ``into`` takes what the target sends, ``data`` is what we send; a command has one of them at most. ``done`` is
    called with the task when it has ended. ``repeatable``: sending it again does no harm where nobody knows whether
    it was carried out.
    """

    itt: int  # from here to r2ts: of its last submission
    cmd_sn: int
    data_sn: int
    r2ts: int
    since_s: float

    __slots__ = (
        "cdb",
        "cmd_sn",
        "data",
        "data_sn",
        "done",
        "into",
        "itt",
        "lun",
        "moved_bytes",
        "r2ts",
        "repeatable",
        "sense",
        "since_s",
        "status",
        "tries",
        "until_s",
    )

    def __init__(
        self,
        lun: int,
        cdb: bytes,
        done: Callable[[Task], None],
        into: memoryview = EMPTY,
        data: memoryview = EMPTY,
        repeatable: bool = True,
    ) -> None:
        self.lun = lun  # the 8-byte field as a number
        self.cdb = cdb  # padded to 16 bytes
        self.done = done
        self.into = into
        self.data = data
        self.repeatable = repeatable
        self.tries = 0
        self.until_s = 0.0  # who sends it again sets a limit to it
        self.status: int | None = None
        self.sense = b""
        self.moved_bytes = 0

    @property
    def lost(self) -> bool:
        """Whether it has ended without an answer."""
        return self.status is None


class TaskTable:
    """The tasks of one connection. ``ended`` holds those whose ``done`` is to be called."""

    def __init__(self, outbox: Outbox, serials: Serials) -> None:
        self.ended: deque[Task] = deque()
        self.running: dict[int, Task] = {}
        self.now_s = 0.0
        self._outbox = outbox
        self._serials = serials
        self._waiting: deque[Task] = deque()
        self._last_itt = 0

    def __len__(self) -> int:
        return len(self.running) + len(self._waiting)

    # Commands

    def submit(self, task: Task) -> None:
        """Take a task on."""
        if self._waiting or len(self.running) >= QUEUE_DEPTH or self._serials.room < 1:
            task.since_s = self.now_s
            self._waiting.append(task)
        else:
            self._send(task)

    def send_waiting(self) -> None:
        """Send what waits for room while there is some."""
        waiting = self._waiting
        while waiting and len(self.running) < QUEUE_DEPTH and self._serials.room > 0:
            self._send(waiting.popleft())

    def new_itt(self) -> int:
        """Make a task tag that nothing under way has."""
        itt = self._last_itt + 1
        while itt in self.running or itt >= NO_TAG:
            itt = itt + 1 if itt < NO_TAG else 1
        self._last_itt = itt
        return itt

    def _send(self, task: Task) -> None:
        serials = self._serials
        task.itt = itt = self.new_itt()
        task.status = None
        task.sense = b""
        task.moved_bytes = task.data_sn = task.r2ts = 0
        task.since_s = self.now_s
        self.running[itt] = task
        into_bytes, data_bytes = len(task.into), len(task.data)
        assert len(task.cdb) == CDB_BYTES
        assert not (into_bytes and data_bytes)
        now_bytes, flags = 0, READ if into_bytes else NO_DATA
        if data_bytes:
            allowed = self._outbox.parameters
            burst_bytes = min(data_bytes, allowed.first_burst_bytes)
            now_bytes = min(burst_bytes, allowed.send_segment_bytes) if allowed.immediate_data else 0
            flags = WRITE if allowed.initial_r2t or now_bytes == burst_bytes else WRITE_GOES_ON
        header = PACK_COMMAND(
            SCSI_COMMAND, flags, now_bytes, task.lun, itt, into_bytes or data_bytes, serials.cmd_sn, serials.exp_stat_sn
        )
        task.cmd_sn = serials.cmd_sn
        serials.cmd_sn = serials.cmd_sn + 1 & MASK
        self._outbox.put(header + task.cdb, task.data[:now_bytes] if now_bytes else b"")
        task.moved_bytes = now_bytes
        if flags == WRITE_GOES_ON:
            self._send_data(task, burst_bytes, NO_TAG)

    def _send_data(self, task: Task, end_bytes: int, ttt: int) -> None:
        """Send the data of one sequence: from where the last one ended, up to ``end_bytes``."""
        segment_bytes = self._outbox.parameters.send_segment_bytes
        for data_sn, offset in enumerate(range(task.moved_bytes, end_bytes, segment_bytes)):
            end = min(offset + segment_bytes, end_bytes)
            header = DataOut.build(
                final=int(end == end_bytes),
                data_bytes=end - offset,
                lun=task.lun,
                itt=task.itt,
                ttt=ttt,
                exp_stat_sn=self._serials.exp_stat_sn,
                data_sn=data_sn,
                offset_bytes=offset,
            )
            self._outbox.put(header, task.data[offset:end])
        task.moved_bytes = end_bytes

    # What the target says

    def r2t(self, pdu: R2t) -> None:
        """Send what the target asks for.

        Raises:
            PeerError: it asks for something else than what comes next, or for more than there is.
        """
        task = self.running.get(pdu.itt)
        if task is None or not len(task.data):
            raise PeerError("an R2T that belongs to no write")
        end_bytes = pdu.offset_bytes + pdu.desired_bytes
        if pdu.offset_bytes != task.moved_bytes or pdu.r2t_sn != task.r2ts or pdu.ttt == NO_TAG:
            raise PeerError(f"R2T {pdu.r2t_sn} for byte {pdu.offset_bytes} where {task.moved_bytes} comes next")
        if not pdu.desired_bytes or end_bytes > len(task.data):
            raise PeerError(f"an R2T up to byte {end_bytes} of {len(task.data)}")
        if pdu.desired_bytes > self._outbox.parameters.max_burst_bytes:
            raise PeerError(f"an R2T for {pdu.desired_bytes} bytes at once")
        task.r2ts += 1
        self._send_data(task, end_bytes, pdu.ttt)

    def place(self, itt: int, number: int, offset: int, length: int) -> Task:
        """Say whose a Data-In is; its data goes to ``task.into`` at the offset.

        Raises:
            PeerError: it is nobody's, does not come next, or does not fit.
        """
        task = self.running.get(itt)
        if task is None:
            raise PeerError("a Data-In that belongs to no command")
        if offset != task.moved_bytes or number != task.data_sn:
            raise PeerError(f"Data-In {number} for byte {offset} where {task.moved_bytes} comes next")
        if offset + length > len(task.into):
            raise PeerError(f"a Data-In up to byte {offset + length} of {len(task.into)}")
        task.data_sn += 1
        task.moved_bytes = offset + length
        return task

    def respond(self, itt: int, status: int, sense: bytes = b"") -> None:
        """End a task with its status.

        Raises:
            PeerError: there is no such task.
        """
        task = self.running.pop(itt, None)
        if task is None:
            raise PeerError("a status that belongs to no command")
        task.status = status
        task.sense = sense
        self.ended.append(task)

    # Ends without an answer

    def overdue(self, since_s: float) -> Iterator[Task]:
        """Give the tasks that were sent before a time; the oldest are in front."""
        for task in self.running.values():
            if task.since_s > since_s:
                return
            yield task

    def stalled(self, since_s: float) -> bool:
        """Whether the target has kept its window closed since a time, though it has nothing of ours to do."""
        return bool(self._waiting) and not self.running and self._waiting[0].since_s <= since_s

    def drop(self, task: Task) -> None:
        """End a task that was aborted, if it has not ended by itself."""
        if self.running.pop(task.itt, None) is not None:
            self._lose(task)

    def drop_unit(self, lun: int) -> None:
        """End all tasks of a unit that was reset."""
        for task in [task for task in self.running.values() if task.lun == lun]:
            self.drop(task)

    def drop_all(self) -> None:
        """End all tasks: the connection is gone. Those that were sent first end first."""
        for task in (*self.running.values(), *self._waiting):
            self._lose(task)
        self.running.clear()
        self._waiting.clear()

    def _lose(self, task: Task) -> None:
        task.status = None
        task.sense = b""
        self.ended.append(task)
