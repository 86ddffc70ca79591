"""A target that breaks the protocol: the connection ends, its tasks are lost, no byte goes where none belongs (S3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.iscsi.digest import digest
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.connection import PONGS, State
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.pdu import (
    NO_TAG,
    AsyncEvent,
    AsyncMessage,
    DataIn,
    LogoutResponse,
    NopIn,
    R2t,
    Reject,
    ScsiResponse,
    TaskManagementResponse,
    TextResponse,
)
from backstores.wire import Wire
from tests.support.iscsi_pair import Puppet, ended, read_task, sent, who, write_task

LONG = 600_000
DIGESTED = {"HeaderDigest": "CRC32C"}


def puppet_with(task: Task, **options: Any) -> Puppet:
    """Log in, and have one task under way, with the tag 1."""
    puppet = Puppet(**options)
    puppet.login().submit(task)
    sent(puppet.core)
    return puppet


def reading(length: int = 4096) -> Task:
    return read_task(transfer(READ_16, 0, 8), length)


def writing(length: int = LONG) -> Task:
    return write_task(transfer(WRITE_16, 0, 8), bytes(length))


Say = tuple[type[Wire], bytes, dict[str, Any]]

READS = [
    pytest.param((DataIn, bytes(512), {"itt": 2}), "no command", id="data for an unknown tag"),
    pytest.param((DataIn, bytes(512), {"itt": 1, "offset_bytes": 512}), "comes next", id="a gap in the data"),
    pytest.param((DataIn, bytes(512), {"itt": 1, "data_sn": 1}), "comes next", id="a gap in DataSN"),
    pytest.param((DataIn, bytes(4100), {"itt": 1}), "up to byte 4100", id="more data than there is room"),
    pytest.param((DataIn, b"", {"itt": 1, "data_bytes": 262148}), "limit", id="a segment over our limit"),
    pytest.param(
        (DataIn, bytes(4096), {"itt": 1, "status_here": 1, "final": 1, "stat_sn": 103}), "StatSN", id="a gap in StatSN"
    ),
    pytest.param((ScsiResponse, b"", {"itt": 1, "stat_sn": 101}), "StatSN", id="an old StatSN"),
    pytest.param((ScsiResponse, b"", {"itt": 2}), "no command", id="a status for an unknown tag"),
    pytest.param((ScsiResponse, b"", {"itt": 1, "response": 1}), "failure", id="a target failure"),
    pytest.param((ScsiResponse, b"\0", {"itt": 1}), "SenseHeader", id="sense data cut short"),
    pytest.param((R2t, b"", {"itt": 1, "ttt": 1, "desired_bytes": 512}), "no write", id="an R2T for a read"),
    pytest.param((Reject, bytes(48), {"reason": 4}), "reject", id="a reject"),
    pytest.param((TextResponse, b"", {"itt": 1, "ttt": NO_TAG}), "opcode", id="a text that nobody asked for"),
    pytest.param((LogoutResponse, b"", {"itt": 1}), "nobody asked", id="a logout that nobody asked for"),
    pytest.param((TaskManagementResponse, b"", {"itt": 1}), "nobody asked", id="a function that nobody asked for"),
    pytest.param((AsyncMessage, b"", {"event": AsyncEvent.SESSION_WILL_DROP}), "drops", id="the session dropped"),
    pytest.param((AsyncMessage, b"", {"event": AsyncEvent.CONNECTION_WILL_DROP}), "drops", id="the connection dropped"),
]
WRITES = [
    pytest.param((R2t, b"", {"itt": 1, "ttt": 1, "offset_bytes": 0, "desired_bytes": 512}), "comes next", id="again"),
    pytest.param(
        (R2t, b"", {"itt": 1, "ttt": 1, "offset_bytes": 262144, "desired_bytes": 400_000}), "of 600000", id="too far"
    ),
    pytest.param(
        (R2t, b"", {"itt": 1, "ttt": 1, "offset_bytes": 262144, "desired_bytes": 0}), "up to", id="for nothing"
    ),
    pytest.param(
        (R2t, b"", {"itt": 1, "ttt": 1, "offset_bytes": 262144, "desired_bytes": 262145}), "at once", id="over a burst"
    ),
    pytest.param(
        (R2t, b"", {"itt": 1, "ttt": NO_TAG, "offset_bytes": 262144, "desired_bytes": 8}), "comes next", id="no tag"
    ),
    pytest.param(
        (R2t, b"", {"itt": 1, "ttt": 1, "r2t_sn": 1, "offset_bytes": 262144, "desired_bytes": 8}),
        "comes next",
        id="a gap in R2TSN",
    ),
    pytest.param((DataIn, bytes(512), {"itt": 1}), "comes next", id="data for a write"),
]


@pytest.mark.parametrize(
    ("task", "say", "words"),
    [pytest.param(reading, *case.values, id=f"read: {case.id}") for case in READS]
    + [pytest.param(writing, *case.values, id=f"write: {case.id}") for case in WRITES],
)
@pytest.mark.parametrize("keys", [{}, DIGESTED], ids=["plain", "header digest"])
def test_a_violation_ends_the_connection(task: Callable[[], Task], say: Say, words: str, keys: dict[str, str]) -> None:
    keys = {"MaxBurstLength": "262144", "FirstBurstLength": "262144", **keys}
    made = task()
    puppet = puppet_with(made, identity=who(header_digest="HeaderDigest" in keys), keys=keys)
    pdu, data, fields = say
    puppet.say(pdu, data, **fields)
    assert puppet.core.state is State.CLOSED
    assert words in puppet.core.reason
    assert ended(puppet.core) == [made]
    assert made.lost
    assert not any(made.into)


def test_an_additional_header_segment_is_refused() -> None:
    """No PDU of a target has one; its length would make us look for data in the wrong place."""
    puppet = puppet_with(reading())
    raw = bytearray(puppet.build(DataIn, bytes(512), itt=1))
    raw[4] = 1
    puppet.receiver.take(bytes(raw))
    assert puppet.core.state is State.CLOSED


@pytest.mark.parametrize("at", [0, 20, 47, 48, 51])
def test_a_wrong_header_digest_ends_the_connection(at: int) -> None:
    """R12: one bit wrong in a header or in its digest."""
    task = reading()
    puppet = puppet_with(task, identity=who(header_digest=True), keys=DIGESTED)
    raw = bytearray(puppet.build(DataIn, bytes([7]) * 4096, itt=1, status_here=1, final=1))
    raw[at] ^= 4
    puppet.receiver.take(bytes(raw))
    assert puppet.core.state is State.CLOSED
    assert task.lost
    assert not any(task.into)


def test_a_wrong_data_digest_ends_the_connection() -> None:
    task = reading()
    puppet = puppet_with(task, identity=who(data_digest=True), keys={"DataDigest": "CRC32C"})
    data = bytes([7]) * 4096
    raw = puppet.build(DataIn, data, itt=1, status_here=1, final=1)
    puppet.receiver.take(raw + bytes(4 * [digest(data)[0] ^ 1]))
    assert "data digest" in puppet.core.reason
    assert not any(task.into)


def test_a_long_data_in_is_checked_before_any_of_it_is_received() -> None:
    """What would go straight into the caller's buffer is held against its length first."""
    task = reading(65536)
    puppet = puppet_with(task)
    raw = puppet.build(DataIn, bytes([7]) * 70000, itt=1, status_here=1, final=1)
    puppet.receiver.take(raw[:100])
    assert puppet.core.state is State.CLOSED
    assert puppet.core.direct is None
    assert not any(task.into)


