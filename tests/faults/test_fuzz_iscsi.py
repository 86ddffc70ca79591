"""Hostile bytes for the iSCSI target, before and after login (S1, S3).

A seeded fuzzer: each run makes a connection, says some PDUs to it, most of them damaged somewhere, and lets time
pass and commands end in between. Nothing may escape the core, and nothing may grow past its bound.
``tests.support.fuzzing`` says how many there are, and how to see a failure again.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any

import pytest

from backstores.device import MemoryDevice
from backstores.iscsi.access import Account, Credentials
from backstores.iscsi.limits import (
    CONNECTION_BYTES,
    HELD_BYTES,
    IMMEDIATE_DEPTH,
    LOGIN_BUFFER_BYTES,
    MAX_SEGMENT_BYTES,
    NODE_BYTES,
    QUEUE_DEPTH,
)
from backstores.iscsi.negotiate import KEYS
from backstores.iscsi.pdu import (
    NO_TAG,
    DataOut,
    LoginRequest,
    LogoutRequest,
    NopOut,
    ScsiCommand,
    TaskManagementRequest,
    TextRequest,
)
from backstores.iscsi.session import SessionRegistry
from backstores.scsi.model import Function, FunctionResponse, Response, Status
from backstores.wire import Bits, Bytes, Wire
from tests.support.fuzzing import PDUS, Growth, first_seed, named
from tests.support.iscsi_client import FAST_KEYS, Client, CoreChannel, read10, read16, write10, write16
from tests.support.iscsi_twins import INITIATOR, TARGET, MemoryAccess

PDUS_A_RUN = 20
PARTS = 4  # each test below says a quarter of the PDUs

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 47, 48, 127, 128, 255, 511, 512, 513, 4096, 8191, 8192, 8193, 65535, 65536)
HUGE = (262143, 262144, 262145, (1 << 24) - 1, 1 << 31, NO_TAG - 1, NO_TAG)
FUNCTIONS = tuple(range(10))

Say = Callable[[random.Random, Client, CoreChannel], bytes]


def number(rng: random.Random, width: int) -> int:
    """Give a value that fits a field, an awkward one as a rule."""
    mask = (1 << width) - 1
    pick = rng.random()
    if pick < 0.5:
        return rng.choice(INTERESTING) & mask
    return rng.choice(HUGE) & mask if pick < 0.7 else rng.getrandbits(width)


def mutated_fields(rng: random.Random, pdu: type[Wire], fields: dict[str, Any]) -> dict[str, Any]:
    """Change a field or two."""
    names = [name for name, field in pdu.FIELDS.items() if field.value is None]
    for name in rng.sample(names, rng.choice((0, 0, 0, 1, 2))):
        field = pdu.FIELDS[name]
        if isinstance(field, Bits):
            fields[name] = number(rng, field.width)
        elif isinstance(field, Bytes):
            fields[name] = rng.randbytes(field.width // 8)
    return fields


def damaged(rng: random.Random, raw: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes, in one PDU of twenty-five: what follows is out of step then."""
    if not raw or rng.random() > 0.04:
        return raw
    at = rng.randrange(min(len(raw), 200))
    match rng.randrange(5):
        case 0:
            return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
        case 1:
            return raw[:at]
        case 2:
            return raw + raw[at:]
        case 3:
            return raw[:at] + rng.randbytes(rng.randrange(60)) + raw[at:]
        case _:
            return rng.randbytes(rng.randrange(300))


TAME_VALUES = ("Yes", "No", "None", "CRC32C,None", "1", "0", "512", "4096", "262144", "0x10000", "-1", "9999999999")
WILD_KEYS = (*KEYS, "SendTargets", "CHAP_A", "CHAP_R", "CHAP_N", "CHAP_I", "CHAP_C", "X-a", "k" * 64, "é", "")
WILD_VALUES = (
    *TAME_VALUES,
    *("", "CHAP", "All", TARGET, INITIATOR, "5", "7,5", "9" * 300, "é" * 40, "0b" + "A" * 22),
    *("0x" + "ab" * length for length in (0, 1, 16, 20, 1024, 1025)),
)


