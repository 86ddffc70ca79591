"""Task management functions (RFC 7143, 11.5 and 4.2.3.4), logout, and PDUs that are out of place."""

from __future__ import annotations

import pytest

from backstores.iscsi.access import Account
from backstores.iscsi.limits import CONNECTION_BYTES
from backstores.iscsi.pdu import (
    NO_TAG,
    DataOut,
    LoginRequest,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    R2t,
    Reject,
    RejectReason,
    ScsiCommand,
    ScsiResponse,
    TaskManagementRequest,
    TaskManagementResponse,
)
from backstores.iscsi.session import SessionRegistry
from backstores.scsi.model import Function, FunctionResponse, Response
from tests.support.iscsi_client import Client, CoreChannel, connect, read10, write10, write16
from tests.support.iscsi_twins import INITIATOR, TARGET, MemoryAccess

LUN_1 = 1 << 48


def logged_in(hold: bool = False) -> tuple[Client, CoreChannel, MemoryAccess]:
    access = MemoryAccess()
    client, channel = connect(access, hold=hold)
    client.login()
    return client, channel, access


def manage(client: Client, function: int, **fields: int) -> None:
    client.send(TaskManagementRequest, immediate=1, function=function, **fields)


def write_without_data(client: Client, lun: int = 0) -> int:
    itt = client.send(ScsiCommand, lun=lun, write=1, attribute=1, expected_bytes=512, cdb=write10(0, 1))
    client.expect(R2t)
    return itt


@pytest.mark.parametrize("function", [f for f in Function if f is not Function.TASK_REASSIGN], ids=lambda f: f.name)
def test_functions_reach_the_nexus(function: Function) -> None:
    client, channel, _ = logged_in(hold=True)
    itt = client.send(ScsiCommand, cdb=bytes(6), lun=LUN_1)
    manage(client, function, lun=LUN_1, referenced_itt=itt)
    [request] = channel.functions
    assert (request.function, request.lun, request.referenced_itt) == (function, LUN_1, itt)
    assert client.silent()
    channel.finish(channel.running[0], None)  # it was aborted: no answer
    channel.core.managed(request, FunctionResponse.COMPLETE)
    channel.settle()
    assert client.expect(TaskManagementResponse).response == 0


@pytest.mark.parametrize(
    ("function", "answer"),
    [(Function.TASK_REASSIGN, 4), (0, 5), (9, 5), (127, 5)],
    ids=["TASK REASSIGN", "0", "9", "127"],
)
def test_functions_that_there_are_not(function: int, answer: int) -> None:
    client, _, access = logged_in()
    manage(client, function)
    assert client.expect(TaskManagementResponse).response == answer
    assert access.nexuses[0].functions == []


@pytest.mark.parametrize("answer", list(FunctionResponse), ids=lambda r: r.name)
def test_the_answer_is_the_nexus_own(answer: FunctionResponse) -> None:
    client, _, access = logged_in()
    access.nexuses[0].answer = answer
    manage(client, Function.LOGICAL_UNIT_RESET)
    assert client.expect(TaskManagementResponse).response == answer


@pytest.mark.parametrize(("itt", "lun"), [(99, 0), (1, LUN_1)], ids=["no such task", "another LUN"])
def test_abort_of_a_task_that_is_not_there(itt: int, lun: int) -> None:
    client, _, _ = logged_in(hold=True)
    client.send(ScsiCommand, itt=1, cdb=bytes(6))
    manage(client, Function.ABORT_TASK, referenced_itt=itt, lun=lun)
    assert client.expect(TaskManagementResponse).response == FunctionResponse.TASK_DOES_NOT_EXIST


def test_a_task_that_waits_for_data_is_aborted_at_once() -> None:
    """And what is still on its way to it is no offence."""
    client, channel, access = logged_in()
    itt = write_without_data(client)
    manage(client, Function.ABORT_TASK, referenced_itt=itt)
    assert client.expect(TaskManagementResponse).response == FunctionResponse.COMPLETE
    assert access.nexuses[0].functions == []
    client.send(DataOut, bytes(512), itt=itt, ttt=1)
    assert client.silent()
    assert not channel.closed
    assert access.nexuses[0].commands == []


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (Function.ABORT_TASK_SET, 1),
        (Function.CLEAR_TASK_SET, 1),
        (Function.LOGICAL_UNIT_RESET, 1),
        (Function.TARGET_WARM_RESET, 0),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_sets_and_resets_take_the_tasks_that_wait_for_data(function: Function, left: int) -> None:
    client, channel, access = logged_in()
    write_without_data(client)
    write_without_data(client, lun=LUN_1)
    manage(client, function)
    assert client.expect(TaskManagementResponse).response == FunctionResponse.COMPLETE
    assert access.nexuses[0].functions[0][0] is function
    assert channel.core._full is not None
    assert channel.core._full.tasks is not None
    assert len(channel.core._full.tasks) == left


