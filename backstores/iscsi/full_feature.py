"""The full feature phase of one connection, but for what the hot path takes (RFC 7143, clause 11).

``handle`` takes one whole PDU. Those that carry a CmdSN are put into their order first: what comes too
early waits (bounded, S3), what lies outside the window is ignored (4.2.2.1). A table says which method handles
which opcode in which kind of session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.access import Access
from backstores.iscsi.discovery import TextExchange
from backstores.iscsi.effects import Close, Effect, Manage
from backstores.iscsi.limits import HELD_BYTES, MAX_SEGMENT_BYTES, QUEUE_DEPTH
from backstores.iscsi.pdu import (
    NO_TAG,
    AhsHeader,
    AhsType,
    AsyncEvent,
    AsyncMessage,
    BasicHeader,
    DataOut,
    LogoutAnswer,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Opcode,
    Reject,
    RejectReason,
    ScsiCommand,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
    padded,
)
from backstores.iscsi.sender import Sender
from backstores.iscsi.serial import after, distance
from backstores.iscsi.session import Session, SessionRegistry
from backstores.iscsi.tasks import UNSTARTED, TaskTable
from backstores.scsi.model import Function, FunctionResponse


class PeerError(ProtocolError):
    """A violation that ends the connection."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """A PDU as it came: the header, the AHS, the data segment, and whether that one's digest was right."""

    header: bytes
    ahs: bytes
    data: memoryview
    intact: bool = True

    @property
    def size_bytes(self) -> int:
        """What it takes to keep it."""
        return len(self.header) + len(self.ahs) + len(self.data)


_NUMBERED: Final = frozenset(
    {
        Opcode.NOP_OUT,
        Opcode.SCSI_COMMAND,
        Opcode.TASK_MANAGEMENT_REQUEST,
        Opcode.TEXT_REQUEST,
        Opcode.LOGOUT_REQUEST,
    }
)
_FUNCTIONS: Final = frozenset(Function)
_SET_FUNCTIONS: Final = frozenset(
    {
        Function.ABORT_TASK_SET,
        Function.CLEAR_TASK_SET,
        Function.LOGICAL_UNIT_RESET,
    }
)
_RESETS: Final = frozenset({Function.TARGET_WARM_RESET, Function.TARGET_COLD_RESET})