def test_a_flood_of_pings_ends_when_nothing_is_taken() -> None:
    """S3: answers that can't be sent don't pile up; while they are taken, any number is answered."""
    puppet = Puppet()
    core = puppet.login()
    for _ in range(10 * PONGS):
        puppet.say(NopIn, counts=False, itt=NO_TAG, ttt=1)
        sent(core)
        core.drained()
    assert core.state is State.READY
    for _ in range(PONGS + 1):
        puppet.say(NopIn, counts=False, itt=NO_TAG, ttt=1)
    assert core.state is State.CLOSED


@pytest.mark.parametrize(
    ("exp_cmd_sn", "max_cmd_sn", "room"),
    [
        pytest.param(1, 64, 64, id="wider"),
        pytest.param(1, 16, 32, id="an older one"),
        pytest.param(50, 40, 32, id="one that makes no sense"),
        pytest.param(1, 0x80000020, 32, id="one that is half the circle away"),
    ],
)
def test_a_window_never_shrinks(exp_cmd_sn: int, max_cmd_sn: int, room: int) -> None:
    """RFC 7143, 4.2.2.1."""
    puppet = Puppet()
    core = puppet.login()
    puppet.say(NopIn, counts=False, itt=NO_TAG, ttt=NO_TAG, exp_cmd_sn=exp_cmd_sn, max_cmd_sn=max_cmd_sn)
    assert core.serials.room == room


def test_a_closed_window_holds_commands_back() -> None:
    """And the PDU that opens it lets them go, in their order."""
    puppet = Puppet(window=1)
    core = puppet.login()
    tasks = [reading(512) for _ in range(4)]
    for task in tasks:
        core.submit(task)
    assert [header.itt for header, _ in puppet.heard()] == [1]
    puppet.say(NopIn, counts=False, itt=NO_TAG, ttt=NO_TAG, exp_cmd_sn=2, max_cmd_sn=3)
    assert [header.itt for header, _ in puppet.heard()] == [2, 3]
    puppet.say(ScsiResponse, itt=1, status=0, exp_cmd_sn=4, max_cmd_sn=4)
    assert [header.itt for header, _ in puppet.heard()] == [4]


def test_task_tags_wrap_without_meeting_one_under_way() -> None:
    puppet = puppet_with(reading())
    table = puppet.core.tasks
    table._last_itt = NO_TAG - 2
    assert [table.new_itt() for _ in range(3)] == [NO_TAG - 1, 2, 3]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_noise_harms_nobody(data: st.DataObject) -> None:
    """S3: whatever bytes come after the login, no exception escapes and no task ends well by itself."""
    tasks = [reading(), writing()]
    puppet = Puppet()
    core = puppet.login()
    for task in tasks:
        core.submit(task)
    sent(core)
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from([DataIn, ScsiResponse, R2t, NopIn, AsyncMessage, Reject, TextResponse]))
        fields = {"itt": data.draw(st.integers(0, 3))} if "itt" in kind.FIELDS else {}
        raw = bytearray(puppet.build(kind, data.draw(st.binary(max_size=64)), **fields))
        for _ in range(data.draw(st.integers(0, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        puppet.receiver.take(bytes(raw))
    for task in ended(core):
        assert task.lost or task.status is not None
        assert task.moved_bytes <= max(len(task.into), len(task.data))