def test_an_aborted_task_makes_no_room_for_one_that_is_aborted_with_it() -> None:
    client, channel, _ = logged_in(hold=True)
    half = CONNECTION_BYTES // 2
    cdb = write16(0, half // 512)
    tags = [client.send(ScsiCommand, write=1, expected_bytes=half, cdb=cdb) for _ in range(4)]
    assert [client.expect(R2t).itt for _ in range(2)] == tags[:2]
    manage(client, Function.LOGICAL_UNIT_RESET)
    assert client.silent()
    assert channel.core._full is not None
    assert channel.core._full.tasks is not None
    assert len(channel.core._full.tasks) == 0


def test_an_answer_that_was_ready_goes_before_the_functions() -> None:
    client, channel, _ = logged_in(hold=True)
    itt = client.send(ScsiCommand, cdb=bytes(6))
    manage(client, Function.ABORT_TASK_SET)
    [request] = channel.functions
    channel.core.completed(channel.running[0], Response())
    channel.core.managed(request, FunctionResponse.COMPLETE)
    channel.settle()
    assert client.expect(ScsiResponse).itt == itt
    assert client.expect(TaskManagementResponse)


def test_a_cold_reset_ends_the_hosts_sessions_and_no_others() -> None:
    """S2: a host has no power over other hosts' sessions."""
    access = MemoryAccess(accounts={INITIATOR: Account("host"), "iqn.other:x": Account("other")})
    access.targets_of["other"] = (TARGET,)
    registry = SessionRegistry()
    channels = [CoreChannel(access, registry) for _ in range(3)]
    mine, same_host, other = (
        Client(channels[0], isid=b"\x80\0\0\0\0\1"),
        Client(channels[1], isid=b"\x80\0\0\0\0\2"),
        Client(channels[2], name="iqn.other:x"),
    )
    for client in (mine, same_host, other):
        client.login()
    manage(mine, Function.TARGET_COLD_RESET)
    assert mine.expect(TaskManagementResponse).response == FunctionResponse.COMPLETE
    assert [channel.closed for channel in channels] == ["target cold reset", "target cold reset", ""]


# Logout


@pytest.mark.parametrize(
    ("reason", "cid", "answer", "closed"),
    [
        (LogoutReason.CLOSE_SESSION, 0, 0, True),
        (LogoutReason.CLOSE_SESSION, 9, 0, True),
        (LogoutReason.CLOSE_CONNECTION, 0, 0, True),
        (LogoutReason.CLOSE_CONNECTION, 9, 1, False),
        (LogoutReason.REMOVE_FOR_RECOVERY, 0, 2, False),
    ],
    ids=["session", "session, whatever CID", "connection", "another connection", "recovery"],
)
def test_logout(reason: LogoutReason, cid: int, answer: int, closed: bool) -> None:
    client, channel, access = logged_in()
    client.send(LogoutRequest, immediate=1, reason=reason, cid=cid)
    assert client.expect(LogoutResponse).response == answer
    assert bool(channel.closed) is closed
    assert access.nexuses[0].closed == closed


def test_nothing_is_heard_behind_a_logout() -> None:
    client, channel, access = logged_in()
    channel.send(client.build(LogoutRequest) + client.build(ScsiCommand, cdb=read10(0, 1), read=1, expected_bytes=512))
    client.expect(LogoutResponse)
    assert not channel.sent
    assert access.nexuses[0].commands == []


# PDUs that are out of place


@pytest.mark.parametrize(
    ("opcode", "reason"),
    [
        (LoginRequest.opcode.value, RejectReason.PROTOCOL_ERROR),
        (0x10, RejectReason.SNACK_REJECT),
        (0x1C, RejectReason.COMMAND_NOT_SUPPORTED),
        (0x21, RejectReason.COMMAND_NOT_SUPPORTED),
        (0x3F, RejectReason.COMMAND_NOT_SUPPORTED),
    ],
    ids=["login", "SNACK", "vendor", "a target's PDU", "Reject"],
)
def test_pdus_that_are_rejected(opcode: int, reason: RejectReason) -> None:
    client, channel, _ = logged_in()
    header = bytes([opcode, 0x80]) + bytes(46)
    channel.send(header)
    received = client.receive()
    assert isinstance(received.pdu, Reject)
    assert (received.pdu.reason, received.data) == (reason, header)
    assert client.command(bytes(6)).status == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"read": 1, "write": 1}, RejectReason.INVALID_PDU_FIELD),
        ({"attribute": 7}, RejectReason.INVALID_PDU_FIELD),
        ({"itt": NO_TAG}, RejectReason.TASK_IN_PROGRESS),
    ],
    ids=["bidirectional", "attribute 7", "reserved tag"],
)
def test_commands_that_are_rejected(fields: dict[str, int], reason: RejectReason) -> None:
    client, _, access = logged_in()
    client.send(ScsiCommand, **fields)
    assert client.expect(Reject).reason == reason
    assert access.nexuses[0].commands == []


# Additional header segments


def with_ahs(client: Client, ahs: bytes, pdu: type[ScsiCommand] | type[LogoutRequest] = ScsiCommand) -> bytes:
    raw = client.build(pdu)
    return raw[:4] + bytes([len(ahs) // 4]) + raw[5:48] + ahs


def test_a_cdb_may_be_longer_than_sixteen_bytes() -> None:
    client, channel, access = logged_in()
    channel.send(with_ahs(client, bytes.fromhex("00110100") + bytes(range(16))))
    client.expect(ScsiResponse)
    assert access.nexuses[0].commands[0].cdb == bytes(16) + bytes(range(16))


@pytest.mark.parametrize(
    "ahs",
    [
        pytest.param("00ff0100" + "00" * 16, id="past its end"),
        pytest.param("00000100", id="no length"),
        pytest.param("00010100", id="no CDB"),
        pytest.param("0005020000001000", id="bidirectional read length"),
        pytest.param("0005010000001000" * 2, id="two CDBs"),
        pytest.param("00053f0000001000", id="unknown"),
    ],
)
def test_bad_header_segments_end_the_connection(ahs: str) -> None:
    client, channel, access = logged_in()
    channel.send(with_ahs(client, bytes.fromhex(ahs)))
    assert channel.closed
    assert access.nexuses[0].commands == []


def test_only_commands_have_header_segments() -> None:
    client, channel, _ = logged_in()
    channel.send(with_ahs(client, bytes(8), LogoutRequest))
    assert "additional header segment" in channel.closed