def text(rng: random.Random) -> bytes:
    """Make a text of keys and values: legal ones half of the time, else awkward ones and rubbish."""
    if rng.random() < 0.5:
        keys = rng.sample([name for name in KEYS if not name.endswith(("Name", "Type"))], rng.randrange(8))
        return b"".join(f"{key}={rng.choice(TAME_VALUES)}\0".encode() for key in keys)
    parts = (
        rng.choice(WILD_KEYS).encode() + rng.choice((b"=", b"=", b"=", b"", b"==")) + rng.choice(WILD_VALUES).encode()
        for _ in range(rng.choice((0, 1, 2, 5, 70)))
    )
    joined = b"".join(part + b"\0" for part in parts)
    return joined[: rng.randrange(len(joined) + 1)] if joined and rng.random() < 0.2 else joined


# What is said


def say_login(rng: random.Random, client: Client, channel: CoreChannel) -> bytes:
    names = f"InitiatorName={INITIATOR}\0TargetName={TARGET}\0".encode() if rng.random() < 0.8 else b""
    data = names + text(rng)
    fields = {
        "immediate": 1,
        "transit": rng.randrange(2),
        "current_stage": rng.choice((0, 1, 1)),
        "next_stage": rng.choice((1, 3, 3)),
        "data_bytes": len(data),
        "itt": 1,
    }
    return client.encode(LoginRequest.build(**mutated_fields(rng, LoginRequest, fields)), data)


def say_command(rng: random.Random, client: Client, channel: CoreChannel) -> bytes:
    blocks = rng.choice((0, 1, 1, 2, 8, 64, 2048, 65535))
    cdb = rng.choice((read10, write10, read16, write16))(rng.choice((0, 1, 2040, 1 << 31)), blocks)
    if rng.random() < 0.3:
        cdb = bytes([rng.randrange(256)]) + cdb[1:]
    writes = cdb[0] in (0x2A, 0x8A)
    expected = blocks * 512
    data = bytes(min(expected, rng.choice((0, 0, 512, 4096)))) if writes else b""
    fields = {
        "immediate": int(rng.random() < 0.05),
        "final": int(rng.random() < 0.8),
        "read": int(not writes),
        "write": int(writes),
        "attribute": rng.choice((0, 1, 1, 1, 1, 1, 1, 2, 3)),
        "data_bytes": len(data),
        "itt": rng.randrange(12),
        "expected_bytes": expected,
        "cmd_sn": next_cmd_sn(rng, channel),
        "cdb": cdb,
    }
    return client.encode(ScsiCommand.build(**mutated_fields(rng, ScsiCommand, fields)), data)


def say_data(rng: random.Random, client: Client, channel: CoreChannel) -> bytes:
    """Give data that some command waits for, most of the time."""
    full = channel.core._full
    waiting = [task for task in full.tasks._unstarted.values() if task.sequence] if full and full.tasks else []
    if waiting and rng.random() < 0.8:
        task = rng.choice(waiting)
        assert task.sequence is not None
        length = min(task.sequence.end_bytes - len(task.data), rng.choice((512, 4096, 262144)))
        fields = {
            "final": int(length == task.sequence.end_bytes - len(task.data)),
            "itt": task.itt,
            "ttt": task.sequence.ttt,
            "data_sn": task.sequence.data_sn,
            "offset_bytes": len(task.data),
        }
    else:
        length = rng.choice((0, 4, 512, 4096))
        fields = {"final": rng.randrange(2), "itt": rng.randrange(12), "ttt": rng.choice((NO_TAG, 1, 2, 3))}
    return client.encode(DataOut.build(**mutated_fields(rng, DataOut, {"data_bytes": length, **fields})), bytes(length))


def say_text(rng: random.Random, client: Client, channel: CoreChannel) -> bytes:
    data = b"SendTargets=All\0" if rng.random() < 0.3 else text(rng)
    more = int(rng.random() < 0.3)
    fields = {
        "final": 1 - more,
        "more": more,
        "data_bytes": len(data),
        "itt": 3,
        "ttt": rng.choice((NO_TAG, 1, 2, 3)),
        "cmd_sn": next_cmd_sn(rng, channel),
    }
    return client.encode(TextRequest.build(**mutated_fields(rng, TextRequest, fields)), data)