class FullFeature:
    """What a logged-in connection does. ``tasks`` is None in a discovery session."""

    def __init__(
        self, access: Access, registry: SessionRegistry, session: Session, sender: Sender, effects: list[Effect]
    ) -> None:
        self.session = session
        self._registry = registry
        self._sender = sender
        self._effects = effects
        self._held: dict[int, Pdu] = {}
        self._held_bytes = 0
        self._text = TextExchange(access, session.grant, self._set_segment_bytes)
        self.tasks: TaskTable | None = None
        if session.nexus is not None:
            self.tasks = TaskTable(
                sender, session.nexus, session.grant.parameters, registry.allowance, effects.append, self._reject
            )

    @property
    def in_order(self) -> bool:
        """True while nothing forbids the hot path: no command waits for its turn or for one before it."""
        return not self._held and self.tasks is not None and not self.tasks.holds_back

    def handle(self, pdu: Pdu) -> None:
        """Take one PDU.

        Raises:
            PeerError: the connection can't go on.
        """
        header = BasicHeader.parse(pdu.header)
        if header.opcode not in _NUMBERED or header.immediate:
            self._dispatch(header.opcode, pdu)
            return
        sender = self._sender
        steps = distance(sender.exp_cmd_sn, NopOut.cmd_sn.read(pdu.header))
        if not 0 <= steps <= sender.window:
            return
        if steps == 0:
            self._take_turn(pdu)
        else:
            self._hold(after(sender.exp_cmd_sn, steps), pdu)

    def take_held(self) -> bool:
        """Take the command that waited for this turn; False when there is none.

        One at a time, for each may have a long answer, and whoever calls looks after the send buffer.

        Raises:
            PeerError: the connection can't go on.
        """
        waiting = self._held.pop(self._sender.exp_cmd_sn, None) if self._held else None
        if waiting is None:
            return False
        self._held_bytes -= waiting.size_bytes
        self._take_turn(waiting)
        return True

    def _take_turn(self, pdu: Pdu) -> None:
        self._sender.exp_cmd_sn = after(self._sender.exp_cmd_sn)
        self._dispatch(BasicHeader.parse(pdu.header).opcode, pdu)

    def _hold(self, cmd_sn: int, pdu: Pdu) -> None:
        """Keep a command until those before it are here."""
        if cmd_sn in self._held:
            return
        self._held_bytes += pdu.size_bytes
        if self._held_bytes > HELD_BYTES or len(self._held) >= QUEUE_DEPTH:
            raise PeerError(f"commands behind a missing CmdSN exceed {HELD_BYTES} bytes or {QUEUE_DEPTH} commands")
        self._held[cmd_sn] = replace(pdu, data=memoryview(bytes(pdu.data)))

    def _dispatch(self, opcode: int, pdu: Pdu) -> None:
        handlers = _DISCOVERY_HANDLERS if self.tasks is None else _HANDLERS
        handler = handlers.get(opcode)
        if handler is None:
            known = opcode in _HANDLERS or opcode == Opcode.LOGIN_REQUEST
            reason = RejectReason.PROTOCOL_ERROR if known else RejectReason.COMMAND_NOT_SUPPORTED
            self._reject(reason, pdu.header)
            return
        if pdu.ahs and opcode != Opcode.SCSI_COMMAND:
            raise PeerError(f"opcode {opcode:#x} with an additional header segment")
        if not pdu.intact:
            self._reject(RejectReason.DATA_DIGEST_ERROR, pdu.header)  # 7.8
            if opcode not in _SPOILED_BY_DIGEST:
                return
        handler(self, pdu)

    def _reject(self, reason: RejectReason, header: bytes) -> None:
        self._sender.reply(Reject, header, reason=reason)

    def _set_segment_bytes(self, length_bytes: int) -> None:
        self._sender.parameters = replace(
            self._sender.parameters, send_segment_bytes=min(length_bytes, MAX_SEGMENT_BYTES)
        )

    # Handlers

    def _nop_out(self, pdu: Pdu) -> None:
        nop = NopOut.parse(pdu.header)
        if nop.itt == NO_TAG:  # the answer to our own NOP-In: that it came is all it says
            return
        ping = pdu.data[: self._sender.parameters.send_segment_bytes]  # 11.18.2: the one echo there is
        self._sender.reply(NopIn, ping, lun=nop.lun, itt=nop.itt, ttt=NO_TAG)

    def _scsi_command(self, pdu: Pdu) -> None:
        assert self.tasks is not None
        command = ScsiCommand.parse(pdu.header)
        self.tasks.command(command, command.cdb + _extended_cdb(pdu.ahs), pdu.data, pdu.intact)

    def _data_out(self, pdu: Pdu) -> None:
        assert self.tasks is not None
        self.tasks.data_out(DataOut.parse(pdu.header), pdu.data, pdu.intact)

    def _text_request(self, pdu: Pdu) -> None:
        request = TextRequest.parse(pdu.header)
        try:
            answer = self._text.step(request, bytes(pdu.data), self._sender.parameters.send_segment_bytes)
        except ProtocolError:
            self._reject(RejectReason.PROTOCOL_ERROR, pdu.header)
            return
        # F=1 needs an F=1 request, and an exchange that goes on has F=0 (11.11.1).
        final = bool(request.final) and answer.ttt == NO_TAG
        self._sender.reply(
            TextResponse,
            answer.text,
            final=final,
            more=answer.more,
            lun=request.lun,
            itt=request.itt,
            ttt=answer.ttt,
        )

    def _logout(self, pdu: Pdu) -> None:
        request = LogoutRequest.parse(pdu.header)
        answer = LogoutAnswer.CLOSED
        if request.reason == LogoutReason.REMOVE_FOR_RECOVERY:
            answer = LogoutAnswer.RECOVERY_NOT_SUPPORTED
        elif request.reason == LogoutReason.CLOSE_CONNECTION and request.cid != self.session.grant.cid:
            answer = LogoutAnswer.CID_NOT_FOUND
        self._sender.reply(LogoutResponse, itt=request.itt, response=answer)
        if answer is LogoutAnswer.CLOSED:
            self._effects.append(Close("logged out"))

    def _snack(self, pdu: Pdu) -> None:
        self._reject(RejectReason.SNACK_REJECT, pdu.header)  # nothing is sent again at ErrorRecoveryLevel 0

    # Task management

    def _task_management(self, pdu: Pdu) -> None:
        assert self.tasks is not None
        request = TaskManagementRequest.parse(pdu.header)
        if not self.tasks.occupy(bool(request.immediate)):
            self._reject(RejectReason.TOO_MANY_IMMEDIATE_COMMANDS, pdu.header)
            return
        response = self._answer_at_once(request)
        if response is None:
            function = Function(request.function)
            self._effects.append(
                Manage(function, request.lun, request.referenced_itt, request.itt, bool(request.immediate))
            )
        else:
            self._function_response(request.itt, bool(request.immediate), response)

    def _answer_at_once(self, request: TaskManagementRequest) -> FunctionResponse | None:
        """Do a function's part that concerns tasks the SCSI layer has not seen; None: it has a part too."""
        tasks = self.tasks
        assert tasks is not None
        if request.function not in _FUNCTIONS:
            return FunctionResponse.NOT_SUPPORTED
        function = Function(request.function)
        if function is Function.TASK_REASSIGN:
            return FunctionResponse.REASSIGN_NOT_SUPPORTED  # ErrorRecoveryLevel 0
        if function is Function.ABORT_TASK:
            task = tasks.find(request.referenced_itt, request.lun)
            if task is None:
                return FunctionResponse.TASK_DOES_NOT_EXIST
            if task.state in UNSTARTED:
                tasks.drop_unstarted(lambda other: other is task)
                return FunctionResponse.COMPLETE
        elif function in _SET_FUNCTIONS:
            tasks.drop_unstarted(lambda other: other.lun == request.lun)
        elif function in _RESETS:
            tasks.drop_unstarted(lambda other: True)
        return None

    def managed(self, request: Manage, response: FunctionResponse) -> None:
        """Hear the end of a task management function."""
        self._function_response(request.itt, request.immediate, response)
        if request.function is Function.TARGET_COLD_RESET and response is FunctionResponse.COMPLETE:
            self._cold_reset()

    def _function_response(self, itt: int, immediate: bool, response: FunctionResponse) -> None:
        """Answer behind what the tasks that ended before have to say: no task speaks after its end is confirmed."""
        assert self.tasks is not None
        self.tasks.vacate(immediate)
        self.tasks.outbox.append(self._put_function_response(itt, response))

    def _put_function_response(self, itt: int, response: FunctionResponse) -> Iterator[None]:
        self._sender.reply(TaskManagementResponse, itt=itt, response=response)
        yield from ()

    def _cold_reset(self) -> None:
        """End the sessions of this host at this target (11.5.1); it has no power over other hosts' (S2)."""
        grant = self.session.grant
        for other in self._registry:
            same = other.grant.account.host == grant.account.host and other.grant.target == grant.target
            if same and other is not self.session:
                self._registry.end(other, "target cold reset")
        self._effects.append(Close("target cold reset"))

    # What the target says of its own

    def ping(self) -> None:
        """Ask for a sign of life (11.19)."""
        # Bits of the tag are ours to choose: any but the reserved one makes the initiator answer.
        self._sender.put(NopIn, itt=NO_TAG, ttt=1, stat_sn=self._sender.stat_sn)

    def announce_close(self) -> None:
        """Tell the initiator that the session is about to be dropped (11.9.1)."""
        self._sender.reply(AsyncMessage, event=AsyncEvent.SESSION_WILL_DROP)


