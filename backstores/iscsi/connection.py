"""One connection of the target, from its first byte to its last (RFC 7143), without I/O.

The portal feeds it what it has received, and afterwards sends what stands in the send buffer and carries out
``effects``. What comes before a login has succeeded meets ``Login`` and nothing else; then ``FullFeature``
takes over.

``_feed_fast`` is THE HOT PATH, the one place where style bends to speed: READ and WRITE commands
that need no second look go from the receive buffer to the volume, or from the volume to the send
buffer, in one go. It unpacks once and packs once a command, keeps in local variables what it would
otherwise look up, and allocates nothing but the slice that holds the data. Whatever is unusual about a
command makes it stop in front of that command, with nothing changed; the general path takes that one.
"""

from __future__ import annotations

from backstores.device import BlockDevice
from backstores.errors import ProtocolError
from backstores.iscsi.access import Access
from backstores.iscsi.digest import digest
from backstores.iscsi.effects import Close, Effect, LoggedIn, Manage, Refused
from backstores.iscsi.fast import (
    ANY_BUT_SIMPLE,
    CDB_AT,
    DATA_IN,
    FINAL_READ,
    FINAL_WRITE,
    LAST_OF_BURST,
    LAST_WITH_STATUS,
    PACK_DATA_IN,
    PACK_SCSI_RESPONSE,
    READS,
    SCSI_COMMAND,
    SCSI_RESPONSE,
    UNPACK,
)
from backstores.iscsi.full_feature import FullFeature, Pdu, PeerError
from backstores.iscsi.limits import PDUS_A_TURN, Limits
from backstores.iscsi.login import Login, LoginAnswer, LoginRefused
from backstores.iscsi.pdu import (
    BHS_BYTES,
    DIGEST_BYTES,
    NO_TAG,
    BasicHeader,
    LoginRequest,
    LoginResponse,
    Opcode,
    padded,
)
from backstores.iscsi.sender import FLUSH_BYTES, LONG_READ_BYTES, Sender
from backstores.iscsi.serial import MASK
from backstores.iscsi.session import Drop, Session, SessionRegistry
from backstores.iscsi.tasks import Task
from backstores.scsi.model import FunctionResponse, Response


