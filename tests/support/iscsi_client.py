"""A small synchronous iSCSI initiator for tests: logs in with any keys, sends any PDU, runs SCSI commands.

It talks over a ``Channel``: ``CoreChannel`` drives a ``Connection`` in this process without any I/O,
``SocketChannel`` a portal that ``serving`` runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from backstores.iscsi.access import Access
from backstores.iscsi.chap import decode, encode, response
from backstores.iscsi.connection import Connection
from backstores.iscsi.digest import digest
from backstores.iscsi.effects import Close, Manage
from backstores.iscsi.limits import Limits
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
from backstores.iscsi.portal import Portal
from backstores.iscsi.sender import SCRATCH_BYTES, Sender
from backstores.iscsi.serial import after
from backstores.iscsi.session import SessionRegistry
from backstores.iscsi.tasks import Execute, Task
from backstores.iscsi.text import build_text, parse_text
from backstores.scsi.model import Response
from backstores.wire import Wire
from tests.support.iscsi_twins import INITIATOR, TARGET

T = TypeVar("T")
W = TypeVar("W", bound=Wire)

FAST_KEYS: Mapping[str, str] = {
    "MaxRecvDataSegmentLength": "262144",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "FirstBurstLength": "262144",
    "MaxBurstLength": "1048576",
}


class Closed(Exception):
    """The target has closed the connection."""


class Silence(Exception):
    """The target has said nothing (more)."""


class LoginFailed(Exception):
    """A login that was answered with a status other than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:#06x}")
        self.status = status


class Channel(Protocol):
    """A byte stream to a target."""

    def send(self, data: bytes) -> None: ...

    def receive(self, length: int) -> bytes:
        """Give exactly ``length`` bytes, or raise Closed or Silence."""

    def close(self) -> None: ...


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the coroutine waits")


class CoreChannel:
    """A connection's core, driven directly. With ``hold``, commands stay in ``running`` until ``finish``."""

    def __init__(
        self,
        access: Access,
        registry: SessionRegistry | None = None,
        limits: Limits | None = None,
        *,
        group_tag: int = 1,
        hold: bool = False,
    ) -> None:
        self.hold = hold
        self.running: list[Task] = []
        self.begun = 0
        self.functions: list[Manage] = []
        self.closed = ""
        self.sent = bytearray()
        self._unhandled = bytearray()
        self.core = Connection(
            access,
            SessionRegistry() if registry is None else registry,
            group_tag,
            "192.0.2.1",
            Sender(bytearray(SCRATCH_BYTES)),
            self._drop,
            0.0,
            limits or Limits(),
        )

    def _drop(self, reason: str) -> None:
        self.closed = reason
        self.core.end(reason)

    def send(self, data: bytes) -> None:
        self._unhandled += data
        while not self.closed:
            buffer = self._unhandled
            size = len(buffer)
            used = self.core.feed(
                buffer, memoryview(bytes(buffer)), 0, size
            )  # a copy: the bytearray must be free to grow
            self._unhandled = buffer[used:]
            if not self.settle() and not used:
                break

    def settle(self) -> bool:
        """Do the portal's part; tell whether there was any."""
        self.core.pump()
        sender = self.core.sender
        some = bool(sender.used or self.core.effects)
        self.sent += sender.raw[: sender.used]
        sender.used = 0
        effects, self.core.effects[:] = tuple(self.core.effects), ()
        for effect in effects:
            match effect:
                case Execute(task) if self.hold:
                    self._begin(task)
                    self.running.append(task)
                case Execute(task):
                    self._begin(task)
                    self.finish(task, run_now(self._nexus().execute(task.lun, task.command())))
                case Manage() if self.hold:
                    self.functions.append(effect)
                case Manage(function, lun, itt):
                    self.core.managed(effect, run_now(self._nexus().manage(function, lun, itt)))
                case Close(reason):
                    self._drop(reason)
        if some:
            self.settle()
        return some

    def _begin(self, task: Task) -> None:
        self.begun += 1
        self.core.begun(task)

    def _nexus(self) -> Any:
        assert self.core.session is not None
        return self.core.session.nexus

    def finish(self, task: Task, answer: Response | None) -> None:
        self.core.completed(task, answer)
        self.settle()

    def tick(self, now_s: float) -> None:
        self.core.tick(now_s)
        self.settle()

    def receive(self, length: int) -> bytes:
        if len(self.sent) < length:
            raise Closed(self.closed) if self.closed else Silence
        data = bytes(self.sent[:length])
        del self.sent[:length]
        return data

    def close(self) -> None:
        self._drop("the peer closed")


class SocketChannel:
    """A TCP connection."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10) -> None:
        self.socket = socket.create_connection(address, timeout_s)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                part = self.socket.recv(length - len(data))
            except ConnectionError as error:
                raise Closed from error
            except TimeoutError as error:
                raise Silence from error
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def close(self) -> None:
        self.socket.close()


@dataclass
class Served:
    """A portal in a thread."""

    portal: Portal
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        return self.portal.endpoint

    def url(self, target: str = TARGET, lun: int = 0) -> str:
        host, port = self.address
        return f"iscsi://{host}:{port}/{target}/{lun}"

    def call(self, function: Callable[[], T]) -> T:
        """Call something in the portal's loop."""

        async def calling() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(calling(), self.loop).result(10)


@contextlib.contextmanager
def serving(access: Access, limits: Limits | None = None, port: int = 0) -> Iterator[Served]:
    """Run a portal on loopback in a thread."""
    ready = threading.Event()
    served: list[Served] = []

    async def main() -> None:
        portal = Portal(access, limits=limits)
        await portal.start("127.0.0.1", port)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        served.append(Served(portal, loop))
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        ready.set()
        await stop.wait()
        await portal.close()

    stops: list[Callable[[], object]] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield served[0]
    finally:
        stops[0]()
        thread.join(10)
        assert not thread.is_alive()


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
