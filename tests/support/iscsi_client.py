"""A small synchronous iSCSI initiator for tests: logs in with any keys, sends any PDU, runs SCSI commands.

It talks over a ``Channel``: ``CoreChannel`` drives a ``Connection`` in this process without any I/O,
``SocketChannel`` a portal that ``serving`` runs in a thread (``tests.support.iscsi_channels``).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from backstores.iscsi.access import Access
from backstores.iscsi.chap import decode, encode, response
from backstores.iscsi.digest import digest
from backstores.iscsi.pdu import (
    BHS_BYTES,
    DIGEST_BYTES,
    NO_TAG,
    TARGET_PDUS,
    BasicHeader,
    DataIn,
    DataOut,
    LoginRequest,
    LoginResponse,
    Opcode,
    R2t,
    ScsiCommand,
    ScsiResponse,
    data_segment,
    padded,
)
from backstores.iscsi.serial import after
from backstores.iscsi.text import build_text, parse_text
from backstores.wire import Wire
from tests.support.iscsi_channels import Channel, Closed, CoreChannel, Served, Silence, SocketChannel, serving
from tests.support.iscsi_twins import INITIATOR, TARGET

__all__ = [
    "FAST_KEYS",
    "Channel",
    "Client",
    "Closed",
    "CoreChannel",
    "LoginFailed",
    "Received",
    "Result",
    "Served",
    "Silence",
    "SocketChannel",
    "connect",
    "read10",
    "read16",
    "serving",
    "write10",
    "write16",
]

W = TypeVar("W", bound=Wire)

FAST_KEYS: Mapping[str, str] = {
    "MaxRecvDataSegmentLength": "262144",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "FirstBurstLength": "262144",
    "MaxBurstLength": "1048576",
}


class LoginFailed(Exception):
    """A login that was answered with a status other than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:#06x}")
        self.status = status


@dataclass
class Received:
    """A PDU of the target."""

    pdu: Wire
    data: bytes

    def text(self) -> dict[str, str]:
        return parse_text(self.data)


@dataclass
class Result:
    """A SCSI command's end. ``r2ts`` are the (offset, length) pairs that the target asked for."""

    status: int
    data: bytes = b""
    sense: bytes = b""
    overflow: int = 0
    underflow: int = 0
    r2ts: list[tuple[int, int]] = field(default_factory=list)
    pdus: list[Wire] = field(default_factory=list)

    @property
    def asc(self) -> tuple[int, int, int]:
        """Sense key, ASC and ASCQ."""
        return self.sense[2], self.sense[12], self.sense[13]