def _extended_cdb(ahs: bytes) -> bytes:
    """Give the bytes of a CDB beyond 16, out of a SCSI command's additional header segments (11.2.2.3).

    Raises:
        PeerError: the segments don't fit, or are of a kind that we don't take.
    """
    extra = b""
    at = 0
    while at < len(ahs):
        header = AhsHeader.parse(ahs, at)
        # The length counts the type-specific part: for a CDB a reserved byte, then the CDB's bytes.
        start, end = at + AhsHeader.SIZE, at + AhsHeader.SIZE - 1 + header.length
        if header.type != AhsType.EXTENDED_CDB or extra or not start < end <= len(ahs):
            raise PeerError("an additional header segment that is not one extended CDB")
        extra = ahs[start:end]
        at = padded(end)
    return extra


Handler = Callable[[FullFeature, Pdu], None]

_DISCOVERY_HANDLERS: Final[Mapping[int, Handler]] = {
    Opcode.NOP_OUT: FullFeature._nop_out,
    Opcode.TEXT_REQUEST: FullFeature._text_request,
    Opcode.LOGOUT_REQUEST: FullFeature._logout,
}
_HANDLERS: Final[Mapping[int, Handler]] = {
    **_DISCOVERY_HANDLERS,
    Opcode.SCSI_COMMAND: FullFeature._scsi_command,
    Opcode.TASK_MANAGEMENT_REQUEST: FullFeature._task_management,
    Opcode.DATA_OUT: FullFeature._data_out,
    Opcode.SNACK_REQUEST: FullFeature._snack,
}
_SPOILED_BY_DIGEST: Final = frozenset({Opcode.SCSI_COMMAND, Opcode.DATA_OUT})  # their task ends in CHECK CONDITION
