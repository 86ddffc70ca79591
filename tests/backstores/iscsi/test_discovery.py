"""SendTargets and other text after login."""

from __future__ import annotations

import pytest

from backstores.device import MemoryDevice
from backstores.iscsi.access import Account, Portal
from backstores.iscsi.pdu import (
    NO_TAG,
    DataIn,
    DataOut,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Reject,
    RejectReason,
    ScsiCommand,
    TaskManagementRequest,
    TextRequest,
    TextResponse,
)
from backstores.wire import Wire
from tests.support.iscsi_client import Client, connect, read10
from tests.support.iscsi_twins import INITIATOR, TARGET, MemoryAccess

SECOND = "iqn.2024-01.example:more"


def ask(client: Client, text: bytes, **fields: int) -> tuple[TextResponse, bytes]:
    client.send(TextRequest, text, **{"ttt": NO_TAG, **fields})
    answer = client.receive()
    assert isinstance(answer.pdu, TextResponse)
    return answer.pdu, answer.data


def whole(client: Client, text: bytes) -> list[str]:
    """Ask, and fetch all of a reply however many PDUs it takes."""
    pdu, data = ask(client, text)
    while pdu.more:
        assert not pdu.final
        pdu, more = ask(client, b"", ttt=pdu.ttt)
        data += more
    assert (pdu.final, pdu.ttt) == (1, NO_TAG)
    return data.decode().split("\0")[:-1]


def discovery(access: MemoryAccess, name: str = INITIATOR, **keys: str) -> Client:
    client, _ = connect(access)
    client.name = name
    client.login(keys, target=None)
    return client


def test_a_host_is_told_of_its_own_targets() -> None:
    """S2, R33: masking at discovery."""
    access = MemoryAccess(accounts={INITIATOR: Account("host"), "iqn.other:*": Account("other")})
    access.targets_of["other"] = (SECOND,)
    address = "TargetAddress=127.0.0.1:3260,1"
    assert whole(discovery(access), b"SendTargets=All\0") == [f"TargetName={TARGET}", address]
    assert whole(discovery(access, "iqn.other:1"), b"SendTargets=All\0") == [f"TargetName={SECOND}", address]


def test_a_target_by_name() -> None:
    access = MemoryAccess(targets_of={"host": (TARGET, SECOND)})
    client = discovery(access)
    assert whole(client, f"SendTargets={SECOND}\0".encode())[0] == f"TargetName={SECOND}"
    assert whole(client, b"SendTargets=iqn.nobody:x\0") == []


def test_every_portal_is_listed() -> None:
    access = MemoryAccess(portals=(Portal("192.0.2.1", 3260, 1), Portal("2001:db8::1", 3261, 2)))
    assert whole(discovery(access), b"SendTargets=All\0")[1:] == [
        "TargetAddress=192.0.2.1:3260,1",
        "TargetAddress=[2001:db8::1]:3261,2",
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"SendTargets=\0", [f"TargetName={TARGET}", "TargetAddress=127.0.0.1:3260,1"]),
        (f"SendTargets={TARGET}\0".encode(), [f"TargetName={TARGET}", "TargetAddress=127.0.0.1:3260,1"]),
        (f"SendTargets={SECOND}\0".encode(), []),
        (b"SendTargets=All\0", ["SendTargets=Reject"]),
        (b"X-a.b=1\0", ["X-a.b=NotUnderstood"]),
        (b"HeaderDigest=None\0", ["HeaderDigest=Reject"]),
        (b"", []),
    ],
    ids=["empty", "own name", "other name", "All", "vendor key", "login key", "no text"],
)
def test_a_normal_session_hears_of_its_own_target(text: bytes, answer: list[str]) -> None:
    """RFC 7143, appendix C."""
    client, _ = connect(MemoryAccess(targets_of={"host": (TARGET, SECOND)}))
    client.login()
    assert whole(client, text) == answer


