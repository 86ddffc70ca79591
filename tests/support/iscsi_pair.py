"""Our initiator and a target without I/O between them: bytes move when a test says so, in pieces of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backstores.iscsi.access import Account, Credentials
from backstores.iscsi.digest import digest
from backstores.iscsi.initiator.connection import Connection, State
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.tasks import EMPTY, Task
from backstores.iscsi.pdu import BHS_BYTES, DIGEST_BYTES, BasicHeader, LoginRequest, LoginResponse, padded
from backstores.iscsi.pdu import data_segment as padded_data
from backstores.iscsi.text import build_text, parse_text
from backstores.wire import Wire
from tests.support.iscsi_client import CoreChannel
from tests.support.iscsi_twins import INITIATOR, TARGET, MemoryAccess

ISID = b"\x80\0\0\0\0\1"
OURS = Credentials("host", b"what a host proves itself with")
THEIRS = Credentials("disks", b"what disks prove themselves with")
PATIENCE = Patience(login_s=5, idle_s=10, answer_s=5, command_s=20, function_s=5)
BUFFER_BYTES = 1 << 20

Pieces = Callable[[int], int]
"""Says how many of so many bytes arrive next."""


def whole(count: int) -> int:
    """Let everything arrive at once."""
    return count


def who(**changes: Any) -> Identity:
    """Give an initiator without CHAP, unless told otherwise."""
    return Identity(**{"initiator": INITIATOR, "target": TARGET, "isid": ISID, **changes})


class Receiver:
    """What the transport does with bytes that arrive: ``direct`` first, then the buffer, then the core."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        self._raw = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._raw)
        self._start = self._end = 0
        self.straight = 0  # bytes that went where they belong at once

    def take(self, data: bytes) -> None:
        """Let some bytes arrive."""
        direct = self.core.direct
        if direct is not None:
            count = min(len(direct), len(data))
            direct[:count] = data[:count]
            self.core.received(count)
            self.straight += count
            data = data[count:]
        if self._end + len(data) > BUFFER_BYTES:
            rest = self._end - self._start
            self._raw[:rest] = self._raw[self._start : self._end]
            self._start, self._end = 0, rest
        self._view[self._end : self._end + len(data)] = data
        self._end += len(data)
        self._start = self.core.feed(self._raw, self._view, self._start, self._end)
        if self._start == self._end:
            self._start = self._end = 0


def ended(core: Connection) -> list[Task]:
    """Take the tasks that have ended."""
    tasks = list(core.tasks.ended)
    core.tasks.ended.clear()
    return tasks


def sent(core: Connection) -> bytes:
    """Take what stands in the outbox."""
    return b"".join(core.outbox.take())


def read_task(cdb: bytes, length: int, lun: int = 0, **options: Any) -> Task:
    """Make a task that takes data."""
    return Task(lun, cdb.ljust(16, b"\0"), lambda task: None, memoryview(bytearray(length)), **options)


def write_task(cdb: bytes, data: bytes, lun: int = 0, **options: Any) -> Task:
    """Make a task that sends data."""
    return Task(lun, cdb.ljust(16, b"\0"), lambda task: None, EMPTY, memoryview(data), **options)


@dataclass
class Pair:
    """An initiator and our own target core."""

    access: MemoryAccess = field(default_factory=MemoryAccess)
    identity: Identity = field(default_factory=who)
    hold: bool = False
    pieces: Pieces = whole

    def __post_init__(self) -> None:
        self.core = Connection(self.identity, PATIENCE, 0.0)
        self.channel = CoreChannel(self.access, hold=self.hold)
        self.receiver = Receiver(self.core)

    def account(self, account: Account) -> None:
        """Set what the target knows of the initiator."""
        self.access.accounts[INITIATOR] = account

    def pump(self) -> None:
        """Move bytes to and fro until nobody has anything to say."""
        while self.core.outbox or self.channel.sent:
            data = sent(self.core)
            if data and not self.channel.closed:
                self.channel.send(data)
            while self.channel.sent:
                count = max(1, self.pieces(len(self.channel.sent)))
                self.receiver.take(self.channel.receive(min(count, len(self.channel.sent))))

    def login(self) -> Connection:
        """Log in; it must succeed."""
        self.pump()
        assert self.core.state is State.READY, self.core.reason
        return self.core

    def run(self, task: Task) -> Task:
        """Run a task to its end."""
        self.core.submit(task)
        self.pump()
        assert ended(self.core) == [task]
        return task


class Puppet:
    """A target whose every PDU a test makes itself. It answers the login as it should, and nothing else."""

    def __init__(self, identity: Identity | None = None, keys: dict[str, str] | None = None, window: int = 32) -> None:
        self.identity = identity or who()
        self.core = Connection(self.identity, PATIENCE, 0.0)
        self.receiver = Receiver(self.core)
        self.stat_sn = 100
        self.max_cmd_sn = window
        self.digested = False
        self._keys = keys or {}

    def login(self) -> Connection:
        """Log the initiator in."""
        while self.core.state is State.LOGGING_IN:
            request = LoginRequest.parse(sent(self.core))
            final = request.current_stage == 1
            keys = {"HeaderDigest": "None", "DataDigest": "None", **self._keys} if final else {"AuthMethod": "None"}
            if final:
                keys.setdefault("MaxRecvDataSegmentLength", "262144")
            self.answer_login(request, keys, request.next_stage)
            self.digested = keys.get("HeaderDigest") == "CRC32C"
        assert self.core.state is State.READY, self.core.reason
        return self.core

    def answer_login(self, request: LoginRequest, keys: dict[str, str], next_stage: int | None, **fields: Any) -> None:
        """Send a Login Response."""
        values = {
            "transit": int(next_stage is not None),
            "current_stage": request.current_stage,
            "next_stage": next_stage or 0,
            "isid": request.isid,
            "tsih": 1,
            "itt": request.itt,
        }
        self.say(LoginResponse, build_text(keys.items()), **{**values, **fields})

    def say(self, pdu: type[Wire], data: bytes = b"", counts: bool = True, **fields: Any) -> None:
        """Send a PDU; ``counts``: it takes up a StatSN."""
        self.receiver.take(self.build(pdu, data, counts, **fields))

    def build(self, pdu: type[Wire], data: bytes = b"", counts: bool = True, **fields: Any) -> bytes:
        """Make a PDU with the serial numbers that come next, unless others are given."""
        defaults: dict[str, Any] = {
            "data_bytes": len(data),
            "stat_sn": self.stat_sn,
            "exp_cmd_sn": self.core.serials.cmd_sn,
            "max_cmd_sn": self.max_cmd_sn,
        }
        known = {name: value for name, value in defaults.items() if name in pdu.FIELDS}
        self.stat_sn += int(counts and "stat_sn" not in fields)
        header = pdu.build(**{**known, **fields})
        return header + (digest(header) if self.digested else b"") + padded_data(data)

    def heard(self) -> list[tuple[BasicHeader, bytes]]:
        """Take apart what the initiator has sent."""
        raw, found, at = sent(self.core), [], 0
        while at < len(raw):
            header = BasicHeader.parse(raw, at)
            data_at = at + BHS_BYTES + (DIGEST_BYTES if self.digested else 0)
            at = data_at + padded(header.data_bytes)
            found.append((header, raw[data_at : data_at + header.data_bytes]))
        return found


def keys_of(request: bytes) -> dict[str, str]:
    """Give the keys of a request with a text."""
    header = BasicHeader.parse(request)
    return parse_text(request[BHS_BYTES : BHS_BYTES + header.data_bytes])