class Client:
    """One connection of an initiator."""

    def __init__(self, channel: Channel, name: str = INITIATOR, isid: bytes = b"\x80\0\0\1\0\0") -> None:
        self.channel = channel
        self.name = name
        self.isid = isid
        self.tsih = 0
        self.cid = 0
        self.cmd_sn = 1
        self.exp_stat_sn = 0
        self.header_digest = self.data_digest = False
        self.replies: dict[str, str] = {}
        self._itts = itertools.count(1)

    # PDUs

    def encode(self, header: bytes, data: bytes = b"", ahs: bytes = b"") -> bytes:
        """Give a whole PDU, digests included."""
        parts = [header + ahs]
        if self.header_digest:
            parts.append(digest(parts[0]))
        if data:
            parts.append(data_segment(data))
            if self.data_digest:
                parts.append(digest(parts[-1]))
        return b"".join(parts)

    def build(self, pdu: type[Wire], data: bytes = b"", **fields: Any) -> bytes:
        """Build a PDU; what is not given comes from the session's state."""
        defaults: dict[str, Any] = {"exp_stat_sn": self.exp_stat_sn, "cmd_sn": self.cmd_sn, "data_bytes": len(data)}
        if "itt" in pdu.FIELDS and "itt" not in fields:
            fields["itt"] = next(self._itts)
        if "final" in pdu.FIELDS:
            defaults["final"] = 1
        known = {name: value for name, value in defaults.items() if name in pdu.FIELDS}
        header = pdu.build(**{**known, **fields})
        if "cmd_sn" in pdu.FIELDS and "cmd_sn" not in fields and not fields.get("immediate"):
            self.cmd_sn = after(self.cmd_sn)
        return self.encode(header, data)

    def send(self, pdu: type[Wire], data: bytes = b"", **fields: Any) -> int:
        """Send a PDU; give its task tag."""
        raw = self.build(pdu, data, **fields)
        self.channel.send(raw)
        return BasicHeader.parse(raw).itt

    def receive(self) -> Received:
        """Take the target's next PDU, with all checks."""
        raw = self.channel.receive(BHS_BYTES)
        header = BasicHeader.parse(raw)
        assert header.ahs_words == 0
        if self.header_digest:
            assert self.channel.receive(DIGEST_BYTES) == digest(raw)
        segment = self.channel.receive(padded(header.data_bytes))
        assert not any(segment[header.data_bytes :])
        if self.data_digest and segment:
            assert self.channel.receive(DIGEST_BYTES) == digest(segment)
        pdu = TARGET_PDUS[header.opcode].parse(raw)
        if header.opcode not in (Opcode.R2T,) and not (isinstance(pdu, DataIn) and not pdu.status_here):
            self._check_stat_sn(pdu)
        return Received(pdu, segment[: header.data_bytes])

    def _check_stat_sn(self, pdu: Wire) -> None:
        stat_sn = type(pdu).FIELDS["stat_sn"].read(pdu.raw)
        assert isinstance(stat_sn, int)
        if isinstance(pdu, LoginResponse) and self.exp_stat_sn == 0:
            self.exp_stat_sn = stat_sn
        assert stat_sn == self.exp_stat_sn
        asks = BasicHeader.parse(pdu.raw)
        if not (asks.opcode == Opcode.NOP_IN and asks.itt == NO_TAG):
            self.exp_stat_sn = after(self.exp_stat_sn)

    def expect(self, pdu: type[W]) -> W:
        """Take the next PDU, which must be of a kind."""
        received = self.receive().pdu
        assert isinstance(received, pdu), received
        return received

    def silent(self) -> bool:
        """Tell whether the target has nothing to say at the moment (for a CoreChannel)."""
        assert isinstance(self.channel, CoreChannel)
        return not self.channel.sent and not self.channel.closed

    # Login

    def login_request(
        self, keys: Mapping[str, str] | bytes, stage: int, next_stage: int | None, **fields: Any
    ) -> Received:
        """Send one login request and give the answer, whatever its status."""
        data = keys if isinstance(keys, bytes) else build_text(keys.items())
        values: dict[str, Any] = {
            "immediate": 1,
            "transit": int(next_stage is not None),
            "current_stage": stage,
            "next_stage": next_stage or 0,
            "isid": self.isid,
            "tsih": self.tsih,
            "cid": self.cid,
        }
        self.send(LoginRequest, data, **{**values, **fields})
        return self.receive()

    def names(self, target: str | None = TARGET) -> dict[str, str]:
        """Give the keys of a first request; no target: discovery."""
        kind = {"SessionType": "Discovery"} if target is None else {"SessionType": "Normal", "TargetName": target}
        return {"InitiatorName": self.name, **kind}

    def login(
        self,
        keys: Mapping[str, str] = FAST_KEYS,
        target: str | None = TARGET,
        chap: tuple[str, bytes] | None = None,
    ) -> dict[str, str]:
        """Log in; give all keys that the target sent.

        Raises:
            LoginFailed: the target refuses.
        """
        if chap is None:
            self._step({**self.names(target), **keys}, 1, 3)
        else:
            self._step({**self.names(target), "AuthMethod": "CHAP,None"}, 0, None)
            asked = self._step({"CHAP_A": "7,5"}, 0, None)
            challenge = decode(asked["CHAP_C"], 1, 1024)
            answer = response(int(asked["CHAP_A"]), int(asked["CHAP_I"]), chap[1], challenge)
            self._step({"CHAP_N": chap[0], "CHAP_R": encode(answer)}, 0, 1)
            self._step(keys, 1, 3)
        self.header_digest = self.replies.get("HeaderDigest") == "CRC32C"
        self.data_digest = self.replies.get("DataDigest") == "CRC32C"
        return self.replies

    def _step(self, keys: Mapping[str, str], stage: int, next_stage: int | None) -> dict[str, str]:
        answer = self.login_request(keys, stage, next_stage)
        assert isinstance(answer.pdu, LoginResponse)
        if answer.pdu.status:
            raise LoginFailed(answer.pdu.status)
        self.replies.update(answer.text())
        if answer.pdu.transit and answer.pdu.next_stage == 3:
            self.tsih = answer.pdu.tsih
        return answer.text()

    # SCSI

    def command(
        self,
        cdb: bytes,
        *,
        read: int = 0,
        write: bytes = b"",
        expected: int | None = None,
        immediate_bytes: int | None = None,
        **fields: Any,
    ) -> Result:
        """Run a SCSI command; data goes as immediate data up to ``immediate_bytes``, then by R2T."""
        now = write[: len(write) if immediate_bytes is None else immediate_bytes]
        length = expected if expected is not None else read or len(write)
        flags = {"read": int(bool(read)), "write": int(bool(write)), "attribute": 1, "expected_bytes": length}
        itt = self.send(ScsiCommand, now, cdb=cdb, **{**flags, **fields})
        return self.finish(itt, write)

    def finish(self, itt: int, write: bytes = b"", segment_bytes: int = 262144) -> Result:
        """Serve R2Ts and take data until a command has ended."""
        result = Result(status=-1)
        data = bytearray()
        while True:
            received = self.receive()
            pdu = received.pdu
            result.pdus.append(pdu)
            match pdu:
                case R2t():
                    assert pdu.itt == itt
                    result.r2ts.append((pdu.offset_bytes, pdu.desired_bytes))
                    self.send_data(pdu, write, segment_bytes)
                case DataIn():
                    assert pdu.itt == itt
                    assert pdu.offset_bytes == len(data)
                    data += received.data
                    if pdu.status_here:
                        break
                case ScsiResponse():
                    assert pdu.itt == itt
                    result.sense = received.data[2:]
                    break
                case _:
                    raise AssertionError(f"{pdu} answers a SCSI command")
        result.status, result.data = pdu.status, bytes(data)
        result.overflow = pdu.residual_bytes if pdu.overflow else 0
        result.underflow = pdu.residual_bytes if pdu.underflow else 0
        return result

    def send_data(self, r2t: R2t, write: bytes, segment_bytes: int = 262144) -> None:
        """Answer an R2T."""
        end = r2t.offset_bytes + r2t.desired_bytes
        for number, at in enumerate(range(r2t.offset_bytes, end, segment_bytes)):
            part = write[at : min(at + segment_bytes, end)]
            self.send(
                DataOut,
                part,
                final=int(at + segment_bytes >= end),
                itt=r2t.itt,
                ttt=r2t.ttt,
                lun=r2t.lun,
                data_sn=number,
                offset_bytes=at,
            )


def read10(lba: int, blocks: int) -> bytes:
    """Give a CDB."""
    return bytes([0x28, 0]) + lba.to_bytes(4, "big") + bytes([0]) + blocks.to_bytes(2, "big") + bytes([0])


def write10(lba: int, blocks: int) -> bytes:
    """Give a CDB."""
    return bytes([0x2A]) + read10(lba, blocks)[1:]


def read16(lba: int, blocks: int) -> bytes:
    """Give a CDB."""
    return bytes([0x88, 0]) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)


def write16(lba: int, blocks: int) -> bytes:
    """Give a CDB."""
    return bytes([0x8A]) + read16(lba, blocks)[1:]


def connect(access: Access, **options: Any) -> tuple[Client, CoreChannel]:
    """Make a client of a core, not logged in."""
    channel = CoreChannel(access, **options)
    return Client(channel), channel