@pytest.mark.parametrize("segment_bytes", [512, 513, 1000, 8192])
def test_a_long_list_comes_in_segments(segment_bytes: int) -> None:
    """SPDK #1442."""
    names = tuple(f"iqn.2024-01.example:disk{number:04d}" for number in range(200))
    client = discovery(MemoryAccess(targets_of={"host": names}), MaxRecvDataSegmentLength=str(segment_bytes))
    pdu, data = ask(client, b"SendTargets=All\0")
    assert len(data) == segment_bytes
    found = [line for line in whole(client, b"SendTargets=All\0") if line.startswith("TargetName")]
    assert found == [f"TargetName={name}" for name in names]
    assert pdu.more


def test_a_request_in_pieces() -> None:
    """An empty piece with the C bit is one, too (CVE-2021-28361)."""
    client = discovery(MemoryAccess())
    ttt = NO_TAG
    for piece in (b"Send", b"", b"Targets="):
        pdu, data = ask(client, piece, more=1, final=0, ttt=ttt)
        assert (pdu.final, pdu.more, data) == (0, 0, b"")
        assert pdu.ttt != NO_TAG
        ttt = pdu.ttt
    pdu, data = ask(client, b"All\0", ttt=ttt)
    assert pdu.final
    assert data.startswith(b"TargetName=")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        pytest.param(b"SendTargets=All\0", {"ttt": 77}, id="tag of no exchange"),
        pytest.param(b"SendTargets=All\0", {"more": 1}, id="F and C"),
        pytest.param(b"no text\0", {}, id="no equals sign"),
        pytest.param(b"K" * 20000, {}, id="too long"),
    ],
)
def test_bad_texts_are_rejected(text: bytes, fields: dict[str, int]) -> None:
    client, channel = connect(MemoryAccess())
    client.login()
    client.send(TextRequest, text, **{"ttt": NO_TAG, **fields})
    assert client.expect(Reject).reason == RejectReason.PROTOCOL_ERROR
    assert whole(client, b"SendTargets=\0")
    assert not channel.closed


def test_the_segment_length_may_change_after_login() -> None:
    """RFC 7143, 13.12: MaxRecvDataSegmentLength is for all stages."""
    client, channel = connect(MemoryAccess())
    client.login()
    assert whole(client, b"MaxRecvDataSegmentLength=1024\0") == []
    result = client.command(b"\x28\0\0\0\0\0\0\0\x04\0", read=2048)
    assert [len(pdu.raw) for pdu in result.pdus] == [48, 48]
    assert channel.core.sender.parameters.send_segment_bytes == 1024


@pytest.mark.parametrize("pdu", [ScsiCommand, TaskManagementRequest, DataOut], ids=lambda cls: cls.__name__)
def test_a_discovery_session_moves_no_data(pdu: type[Wire]) -> None:
    access = MemoryAccess()
    client = discovery(access)
    client.send(pdu)
    assert client.expect(Reject).reason == RejectReason.PROTOCOL_ERROR
    assert not access.nexuses


@pytest.mark.parametrize("immediate", [True, False], ids=["hot path", "general path"])
def test_data_keeps_to_the_segment_length_that_changed(immediate: bool) -> None:
    """RFC 7143, 13.12: either side may declare another length in the full feature phase."""
    device = MemoryDevice(2048)
    client, _ = connect(MemoryAccess(device))
    client.login()
    ask(client, b"MaxRecvDataSegmentLength=512\0")
    device.immediate = immediate
    client.send(ScsiCommand, read=1, expected_bytes=2048, cdb=read10(0, 4), attribute=1)
    assert [client.expect(DataIn).data_bytes for _ in range(4)] == [512] * 4


def test_a_discovery_session_pings_and_logs_out() -> None:
    client = discovery(MemoryAccess())
    client.send(NopOut, b"ping", ttt=NO_TAG)
    answer = client.receive()
    assert isinstance(answer.pdu, NopIn)
    assert answer.data == b"ping"
    client.send(LogoutRequest)
    assert client.expect(LogoutResponse).response == 0
