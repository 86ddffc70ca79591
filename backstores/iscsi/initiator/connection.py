"""One connection of the initiator, from its first byte to its last (RFC 7143), without I/O.

The transport feeds it what it has received, sends what stands in ``outbox``, and calls ``done`` of the tasks in
``tasks.ended``. ``direct`` is where bytes that come next belong if they are the rest of a long Data-In: the
transport receives them there, straight into the buffer of who asked for them.

``_feed_fast`` is the hot path: Data-In that goes on where the last one ended, and statuses without sense data. It
stops in front of whatever else there is, with nothing changed; the general path takes that one, and says what is
wrong with it if it is. ErrorRecoveryLevel is 0: any violation ends the connection, and its tasks end unanswered.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.digest import digest
from backstores.iscsi.initiator.formats import DATA_IN, SCSI_RESPONSE, STATUS_HERE, UNPACK_ANSWER, Answer
from backstores.iscsi.initiator.login import FIRST_CMD_SN, ITT, Identity, Login, Request
from backstores.iscsi.initiator.outbox import Outbox
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.recovery import Recovery
from backstores.iscsi.initiator.serials import PeerError, Serials
from backstores.iscsi.initiator.tasks import Task, TaskTable
from backstores.iscsi.pdu import (
    BHS_BYTES,
    DIGEST_BYTES,
    NO_TAG,
    AsyncEvent,
    AsyncMessage,
    BasicHeader,
    DataIn,
    LoginRequest,
    LoginResponse,
    LogoutReason,
    LogoutRequest,
    NopIn,
    NopOut,
    Opcode,
    R2t,
    Reject,
    ScsiResponse,
    SenseHeader,
    TaskManagementResponse,
    padded,
)
from backstores.iscsi.serial import MASK
from backstores.wire import Wire

PONGS: Final = 64  # answers to NOP-Ins that may wait to be sent (S3)
DIRECT_BYTES: Final = 16 << 10  # of a Data-In still to come, from which on it is received where it belongs


class State(enum.Enum):
    """Where a connection stands."""

    LOGGING_IN = "logging in"
    READY = "ready"
    LEAVING = "logging out"
    CLOSED = "closed"


class Event(enum.Enum):
    """What moves it on."""

    LOGGED_IN = "logged in"
    LEAVE = "logout"
    END = "end"


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.LOGGING_IN: {Event.LOGGED_IN: State.READY, Event.END: State.CLOSED},
    State.READY: {Event.LEAVE: State.LEAVING, Event.END: State.CLOSED},
    State.LEAVING: {Event.END: State.CLOSED},
    State.CLOSED: {},
}


class Connection:
    """The protocol side of one TCP connection to a target."""

    def __init__(self, identity: Identity, patience: Patience, now_s: float) -> None:
        self.state = State.LOGGING_IN
        self.reason = ""  # why it was closed
        self.outbox = Outbox()
        self.serials = Serials(FIRST_CMD_SN)
        self.tasks = TaskTable(self.outbox, self.serials)
        self.tasks.now_s = now_s
        self.direct: memoryview | None = None
        self.failure: ProtocolError | None = None
        self._login = Login(identity)
        self._identity = identity
        self._patience = patience
        self._recovery = Recovery(self.outbox, self.serials, self.tasks, patience)
        self._direct_header = b""
        self._heard = False
        self._since_s = now_s  # of the login, of silence, or of our logout
        self._pinged_s: float | None = None
        self._pongs = 0
        self._say_login(self._login.first())

    # The session's calls

    def submit(self, task: Task) -> None:
        """Take a task on. One that comes too late ends at once, lost."""
        self.tasks.submit(task)
        if self.state is not State.READY:
            self.tasks.drop_all()

    def leave(self) -> None:
        """Log out. Tasks under way end without an answer."""
        if self.state is State.READY:
            self._move(Event.LEAVE)
            self._since_s = self.tasks.now_s
            self.tasks.drop_all()
            self._put(LogoutRequest, itt=self.tasks.new_itt(), reason=LogoutReason.CLOSE_SESSION, final=1)

    def end(self, reason: str) -> None:
        """End the connection: it is gone, or about to go. Ending it again does nothing."""
        if self.state is not State.CLOSED:
            self._move(Event.END)
            self.reason = reason
            self.direct = None
            self.tasks.drop_all()

    def drained(self) -> None:
        """Hear that all that stood in the outbox is sent."""
        self._pongs = 0

    def tick(self, now_s: float) -> None:
        """Let time pass: silent targets and commands without an answer end here."""
        self.tasks.now_s = now_s
        patience = self._patience
        try:
            match self.state:
                case State.LOGGING_IN if now_s - self._since_s >= patience.login_s:
                    raise PeerError(f"no login within {patience.login_s:g} s")
                case State.LEAVING if now_s - self._since_s >= patience.function_s:
                    raise PeerError(f"no answer to a logout within {patience.function_s:g} s")
                case State.READY:
                    self._listen(now_s)
                    self._recovery.tick(now_s)
                    if self.tasks.stalled(now_s - patience.command_s):
                        raise PeerError(f"the target takes no command for {patience.command_s:g} s")
                case _:
                    pass
        except ProtocolError as error:
            self._fail(error)

    def _listen(self, now_s: float) -> None:
        patience = self._patience
        if self._heard:
            self._heard, self._pinged_s = False, None
            self._since_s = now_s
        elif self._pinged_s is not None:
            # From the ping on, not from when it was due: it may be we who have slept.
            if now_s - self._pinged_s >= patience.answer_s:
                raise PeerError(f"no answer to a NOP-Out within {patience.answer_s:g} s")
        elif now_s - self._since_s >= patience.idle_s:
            self._pinged_s = now_s
            self._put(NopOut, itt=self.tasks.new_itt(), ttt=NO_TAG, final=1)

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _fail(self, error: ProtocolError) -> None:
        self.failure = error
        self.end(str(error))

    # Input

    def feed(self, buffer: bytearray, view: memoryview, at: int, end: int) -> int:
        """Handle the whole PDUs in ``buffer[at:end]``, of which ``view`` is a view; give where the rest begins."""
        self._heard = True
        try:
            while self.state is not State.CLOSED and end - at >= BHS_BYTES:
                at = self._feed_fast(buffer, view, at, end)
                size_bytes = self._take_pdu(view[at:end])
                if size_bytes == 0:
                    break
                at += size_bytes
        except ProtocolError as error:
            self._fail(error)
        self.tasks.send_waiting()
        return end if self.state is State.CLOSED else at

    def received(self, count: int) -> None:
        """Hear that ``count`` bytes were received into ``direct``."""
        assert self.direct is not None
        self._heard = True
        self.direct = self.direct[count:] or None
        if self.direct is None:
            try:
                self._data_in_ends(DataIn.parse(self._direct_header))
            except ProtocolError as error:
                self._fail(error)

    def _feed_fast(self, buffer: bytearray, view: memoryview, at: int, end: int) -> int:
        """Handle plain Data-Ins and statuses from ``at`` on; give where the first other PDU begins."""
        parameters = self.outbox.parameters
        if parameters.data_digest or self.state is not State.READY:
            return at
        running, ended, serials = self.tasks.running, self.tasks.ended, self.serials
        digested = parameters.header_digest
        header_bytes = BHS_BYTES + DIGEST_BYTES if digested else BHS_BYTES
        stat_sn = serials.exp_stat_sn
        last = end - header_bytes
        first = at
        while at <= last:
            answer = UNPACK_ANSWER(buffer, at)
            opcode, flags, response, status, length, _, itt, _, sn, exp_cmd_sn, max_cmd_sn, number, offset, _ = answer
            task = running.get(itt)
            data_at = at + header_bytes
            next_at = data_at + length
            if task is None or next_at > end:
                break
            if digested and digest(view[at : at + BHS_BYTES]) != view[at + BHS_BYTES : data_at]:
                break
            if opcode == DATA_IN:
                into = task.into
                if offset != task.moved_bytes or number != task.data_sn or offset + length > len(into) or length & 3:
                    break
                has_status = flags & STATUS_HERE
                if has_status and sn != stat_sn:
                    break
                into[offset : offset + length] = view[data_at:next_at]
                task.moved_bytes = offset + length
                task.data_sn = number + 1
            elif opcode == SCSI_RESPONSE and not (response or length) and sn == stat_sn:
                has_status = STATUS_HERE
            else:
                break
            if has_status:
                stat_sn = stat_sn + 1 & MASK
                task.status = status
                del running[itt]
                ended.append(task)
            at = next_at
            window = exp_cmd_sn, max_cmd_sn
        if at != first:
            serials.exp_stat_sn = stat_sn
            serials.heard(*window)
        return at

    def _take_pdu(self, view: memoryview) -> int:
        """Handle the PDU at the beginning of a view and give its size; 0 when it isn't all there."""
        if len(view) < BHS_BYTES or self.state is State.CLOSED:
            return 0
        parameters = self.outbox.parameters
        header = BasicHeader.parse(view)
        if header.ahs_words or header.data_bytes > parameters.receive_segment_bytes:
            limit = parameters.receive_segment_bytes
            raise PeerError(f"an AHS, or a data segment of {header.data_bytes} bytes (limit {limit})")
        data_at = BHS_BYTES + (DIGEST_BYTES if parameters.header_digest else 0)
        if len(view) < data_at:
            return 0
        if parameters.header_digest and digest(view[:BHS_BYTES]) != view[BHS_BYTES:data_at]:
            raise PeerError("a wrong header digest")
        data_end = data_at + padded(header.data_bytes)
        pdu_end = data_end + (DIGEST_BYTES if parameters.data_digest and header.data_bytes else 0)
        if len(view) < pdu_end:
            return self._begin_direct(header, view[data_at:], pdu_end)
        if pdu_end != data_end and digest(view[data_at:data_end]) != view[data_end:pdu_end]:
            raise PeerError("a wrong data digest")
        self._dispatch(header, view[data_at : data_at + header.data_bytes])
        return pdu_end

    def _begin_direct(self, header: BasicHeader, data: memoryview, pdu_end: int) -> int:
        """Take the beginning of a long Data-In, and have the rest received where it belongs, if that is plain."""
        missing = header.data_bytes - len(data)
        plain = header.opcode == Opcode.DATA_IN and not header.data_bytes % 4 and not self.outbox.parameters.data_digest
        if missing < DIRECT_BYTES or not plain:
            return 0
        pdu = DataIn.parse(header.raw)
        self._hear(header.raw)
        task = self.tasks.place(pdu.itt, pdu.data_sn, pdu.offset_bytes, pdu.data_bytes)
        at = pdu.offset_bytes
        task.into[at : at + len(data)] = data
        self.direct = task.into[at + len(data) : at + pdu.data_bytes]
        self._direct_header = header.raw
        return pdu_end - missing

    def _dispatch(self, header: BasicHeader, data: memoryview) -> None:
        self._hear(header.raw)
        if self.state is State.LOGGING_IN:
            self._login_response(LoginResponse.parse(header.raw), bytes(data))
            return
        handle = _HANDLERS.get(header.opcode)
        if handle is None:
            raise PeerError(f"a PDU of opcode {header.opcode:#x}, which no target sends now")
        handle(self, header.raw, data)

    def _hear(self, header: bytes) -> None:
        """Take the window that every PDU of a target tells of, in the same place."""
        self.serials.heard(Answer.exp_cmd_sn.read(header), Answer.max_cmd_sn.read(header))

    # Login

    def _say_login(self, request: Request) -> None:
        text = request.text
        fields = request.fields | {"itt": ITT, "data_bytes": len(text)}
        self._put(LoginRequest, text, isid=self._identity.isid, **fields)

    def _login_response(self, pdu: LoginResponse, text: bytes) -> None:
        if not pdu.status:  # else it means nothing (11.13.4)
            if self._login.rounds == 1:
                self.serials.exp_stat_sn = pdu.stat_sn  # the target's choice, told by its first response
            self.serials.status(pdu.stat_sn)
        request = self._login.step(pdu, text)
        if request is not None:
            self._say_login(request)
        else:
            self.outbox.parameters = self._login.parameters
            self._since_s = self.tasks.now_s
            self._move(Event.LOGGED_IN)

    # Handlers

    def _scsi_response(self, header: bytes, data: memoryview) -> None:
        pdu = ScsiResponse.parse(header)
        self.serials.status(pdu.stat_sn)
        if pdu.response:
            raise PeerError(f"a target failure (response {pdu.response:#x})")
        sense = b""
        if data:
            length = SenseHeader.parse(data).length
            sense = bytes(data[SenseHeader.SIZE : SenseHeader.SIZE + length])
        self.tasks.respond(pdu.itt, pdu.status, sense)

    def _data_in(self, header: bytes, data: memoryview) -> None:
        pdu = DataIn.parse(header)
        task = self.tasks.place(pdu.itt, pdu.data_sn, pdu.offset_bytes, len(data))
        task.into[pdu.offset_bytes : pdu.offset_bytes + len(data)] = data
        self._data_in_ends(pdu)

    def _data_in_ends(self, pdu: DataIn) -> None:
        if pdu.status_here:
            self.serials.status(pdu.stat_sn)
            self.tasks.respond(pdu.itt, pdu.status)

    def _r2t(self, header: bytes, data: memoryview) -> None:
        self.tasks.r2t(R2t.parse(header))

    def _nop_in(self, header: bytes, data: memoryview) -> None:
        pdu = NopIn.parse(header)
        if pdu.itt != NO_TAG:
            self.serials.status(pdu.stat_sn)  # the answer to our own: that it came is all it says
        elif pdu.ttt != NO_TAG:
            self._pongs += 1
            if self._pongs > PONGS:
                raise PeerError(f"more than {PONGS} NOP-Ins, and no answer is taken")
            self._put(NopOut, itt=NO_TAG, ttt=pdu.ttt, lun=pdu.lun, final=1)

    def _function_response(self, header: bytes, data: memoryview) -> None:
        pdu = TaskManagementResponse.parse(header)
        self.serials.status(pdu.stat_sn)
        self._recovery.answered(pdu.itt, pdu.response)

    def _async_message(self, header: bytes, data: memoryview) -> None:
        pdu = AsyncMessage.parse(header)
        self.serials.status(pdu.stat_sn)
        if pdu.event == AsyncEvent.LOGOUT_REQUESTED:
            self.leave()
        elif pdu.event in (AsyncEvent.CONNECTION_WILL_DROP, AsyncEvent.SESSION_WILL_DROP):
            raise PeerError("the target drops the session")

    def _reject(self, header: bytes, data: memoryview) -> None:
        raise PeerError(f"the target rejects what we sent (reason {Reject.parse(header).reason:#x})")

    def _logout_response(self, header: bytes, data: memoryview) -> None:
        if self.state is not State.LEAVING:
            raise PeerError("an answer to a logout that nobody asked for")
        self.end("logged out")

    def _put(self, pdu: type[Wire], data: bytes = b"", **fields: int | bytes) -> None:
        """Put an immediate PDU: outside of the CmdSN window."""
        numbers = {"cmd_sn": self.serials.cmd_sn, "exp_stat_sn": self.serials.exp_stat_sn}
        self.outbox.put(pdu.build(immediate=1, **numbers, **fields), data)


Handler = Callable[[Connection, bytes, memoryview], None]

_HANDLERS: Final[Mapping[int, Handler]] = {
    Opcode.SCSI_RESPONSE: Connection._scsi_response,
    Opcode.DATA_IN: Connection._data_in,
    Opcode.R2T: Connection._r2t,
    Opcode.NOP_IN: Connection._nop_in,
    Opcode.TASK_MANAGEMENT_RESPONSE: Connection._function_response,
    Opcode.ASYNC_MESSAGE: Connection._async_message,
    Opcode.REJECT: Connection._reject,
    Opcode.LOGOUT_RESPONSE: Connection._logout_response,
}