class Connection:
    """The protocol side of one TCP connection. ``drop`` closes that one at once, from outside a call."""

    def __init__(
        self,
        access: Access,
        registry: SessionRegistry,
        group_tag: int,
        address: str,
        sender: Sender,
        drop: Drop,
        now_s: float,
        limits: Limits,
    ) -> None:
        self.sender = sender
        self.effects: list[Effect] = []
        self.session: Session | None = None
        self.closing = False
        self._access = access
        self._registry = registry
        self._group_tag = group_tag
        self._address = address
        self._drop = drop
        self._limits = limits
        self._login: Login | None = Login(access, group_tag)
        self._full: FullFeature | None = None
        self._heard = False
        self._since_s = now_s  # of the connection before login, of silence afterwards
        self._pinged_s: float | None = None

    # Input

    def feed(self, buffer: bytearray, view: memoryview, at: int, end: int) -> int:
        """Handle the whole PDUs in ``buffer[at:end]``, of which ``view`` is a view; give where the rest begins.

        Stops when the send buffer is full, too, or when others should have their turn (C3).
        """
        self._heard = True
        pdus = 0
        try:
            while not self.sender.full and not self.closing and pdus < PDUS_A_TURN:
                if self._full is not None and self._full.take_held():
                    self._closes_by_effect()
                    continue
                if end - at < BHS_BYTES:
                    break
                if self._full is not None and self._full.in_order:
                    at = self._feed_fast(buffer, view, at, end)
                    if end - at < BHS_BYTES or self.sender.full:
                        break
                size_bytes = self._take_pdu(view[at:end])
                if size_bytes == 0:
                    break
                at += size_bytes
                pdus += 1
        except ProtocolError as error:
            self._close(str(error))
        return end if self.closing else at

    def _take_pdu(self, view: memoryview) -> int:
        """Handle the PDU at the beginning of a view and give its size; 0 when it isn't all there."""
        parameters = self.sender.parameters
        header = BasicHeader.parse(view)
        if self._login is not None and header.opcode != Opcode.LOGIN_REQUEST:
            raise PeerError("something other than a login request before login")
        if header.data_bytes > parameters.receive_segment_bytes:
            raise PeerError(f"a data segment of {header.data_bytes} bytes (limit {parameters.receive_segment_bytes})")
        ahs_end = BHS_BYTES + 4 * header.ahs_words
        data_at = ahs_end + (DIGEST_BYTES if parameters.header_digest else 0)
        if len(view) < data_at:
            return 0
        if parameters.header_digest and digest(view[:ahs_end]) != view[ahs_end:data_at]:
            raise PeerError("a wrong header digest")  # 7.8: its lengths can't be trusted
        data_end = data_at + padded(header.data_bytes)
        pdu_end = data_end + (DIGEST_BYTES if parameters.data_digest and header.data_bytes else 0)
        if len(view) < pdu_end:
            return 0
        intact = pdu_end == data_end or digest(view[data_at:data_end]) == view[data_end:pdu_end]
        data = view[data_at : data_at + header.data_bytes]
        self._handle(Pdu(header.raw, bytes(view[BHS_BYTES:ahs_end]), data, intact))
        return pdu_end

    def _handle(self, pdu: Pdu) -> None:
        if self._full is not None:
            self._full.handle(pdu)
            self._closes_by_effect()
        else:
            self._handle_login(LoginRequest.parse(pdu.header), bytes(pdu.data))

    def _closes_by_effect(self) -> None:
        """Stop listening once the full feature phase has asked to close."""
        self.closing = self.closing or any(isinstance(effect, Close) for effect in self.effects)

    def _close(self, reason: str) -> None:
        self.closing = True
        self.effects.append(Close(reason))

    # Login

    def _handle_login(self, request: LoginRequest, data: bytes) -> None:
        login, sender = self._login, self.sender
        assert login is not None
        sender.exp_cmd_sn = request.cmd_sn  # login requests are immediate: the first command has this number too
        answer = login.step(request, data)
        if answer.grant is not None:
            try:
                self.session = self._registry.open(
                    self._access, answer.grant, self._group_tag, self._address, self._drop
                )
            except LoginRefused as refused:
                answer = login.refuse(refused)
        self._answer_login(request, answer)
        if answer.status:
            self.effects.append(Refused(login.initiator, answer.reason))
            self._close("login refused")
        elif self.session is not None:
            self._login = None
            self.sender.parameters = self.session.grant.parameters
            self._full = FullFeature(self._access, self._registry, self.session, sender, self.effects)
            self.effects.append(LoggedIn(self.session))

    def _answer_login(self, request: LoginRequest, answer: LoginAnswer) -> None:
        self.sender.reply(
            LoginResponse,
            answer.text,
            transit=int(answer.transit),
            current_stage=request.current_stage,
            next_stage=request.next_stage if answer.transit else 0,
            isid=request.isid,
            tsih=request.tsih if self.session is None else self.session.tsih,
            itt=request.itt,
            status=answer.status,
        )

    # The portal's calls

    @property
    def logged_in(self) -> bool:
        """True from the end of the login on."""
        return self._full is not None

    def begun(self, task: Task) -> None:
        """Hear that the nexus has a task."""
        if self._full is not None and self._full.tasks is not None:
            self._full.tasks.begun(task)

    def completed(self, task: Task, response: Response | None) -> None:
        """Hear how a task ended."""
        if self._full is not None and self._full.tasks is not None:
            self._full.tasks.completed(task, response)

    def managed(self, request: Manage, response: FunctionResponse) -> None:
        """Hear how a task management function ended."""
        if self._full is not None:
            self._full.managed(request, response)
            self._closes_by_effect()

    def pump(self) -> None:
        """Put answers that wait into the send buffer while it has room."""
        if self._full is not None and self._full.tasks is not None:
            self._full.tasks.pump()

    def announce_close(self) -> None:
        """Tell the initiator that the target goes away."""
        if self._full is not None:
            self._full.announce_close()

    def tick(self, now_s: float) -> None:
        """Let time pass: late logins, silent initiators and stalled data end here."""
        limits = self._limits
        if self._full is None:
            if now_s - self._since_s >= limits.login_s and not self.closing:
                self._close(f"no login within {limits.login_s:g} s")
            return
        if self._full.tasks is not None:
            self._full.tasks.tick(now_s, limits.data_out_s)
        if self._heard:
            self._heard, self._pinged_s = False, None
            self._since_s = now_s
        elif self._pinged_s is not None:
            # From the ping on, not from when it was due: it may be we who have slept.
            if now_s - self._pinged_s >= limits.answer_s and not self.closing:
                self._close(f"no answer to a NOP-In within {limits.answer_s:g} s")
        elif now_s - self._since_s >= limits.idle_s:
            self._pinged_s = now_s
            self._full.ping()

    def end(self, reason: str) -> None:
        """End the session, if there is one; the connection itself is gone or about to go."""
        self.closing = True
        if self._full is not None and self._full.tasks is not None:
            self._full.tasks.close()
        if self.session is not None:
            self._registry.end(self.session, reason)

    # The hot path

    def _feed_fast(self, buffer: bytearray, view: memoryview, at: int, end: int) -> int:
        """Handle plain READs and WRITEs from ``at`` on; give where the first other PDU begins."""
        sender, session = self.sender, self.session
        assert session is not None
        nexus, parameters = session.nexus, sender.parameters
        if nexus is None or parameters.data_digest:
            return at
        digested = parameters.header_digest
        header_bytes = BHS_BYTES + DIGEST_BYTES if digested else BHS_BYTES
        fast_read, fast_write = nexus.fast_read, nexus.fast_write
        out, out_view, used = sender.raw, sender.view, sender.used
        stat_sn, exp_cmd_sn, window = sender.stat_sn, sender.exp_cmd_sn, sender.window
        segment_bytes = min(parameters.send_segment_bytes, parameters.max_burst_bytes)
        write_bytes = parameters.first_burst_bytes if parameters.immediate_data else 0
        last = end - header_bytes if window >= 0 else -1
        while at <= last and used < FLUSH_BYTES:
            cdb_opcode = buffer[at + CDB_AT]
            reads = cdb_opcode in READS
            unpack = UNPACK.get(cdb_opcode)
            if unpack is None:
                break
            opcode, flags, lengths, lun, itt, length, cmd_sn, _, cdb_flags, lba, blocks, control = unpack(buffer, at)
            if opcode != SCSI_COMMAND or cmd_sn != exp_cmd_sn or cdb_flags or control or not blocks or itt == NO_TAG:
                break
            after_header = at + header_bytes
            if digested and digest(view[at : at + BHS_BYTES]) != view[at + BHS_BYTES : after_header]:
                break
            device = fast_read.get(lun) if reads else fast_write.get(lun)
            if device is None or length != blocks * device.block_bytes or lba + blocks > device.blocks:
                break
            next_cmd_sn = exp_cmd_sn + 1 & MASK
            max_cmd_sn = next_cmd_sn + window & MASK
            data_at = used + header_bytes
            if not reads:
                end_at = after_header + length
                if flags & ANY_BUT_SIMPLE != FINAL_WRITE or lengths != length or length > write_bytes or end_at > end:
                    break
                if not device.write_now(lba, blocks, view[after_header:end_at]):
                    break
                PACK_SCSI_RESPONSE(out, used, SCSI_RESPONSE, LAST_OF_BURST, itt, stat_sn, next_cmd_sn, max_cmd_sn)
                header_at, used, at = used, data_at, end_at
            elif flags & ANY_BUT_SIMPLE != FINAL_READ or lengths:
                break
            elif length <= segment_bytes:
                if not device.read_now(lba, blocks, out_view[data_at : data_at + length]):
                    break
                PACK_DATA_IN(
                    out, used, DATA_IN, LAST_WITH_STATUS, length, itt, NO_TAG, stat_sn, next_cmd_sn, max_cmd_sn, 0, 0
                )
                header_at, used, at = used, data_at + length, after_header
            else:
                after = self._read_long(device, lba, length, itt, used, (stat_sn, next_cmd_sn, max_cmd_sn))
                if after == used:
                    break
                used, at = after, after_header
                stat_sn, exp_cmd_sn = stat_sn + 1 & MASK, next_cmd_sn
                continue  # it has put its digests itself
            if digested:
                out[header_at + BHS_BYTES : data_at] = digest(out_view[header_at : header_at + BHS_BYTES])
            stat_sn, exp_cmd_sn = stat_sn + 1 & MASK, next_cmd_sn
        sender.used, sender.stat_sn, sender.exp_cmd_sn = used, stat_sn, exp_cmd_sn
        return at

    def _read_long(
        self, device: BlockDevice, lba: int, length: int, itt: int, used: int, numbers: tuple[int, int, int]
    ) -> int:
        """Put a READ of several Data-In PDUs into the send buffer; give its new fill, the old one if it can't be."""
        out, out_view, parameters = self.sender.raw, self.sender.view, self.sender.parameters
        burst_bytes, block_bytes = parameters.max_burst_bytes, device.block_bytes
        segment_bytes = min(parameters.send_segment_bytes, burst_bytes)
        header_bytes = BHS_BYTES + DIGEST_BYTES if parameters.header_digest else BHS_BYTES
        if length > LONG_READ_BYTES or segment_bytes % block_bytes or burst_bytes % segment_bytes:
            return used
        stat_sn, exp_cmd_sn, max_cmd_sn = numbers
        fill = used
        for data_sn, offset in enumerate(range(0, length, segment_bytes)):
            piece = min(segment_bytes, length - offset)
            end = offset + piece
            data_at = fill + header_bytes
            blocks = piece // block_bytes
            if not device.read_now(lba + offset // block_bytes, blocks, out_view[data_at : data_at + piece]):
                return used
            if end == length:
                flags, status_sn = LAST_WITH_STATUS, stat_sn
            else:
                flags, status_sn = 0 if end % burst_bytes else LAST_OF_BURST, 0
            PACK_DATA_IN(
                out, fill, DATA_IN, flags, piece, itt, NO_TAG, status_sn, exp_cmd_sn, max_cmd_sn, data_sn, offset
            )
            if parameters.header_digest:
                out[fill + BHS_BYTES : data_at] = digest(out_view[fill : fill + BHS_BYTES])
            fill = data_at + piece
        return fill
