"""Commands on their general way: gather the data, hand over, answer (RFC 7143, clauses 4.2.5, 11.3-11.8).

A task is RECEIVING while data is on its way, READY when all of it is there, RUNNING in the SCSI layer,
REPLYING until the last byte of its answer is in the send buffer. Then it is gone.

Three things bound what a peer can make us keep. The CmdSN window shrinks with every task, so that there
are ``QUEUE_DEPTH`` of them at most; data is kept only as it arrives; and data is asked for only
after room for the whole command was reserved out of ``CONNECTION_BYTES``, and out of what all connections share.

A data sequence that breaks the protocol spoils its task, not the connection: what still comes of the
sequence is discarded, and its last PDU (F bit) brings the CHECK CONDITION (7.8).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from backstores.iscsi.limits import CONNECTION_BYTES, IMMEDIATE_DEPTH, QUEUE_DEPTH, TASK_BYTES
from backstores.iscsi.negotiate import Parameters
from backstores.iscsi.pdu import NO_TAG, DataIn, DataOut, R2t, RejectReason, ScsiCommand, ScsiResponse, SenseHeader
from backstores.iscsi.sender import Sender
from backstores.iscsi.session import Allowance
from backstores.scsi.model import Attribute, Command, Nexus, Response, Status


class TaskState(enum.Enum):
    """Where a task stands."""

    RECEIVING = enum.auto()
    READY = enum.auto()
    RUNNING = enum.auto()
    REPLYING = enum.auto()


MAX_RESIDUAL_BYTES: Final = ScsiResponse.residual_bytes.mask  # a 16-byte CDB can ask for more
UNSTARTED: Final = frozenset({TaskState.RECEIVING, TaskState.READY})
_ATTRIBUTES: Final = frozenset(Attribute)


class Failure(enum.Enum):
    """Why the transport itself ends a task: sense key, ASC and ASCQ (11.4.7.2)."""

    UNEXPECTED_DATA = (0x0B, 0x0C, 0x0C)
    INCORRECT_AMOUNT = (0x0B, 0x0C, 0x0D)
    LOST_DATA = (0x0B, 0x47, 0x05)  # protocol service CRC error: a bad digest, or a PDU out of sequence (7.9)
    DATA_TIMEOUT = (0x0B, 0x4B, 0x06)  # initiator response timeout
    TOO_LONG = (0x05, 0x24, 0x00)  # invalid field in CDB: the transfer length

    def response(self) -> Response:
        """Make a CHECK CONDITION with fixed format sense data (SPC-4, 4.5.3)."""
        key, asc, ascq = self.value
        sense = bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])
        return Response(Status.CHECK_CONDITION, sense)


@dataclass(slots=True)
class Sequence:
    """Data-Out PDUs under one tag: which one must come next, and where the data ends."""

    ttt: int
    end_bytes: int
    data_sn: int = 0

    @property
    def solicited(self) -> bool:
        """True when an R2T asked for it."""
        return self.ttt != NO_TAG


@dataclass(eq=False, slots=True)
class Task:
    """One SCSI command. ``asked_bytes`` is what its CDB takes, ``wanted_bytes`` what of that the initiator has."""

    itt: int
    lun: int
    cdb: bytes
    attribute: Attribute
    immediate: bool
    reads: bool
    writes: bool
    expected_bytes: int
    asked_bytes: int
    wanted_bytes: int
    state: TaskState = TaskState.RECEIVING
    data: bytearray = field(default_factory=bytearray)
    sequence: Sequence | None = None
    failure: Failure | None = None
    r2ts: int = 0
    reserved_bytes: int = 0
    heard: bool = True
    silent_since_s: float = 0

    @property
    def orders(self) -> bool:
        """True when commands behind this one must not overtake it."""
        return self.attribute not in (Attribute.SIMPLE, Attribute.UNTAGGED)

    def command(self) -> Command:
        """Give what the SCSI layer wants to know."""
        data = memoryview(self.data)[: self.wanted_bytes]
        return Command(self.cdb, data, self.attribute, self.itt, self.expected_bytes if self.writes else 0)


@dataclass(frozen=True, slots=True)
class Execute:
    """Have the nexus carry out a task: ``Connection.begun``, then ``completed``."""

    task: Task


RejectPdu = Callable[[RejectReason, bytes], None]


class TaskTable:
    """The tasks of one connection's session."""

    def __init__(
        self,
        sender: Sender,
        nexus: Nexus,
        parameters: Parameters,
        allowance: Allowance,
        start: Callable[[Execute], None],
        reject: RejectPdu,
    ) -> None:
        self.outbox: deque[Iterator[None]] = deque()  # answers; each is advanced while the send buffer has room
        self._sender = sender
        self._nexus = nexus
        self._parameters = parameters
        self._allowance = allowance
        self._closed = False
        self._start = start
        self._reject = reject
        self._tasks: dict[int, Task] = {}
        self._unstarted: dict[int, Task] = {}  # in the order of their CmdSN
        self._waiting: deque[Task] = deque()  # for room
        self._reserved_bytes = 0
        self._immediate = 0
        self._barriers = 0
        self._last_ttt = 0
        self._recently_ended: deque[int] = deque(maxlen=QUEUE_DEPTH)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def holds_back(self) -> bool:
        """True while a task that others must not overtake has not reached the SCSI layer."""
        return self._barriers > 0

    # Commands

    def occupy(self, immediate: bool) -> bool:
        """Take a place in the queue; False when immediate commands have none left."""
        if not immediate:
            self._sender.window -= 1
            return True
        if self._immediate == IMMEDIATE_DEPTH:
            return False
        self._immediate += 1
        return True

    def vacate(self, immediate: bool) -> None:
        """Give a place in the queue back."""
        if immediate:
            self._immediate -= 1
        else:
            self._sender.window += 1

    def command(self, pdu: ScsiCommand, cdb: bytes, data: memoryview, intact: bool) -> None:
        """Begin a task; ``data`` is its immediate data, ``intact`` says whether its digest was right."""
        if pdu.itt in self._tasks or pdu.itt == NO_TAG:
            self._reject(RejectReason.TASK_IN_PROGRESS, pdu.raw)
            return
        if (pdu.read and pdu.write) or pdu.attribute not in _ATTRIBUTES:
            self._reject(RejectReason.INVALID_PDU_FIELD, pdu.raw)
            return
        if not self.occupy(bool(pdu.immediate)):
            self._reject(RejectReason.TOO_MANY_IMMEDIATE_COMMANDS, pdu.raw)
            return
        asked_bytes = self._nexus.data_out_bytes(pdu.lun, cdb)
        task = Task(
            itt=pdu.itt,
            lun=pdu.lun,
            cdb=cdb,
            attribute=Attribute(pdu.attribute),
            immediate=bool(pdu.immediate),
            reads=bool(pdu.read),
            writes=bool(pdu.write),
            expected_bytes=pdu.expected_bytes,
            asked_bytes=asked_bytes,
            wanted_bytes=min(asked_bytes, pdu.expected_bytes) if pdu.write else 0,
        )
        self._tasks[task.itt] = self._unstarted[task.itt] = task
        self._barriers += task.orders
        task.failure = self._unsolicited_failure(pdu, len(data)) if intact else Failure.LOST_DATA
        if task.failure is None:
            task.data += data
        if not pdu.final:
            limit = min(self._parameters.first_burst_bytes, task.expected_bytes)
            task.sequence = Sequence(NO_TAG, limit)
            return
        self._advance(task)

    def _unsolicited_failure(self, pdu: ScsiCommand, length_bytes: int) -> Failure | None:
        """Check what comes with a command and behind it unasked (4.2.5.2, 11.3.4)."""
        allowed = self._parameters
        unsolicited_follows = not pdu.final
        if (length_bytes and not allowed.immediate_data) or (unsolicited_follows and allowed.initial_r2t):
            return Failure.UNEXPECTED_DATA
        if (length_bytes or unsolicited_follows) and not pdu.write:
            return Failure.UNEXPECTED_DATA
        if length_bytes > min(pdu.expected_bytes, allowed.first_burst_bytes):
            return Failure.INCORRECT_AMOUNT
        return None

    def _advance(self, task: Task) -> None:
        """Take a task that no data is on its way for to its next step."""
        if task.wanted_bytes > TASK_BYTES and task.failure is None:
            task.failure = Failure.TOO_LONG
        if task.failure is not None:
            self._leave_unstarted(task)
            self._answer(task, task.failure.response())
        elif not self._reserve(task):
            self._waiting.append(task)
        elif len(task.data) < task.wanted_bytes:
            self._ask(task)
        else:
            task.state = TaskState.READY
        self._start_ready()

    def _reserve(self, task: Task) -> bool:
        """Set room aside for all the data of a command, in either direction; one command always has room."""
        need_bytes = min(task.expected_bytes if task.reads else task.wanted_bytes, TASK_BYTES)
        if task.reserved_bytes == need_bytes:
            return True
        left_bytes = min(CONNECTION_BYTES - self._reserved_bytes, self._allowance.left_bytes)
        if self._reserved_bytes and need_bytes > left_bytes:
            return False
        task.reserved_bytes = need_bytes
        self._take(need_bytes)
        return True

    def _take(self, length_bytes: int) -> None:
        self._reserved_bytes += length_bytes
        self._allowance.left_bytes -= length_bytes

    def _start_ready(self) -> None:
        """Hand over what is ready, unless a command before it must not be overtaken (SAM-5, 8.6)."""
        passed_any = passed_barrier = False
        for task in tuple(self._unstarted.values()):
            if task.state is TaskState.READY and not passed_barrier and not (task.orders and passed_any):
                task.state = TaskState.RUNNING
                del self._unstarted[task.itt]
                self._start(Execute(task))
            else:
                passed_any = True
                passed_barrier = passed_barrier or task.orders

    def begun(self, task: Task) -> None:
        """Hear that the SCSI layer has a task: what comes behind it may go any way."""
        self._barriers -= task.orders

    def _leave_unstarted(self, task: Task) -> None:
        if self._unstarted.pop(task.itt, None) is not None:
            self._barriers -= task.orders

    # Data-Out

    def _ask(self, task: Task) -> None:
        """Send an R2T for the next burst (11.8). MaxOutstandingR2T is 1."""
        self._last_ttt = self._last_ttt % (NO_TAG - 1) + 1
        offset_bytes = len(task.data)
        desired_bytes = min(self._parameters.max_burst_bytes, task.wanted_bytes - offset_bytes)
        task.sequence = Sequence(self._last_ttt, offset_bytes + desired_bytes)
        task.heard = True
        self._sender.put(
            R2t,
            lun=task.lun,
            itt=task.itt,
            ttt=self._last_ttt,
            stat_sn=self._sender.stat_sn,
            r2t_sn=task.r2ts,
            offset_bytes=offset_bytes,
            desired_bytes=desired_bytes,
        )
        task.r2ts += 1

    def data_out(self, pdu: DataOut, data: memoryview, intact: bool) -> None:
        """Take a Data-Out PDU (11.7)."""
        task = self._tasks.get(pdu.itt)
        if task is None or task.sequence is None:
            # Data of a task that was aborted a moment ago may still be on its way: that is no offence.
            if task is not None or pdu.itt not in self._recently_ended:
                self._reject(RejectReason.PROTOCOL_ERROR, pdu.raw)
            return
        task.heard = True
        if task.failure is None:
            task.failure = self._sequence_failure(task, task.sequence, pdu, len(data)) if intact else Failure.LOST_DATA
        if task.failure is None:
            task.data += data
            task.sequence.data_sn += 1
        else:
            task.data.clear()
        if pdu.final:
            task.sequence = None
            self._advance(task)

    @staticmethod
    def _sequence_failure(task: Task, sequence: Sequence, pdu: DataOut, length_bytes: int) -> Failure | None:
        end_bytes = pdu.offset_bytes + length_bytes
        if pdu.ttt != sequence.ttt or pdu.data_sn != sequence.data_sn or pdu.offset_bytes != len(task.data):
            return Failure.LOST_DATA
        if end_bytes > sequence.end_bytes or (sequence.solicited and pdu.final != (end_bytes == sequence.end_bytes)):
            return Failure.INCORRECT_AMOUNT
        return None

    def tick(self, now_s: float, patience_s: float) -> None:
        """Give up on data that has stalled."""
        for task in tuple(self._unstarted.values()):
            if task.sequence is None:
                continue
            if task.heard:
                task.heard = False
                task.silent_since_s = now_s
            elif now_s - task.silent_since_s >= patience_s:
                task.sequence = None
                task.failure = Failure.DATA_TIMEOUT
                self._advance(task)

    # Ends

    def find(self, itt: int, lun: int) -> Task | None:
        """Find a task that is not being answered yet."""
        task = self._tasks.get(itt)
        return task if task is not None and task.lun == lun and task.state is not TaskState.REPLYING else None

    def drop_unstarted(self, matches: Callable[[Task], bool]) -> None:
        """Abort tasks that the SCSI layer does not have yet; nothing is answered."""
        doomed = [task for task in self._unstarted.values() if matches(task)]
        for task in doomed:  # all of them first: the room that one leaves must not start another
            self._leave_unstarted(task)
        for task in doomed:
            self._remove(task)
        self._start_ready()

    def completed(self, task: Task, response: Response | None) -> None:
        """Hear the end of a task from the SCSI layer; None: it was aborted."""
        if self._closed:
            return
        if response is None:
            self._remove(task)
        else:
            self._answer(task, response)

    def _answer(self, task: Task, response: Response) -> None:
        task.state = TaskState.REPLYING
        task.data = bytearray()
        self.outbox.append(self._reply(task, response))

    def _remove(self, task: Task) -> None:
        del self._tasks[task.itt]
        self._recently_ended.append(task.itt)
        self.vacate(task.immediate)
        self._take(-task.reserved_bytes)
        waiting, self._waiting = self._waiting, deque()
        for other in waiting:
            if self._unstarted.get(other.itt) is other:
                self._advance(other)

    def close(self) -> None:
        """Give back all room: the connection is gone. What still runs has nobody to answer."""
        self._closed = True
        self.outbox.clear()
        self._take(-self._reserved_bytes)

    def pump(self) -> None:
        """Put answers into the send buffer while it has room."""
        while self.outbox and not self._sender.full:
            for _ in self.outbox[0]:
                return  # the buffer is full; the rest of this answer comes later
            self.outbox.popleft()

    def _reply(self, task: Task, response: Response) -> Iterator[None]:
        """Put one task's data and status into the send buffer; pause whenever that is full."""
        sender, burst_bytes = self._sender, self._parameters.max_burst_bytes
        data = memoryview(response.data_in)[: task.expected_bytes if task.reads else 0]
        residual = _residual(task, response)
        collapsed = bool(data) and response.status is Status.GOOD
        at = pdus = 0
        while at < len(data):
            while sender.full:
                yield
            # The sender's parameters: a text request may have changed the length since the login.
            length = min(sender.parameters.send_segment_bytes, len(data) - at, burst_bytes - at % burst_bytes)
            last = at + length == len(data)
            fields = {"itt": task.itt, "data_sn": pdus, "offset_bytes": at}
            if last and collapsed:
                self._remove(task)  # first, so that MaxCmdSN counts its place as free
                sender.reply(DataIn, data[at : at + length], final=1, status_here=1, **fields, **residual)
            else:
                final = int(last or (at + length) % burst_bytes == 0)
                sender.put(DataIn, data[at : at + length], final=final, **fields)
            at += length
            pdus += 1
        if not collapsed:
            sense = SenseHeader.build(length=len(response.sense)) + response.sense if response.sense else b""
            fields = {"itt": task.itt, "status": response.status, "exp_data_sn": pdus + task.r2ts}
            self._remove(task)
            sender.reply(ScsiResponse, sense, **fields, **residual)


def _residual(task: Task, response: Response) -> Mapping[str, int]:
    """Compare what the initiator expected with what the command moves (11.4.5)."""
    moved_bytes = len(response.data_in) if task.reads or not task.asked_bytes else task.asked_bytes
    surplus_bytes = moved_bytes - task.expected_bytes
    if surplus_bytes > 0:
        return {"overflow": 1, "residual_bytes": min(surplus_bytes, MAX_RESIDUAL_BYTES)}
    return {"underflow": 1, "residual_bytes": -surplus_bytes} if surplus_bytes else {}