def say_function(rng: random.Random, client: Client, channel: CoreChannel) -> bytes:
    fields = {
        "immediate": rng.randrange(2),
        "final": 1,
        "function": rng.choice(FUNCTIONS),
        "itt": rng.randrange(20, 30),
        "referenced_itt": rng.randrange(12),
        "cmd_sn": next_cmd_sn(rng, channel),
    }
    return client.encode(TaskManagementRequest.build(**mutated_fields(rng, TaskManagementRequest, fields)))


def say_other(rng: random.Random, client: Client, channel: CoreChannel) -> bytes:
    kind = rng.choice((NopOut, NopOut, NopOut, LogoutRequest))
    data = bytes(rng.choice((0, 0, 4, 5, 8192)))
    fields = {
        "data_bytes": len(data),
        "itt": rng.choice((7, NO_TAG)),
        "ttt": NO_TAG,
        "cmd_sn": next_cmd_sn(rng, channel),
        "reason": rng.randrange(3),
    }
    known = {name: value for name, value in fields.items() if name in kind.FIELDS}
    header = bytearray(kind.build(**mutated_fields(rng, kind, known)))
    if rng.random() < 0.2:
        header[0] = rng.randrange(256)
    return client.encode(bytes(header), data if "data_bytes" in kind.FIELDS else b"")


def next_cmd_sn(rng: random.Random, channel: CoreChannel) -> int:
    ahead = 0 if rng.random() < 0.85 else rng.choice((1, 2, -1, 127, 128))
    return channel.core.sender.exp_cmd_sn + ahead & 0xFFFFFFFF


AFTER_LOGIN: tuple[Say, ...] = (
    say_command,
    say_command,
    say_command,
    say_data,
    say_data,
    say_text,
    say_function,
    say_other,
    say_login,
)


# Runs


def run(rng: random.Random, client: Client, channel: CoreChannel, sayings: tuple[Say, ...]) -> int:
    """Say up to ``PDUS_A_RUN`` PDUs; give how many it were."""
    for said in range(PDUS_A_RUN):
        if channel.closed:
            return said
        raw = damaged(rng, rng.choice(sayings)(rng, client, channel))
        for part in (raw[: len(raw) // 2], raw[len(raw) // 2 :]) if rng.random() < 0.1 else (raw,):
            channel.send(part)
        go_on(rng, channel)
        check_bounds(channel)
    return PDUS_A_RUN


def go_on(rng: random.Random, channel: CoreChannel) -> None:
    """End some of the commands that run, and now and then let time pass."""
    while channel.running and rng.random() < 0.4:
        task = channel.running.pop(rng.randrange(len(channel.running)))
        channel.finish(task, rng.choice((None, Response(), Response(Status.CHECK_CONDITION, bytes(18), bytes(600)))))
    while channel.functions and rng.random() < 0.5:
        channel.core.managed(channel.functions.pop(), rng.choice(tuple(FunctionResponse)))
        channel.settle()
    if rng.random() < 0.03 and not channel.closed:
        channel.tick(rng.choice((1, 20, 40, 100)))


def check_bounds(channel: CoreChannel) -> None:
    """Hold what a connection keeps against its limits."""
    core = channel.core
    assert len(channel.sent) < 16 << 20
    channel.sent.clear()
    assert core.sender.used == 0
    unhandled = 0 if channel.closed else len(channel._unhandled)
    assert unhandled <= (MAX_SEGMENT_BYTES + 4096 if core.logged_in else LOGIN_BUFFER_BYTES)
    full = core._full
    if full is None or full.tasks is None:
        return
    tasks = full.tasks
    assert len(tasks) <= QUEUE_DEPTH + IMMEDIATE_DEPTH
    assert tasks._immediate <= IMMEDIATE_DEPTH
    assert 0 <= tasks._reserved_bytes <= CONNECTION_BYTES
    assert core._registry.allowance.left_bytes == NODE_BYTES - tasks._reserved_bytes
    assert tasks._barriers >= 0
    assert core.sender.window <= QUEUE_DEPTH - 1
    assert full._held_bytes == sum(pdu.size_bytes for pdu in full._held.values()) <= HELD_BYTES


def fuzz(part: int, begin: Callable[[random.Random], tuple[Client, CoreChannel]], sayings: tuple[Say, ...]) -> None:
    """Make runs until a quarter of all PDUs has been said; nothing may be left of them afterwards."""
    growth = Growth(PDUS // PARTS)
    said, seed = 0, first_seed(part)
    gc.collect()
    objects = len(gc.get_objects())
    while said < PDUS // PARTS:
        growth.after(said)
        with named(seed):
            said += fuzz_once(random.Random(seed), begin, sayings)
        seed += 1
    growth.check()
    assert len(gc.get_objects()) - objects < 2000


def fuzz_once(
    rng: random.Random, begin: Callable[[random.Random], tuple[Client, CoreChannel]], sayings: tuple[Say, ...]
) -> int:
    """Make one run on a connection of its own; give how many PDUs were said."""
    client, channel = begin(rng)
    said = max(1, run(rng, client, channel, sayings))
    channel.close()
    assert channel.core._registry.allowance.left_bytes == NODE_BYTES
    return said


DEVICE = MemoryDevice(2048)


def begin_nothing(rng: random.Random) -> tuple[Client, CoreChannel]:
    secret = Account("host", Credentials("alice", b"alice's secret"), Credentials("disks", b"the disks' secret"))
    access = MemoryAccess(DEVICE, accounts={INITIATOR: rng.choice((Account("host"), secret))})
    channel = CoreChannel(access, SessionRegistry())
    return Client(channel), channel


def begin_session(rng: random.Random, keys: dict[str, str], target: str | None = TARGET) -> tuple[Client, CoreChannel]:
    DEVICE.immediate = rng.random() < 0.7
    channel = CoreChannel(MemoryAccess(DEVICE), SessionRegistry(), hold=rng.random() < 0.5)
    client = Client(channel)
    client.cmd_sn = rng.choice((1, 0xFFFFFFF8))
    client.login({**FAST_KEYS, **keys}, target)
    return client, channel


@pytest.mark.slow
def test_before_login() -> None:
    """S1."""
    fuzz(0, begin_nothing, (say_login, say_login, say_login, say_login, say_login, say_login, say_other))


def test_after_login() -> None:
    """S3."""
    keys: tuple[dict[str, str], ...] = (
        {},
        {"InitialR2T": "Yes", "ImmediateData": "No"},
        {"MaxBurstLength": "1024", "FirstBurstLength": "512"},
    )
    fuzz(1, lambda rng: begin_session(rng, rng.choice(keys)), AFTER_LOGIN)


@pytest.mark.slow
def test_after_login_with_digests() -> None:
    """S3: the digests fit what was damaged before them, else nothing would get past them."""
    keys: tuple[dict[str, str], ...] = (
        {"HeaderDigest": "CRC32C"},
        {"DataDigest": "CRC32C"},
        {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"},
    )
    fuzz(2, lambda rng: begin_session(rng, rng.choice(keys)), AFTER_LOGIN)


def test_in_discovery() -> None:
    """S2, S3."""
    fuzz(3, lambda rng: begin_session(rng, {}, None), (say_text, say_text, say_other, say_command, say_login))


def test_the_fuzzer_gets_through_logins() -> None:
    """A fuzzer whose bytes all die at the door proves nothing."""
    through = 0
    for seed in range(200):
        rng = random.Random(seed)
        client, channel = begin_nothing(rng)
        run(rng, client, channel, (say_login,))
        through += channel.core.session is not None
    assert through >= 20


def test_the_fuzzer_gets_deep_into_sessions() -> None:
    """Runs come to their end with the connection still open, and commands are carried out."""
    whole = executed = 0
    for seed in range(100):
        rng = random.Random(seed)
        client, channel = begin_session(rng, {})
        whole += run(rng, client, channel, AFTER_LOGIN) == PDUS_A_RUN
        executed += channel.begun
    assert whole >= 20
    assert executed >= 60
    assert set(FUNCTIONS) >= set(Function)


@pytest.mark.parametrize(
    "payload", [b"", b"\0", b"GET / HTTP/1.0\r\n\r\n" * 4, b"\x16\x03\x01" + bytes(100), b"\xff" * 9999]
)
def test_other_protocols(payload: bytes) -> None:
    """What scanners send."""
    channel = CoreChannel(MemoryAccess())
    channel.send(payload)
    assert not channel.sent
    assert bool(channel.closed) is (len(payload) >= 48)
