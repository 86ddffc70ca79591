"""Logins, as transcripts: what the initiator says, what the target answers."""

from __future__ import annotations

import pytest

from backstores.errors import UsageError
from backstores.iscsi.access import Account, Credentials, Portal
from backstores.iscsi.chap import decode, encode, response
from backstores.iscsi.login import TRANSITIONS, Event, Phase
from backstores.iscsi.pdu import LoginRequest, LoginResponse, NopOut, ScsiCommand, TextRequest
from backstores.scsi.model import Nexus
from backstores.wire import Wire
from tests.support.iscsi_client import FAST_KEYS, Client, Closed, CoreChannel, LoginFailed, connect, read10
from tests.support.iscsi_twins import INITIATOR, TARGET, MemoryAccess

CHAP = Credentials("alice", b"alice's secret")
MUTUAL = Credentials("disks", b"the disks' secret")


def secured(mutual: Credentials | None = None) -> MemoryAccess:
    return MemoryAccess(accounts={INITIATOR: Account("host", CHAP, mutual)})


def status_of(
    client: Client, keys: dict[str, str] | bytes, stage: int = 1, next_stage: int | None = 3, **f: int
) -> int:
    answer = client.login_request(keys, stage, next_stage, **f)
    assert isinstance(answer.pdu, LoginResponse)
    return answer.pdu.status


def say(client: Client, stage: int, next_stage: int | None, *lines: str) -> list[str]:
    """Send one request; give the answer as lines, flags first."""
    answer = client.login_request("".join(f"{line}\0" for line in lines).encode(), stage, next_stage)
    pdu = answer.pdu
    assert isinstance(pdu, LoginResponse)
    flags = f"CSG={pdu.current_stage}" + (f" NSG={pdu.next_stage}" if pdu.transit else "")
    return [flags if pdu.status == 0 else f"status {pdu.status:04x}", *answer.data.decode().split("\0")[:-1]]


def test_a_login_in_one_exchange() -> None:
    """R32: the shortest login there is."""
    client, _ = connect(MemoryAccess())
    names = (f"InitiatorName={INITIATOR}", f"TargetName={TARGET}", "SessionType=Normal")
    assert say(client, 1, 3, *names, "HeaderDigest=None", "MaxBurstLength=16776192", "X-a.b=1") == [
        "CSG=1 NSG=3",
        "TargetPortalGroupTag=1",
        "HeaderDigest=None",
        "MaxBurstLength=1048576",
        "X-a.b=NotUnderstood",
        "MaxRecvDataSegmentLength=262144",
    ]
    assert client.command(bytes(6)).status == 0


def test_a_login_by_way_of_security_negotiation() -> None:
    """R33: what open-iscsi says."""
    client, _ = connect(MemoryAccess())
    names = (f"InitiatorName={INITIATOR}", "InitiatorAlias=me", f"TargetName={TARGET}", "SessionType=Normal")
    assert say(client, 0, 1, *names, "AuthMethod=None") == ["CSG=0 NSG=1", "TargetPortalGroupTag=1", "AuthMethod=None"]
    operational = say(
        client,
        1,
        3,
        "HeaderDigest=None",
        "DataDigest=None",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=0",
        "IFMarker=No",
        "OFMarker=No",
        "ErrorRecoveryLevel=0",
        "InitialR2T=No",
        "ImmediateData=Yes",
        "MaxBurstLength=16776192",
        "FirstBurstLength=262144",
        "MaxOutstandingR2T=1",
        "MaxConnections=1",
        "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes",
        "MaxRecvDataSegmentLength=262144",
    )
    assert operational == [
        "CSG=1 NSG=3",
        "HeaderDigest=None",
        "DataDigest=None",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=0",
        "IFMarker=No",
        "OFMarker=No",
        "ErrorRecoveryLevel=0",
        "InitialR2T=No",
        "ImmediateData=Yes",
        "MaxBurstLength=1048576",
        "FirstBurstLength=262144",
        "MaxOutstandingR2T=1",
        "MaxConnections=1",
        "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes",
        "MaxRecvDataSegmentLength=262144",
    ]


def test_security_straight_to_full_feature_keeps_the_defaults() -> None:
    client, channel = connect(MemoryAccess())
    names = (f"InitiatorName={INITIATOR}", f"TargetName={TARGET}")
    assert say(client, 0, 3, *names, "AuthMethod=None") == ["CSG=0 NSG=3", "TargetPortalGroupTag=1", "AuthMethod=None"]
    assert channel.core.sender.parameters.receive_segment_bytes == 8192


def test_a_login_in_pieces() -> None:
    """A text that goes on (C bit) may break anywhere; empty pieces are fine (CVE-2021-28361)."""
    client, _ = connect(MemoryAccess())
    text = f"InitiatorName={INITIATOR}\0TargetName={TARGET}\0HeaderDigest=None\0".encode()
    for piece in (text[:20], b"", text[20:50]):
        answer = client.login_request(piece, 1, None, more=1)
        assert isinstance(answer.pdu, LoginResponse)
        assert (answer.pdu.status, answer.pdu.transit, answer.data) == (0, 0, b"")
    assert status_of(client, text[50:]) == 0


def test_chap_lets_the_right_secret_in() -> None:
    """R33: CHAP."""
    access = secured()
    client, _ = connect(access)
    client.login(chap=("alice", CHAP.secret))
    assert client.command(bytes(6)).status == 0


@pytest.mark.parametrize(("user", "secret"), [("alice", b"wrong"), ("bob", CHAP.secret)])
def test_chap_keeps_the_wrong_one_out(user: str, secret: bytes) -> None:
    """R33, S1: and no nexus is opened for it."""
    access = secured()
    client, channel = connect(access)
    with pytest.raises(LoginFailed, match="0x0201"):
        client.login(chap=(user, secret))
    assert channel.closed
    assert not access.nexuses


def test_mutual_chap() -> None:
    """R33: mutual CHAP."""
    client, _ = connect(secured(MUTUAL))
    say(client, 0, None, f"InitiatorName={INITIATOR}", f"TargetName={TARGET}", "AuthMethod=CHAP")
    asked = dict(line.split("=", 1) for line in say(client, 0, None, "CHAP_A=5")[1:])
    proof = response(5, int(asked["CHAP_I"]), CHAP.secret, decode(asked["CHAP_C"], 1, 1024))
    answer = say(
        client, 0, 1, "CHAP_N=alice", f"CHAP_R={encode(proof)}", "CHAP_I=9", f"CHAP_C={encode(b'who are you?')}"
    )
    assert answer == [
        "CSG=0 NSG=1",
        "CHAP_N=disks",
        f"CHAP_R={encode(response(5, 9, MUTUAL.secret, b'who are you?'))}",
    ]


@pytest.mark.parametrize(
    ("stage", "lines"),
    [
        pytest.param(1, (), id="skips the security stage"),
        pytest.param(0, ("AuthMethod=None",), id="offers None only"),
        pytest.param(0, (), id="offers nothing"),
        pytest.param(0, ("CHAP_N=alice", "CHAP_R=0x00"), id="answers what nobody asked"),
        pytest.param(0, ("AuthMethod=CHAP", "CHAP_N=alice", "CHAP_R=0x00"), id="answers before the challenge"),
    ],
)
def test_chap_can_not_be_skipped(stage: int, lines: tuple[str, ...]) -> None:
    """R33, S1."""
    access = secured()
    client, channel = connect(access)
    names = (f"InitiatorName={INITIATOR}", f"TargetName={TARGET}")
    assert say(client, stage, 3, *names, *lines) == ["status 0201"]
    assert channel.closed
    assert not access.nexuses


def test_a_transit_during_chap_is_not_granted() -> None:
    client, _ = connect(secured())
    names = (f"InitiatorName={INITIATOR}", f"TargetName={TARGET}")
    assert say(client, 0, 3, *names, "AuthMethod=CHAP")[0] == "CSG=0"
    assert say(client, 0, 3, "CHAP_A=5")[0] == "CSG=0"


NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET}


@pytest.mark.parametrize(
    ("keys", "fields", "status"),
    [
        pytest.param({**NAMES, "InitiatorName": "iqn.2024-01.example:x"}, {}, 0x0202, id="unknown initiator"),
        pytest.param(
            {"InitiatorName": "iqn.2024-01.example:x", "SessionType": "Discovery"}, {}, 0x0202, id="or in discovery"
        ),
        pytest.param({**NAMES, "TargetName": TARGET + "x"}, {}, 0x0203, id="unknown target"),
        pytest.param({"TargetName": TARGET}, {}, 0x0207, id="no InitiatorName"),
        pytest.param({**NAMES, "InitiatorName": "a b"}, {}, 0x0207, id="no iSCSI name"),
        pytest.param({"InitiatorName": INITIATOR}, {}, 0x0207, id="no TargetName"),
        pytest.param({}, {}, 0x0207, id="no keys"),
        pytest.param({**NAMES, "SessionType": "Strange"}, {}, 0x0209, id="unknown session type"),
        pytest.param(NAMES, {"version_min": 1}, 0x0205, id="version 1"),
        pytest.param(NAMES, {"tsih": 99}, 0x020A, id="no such session"),
        pytest.param(NAMES, {"current_stage": 2}, 0x0200, id="CSG 2"),
        pytest.param(NAMES, {"current_stage": 3}, 0x0200, id="CSG 3"),
        pytest.param(NAMES, {"next_stage": 2}, 0x0200, id="NSG 2"),
        pytest.param(NAMES, {"next_stage": 1}, 0x0200, id="NSG behind"),
        pytest.param(NAMES, {"more": 1}, 0x0200, id="T and C"),
        pytest.param(NAMES, {"immediate": 0}, 0x0200, id="not immediate"),
        pytest.param(b"InitiatorName", {}, 0x0200, id="no equals sign"),
        pytest.param(b"\xff=\xff\0", {}, 0x0200, id="no text"),
    ],
)
def test_refusals(keys: dict[str, str] | bytes, fields: dict[str, int], status: int) -> None:
    """Every refusal has its status (RFC 7143, 11.13.5) and ends the connection; S1: nothing is opened."""
    access = MemoryAccess()
    client, channel = connect(access)
    assert status_of(client, keys, **fields) == status
    assert channel.closed
    assert not access.nexuses
    with pytest.raises(Closed):
        client.receive()


def test_a_target_of_another_portal_group_is_not_found() -> None:
    client, _ = connect(MemoryAccess(portals=(Portal("192.0.2.7", 3260, 2),)))
    assert status_of(client, NAMES) == 0x0203


def test_a_second_connection_of_a_session_is_refused() -> None:
    """MaxConnections is 1."""
    access = MemoryAccess()
    client, channel = connect(access)
    client.login()
    registry = channel.core._registry
    other = Client(CoreChannel(access, registry))
    other.tsih, other.cid = client.tsih, 1
    assert status_of(other, NAMES) == 0x0206
    assert client.command(bytes(6)).status == 0


@pytest.mark.parametrize(
    ("change"),
    [{"isid": b"another"[:6]}, {"cid": 9}, {"tsih": 1}, {"current_stage": 0}],
    ids=["ISID", "CID", "TSIH", "stage"],
)
def test_the_identity_stays_during_a_login(change: dict[str, int | bytes]) -> None:
    client, _ = connect(MemoryAccess())
    assert status_of(client, NAMES, next_stage=None) == 0
    answer = client.login_request({}, 1, 3, **change)
    assert isinstance(answer.pdu, LoginResponse)
    assert answer.pdu.status == 0x0200


def test_a_key_is_negotiated_once() -> None:
    client, _ = connect(MemoryAccess())
    assert status_of(client, {**NAMES, "MaxBurstLength": "4096"}, next_stage=None) == 0
    assert status_of(client, {"MaxBurstLength": "8192"}) == 0x0200


def test_login_text_is_bounded() -> None:
    """S1, S3: however many PDUs carry it."""
    client, channel = connect(MemoryAccess())
    statuses = [status_of(client, b"x" * 8192, next_stage=None, more=1) for _ in range(3)]
    assert statuses == [0, 0, 0x0200]
    assert channel.closed


def test_all_requests_of_a_login_share_its_bound() -> None:
    """S1: keys are remembered while they come, and an initiator that has proved nothing can send new ones for ever."""
    client, channel = connect(secured())
    assert status_of(client, {**client.names(), "AuthMethod": "CHAP"}, 0, None) == 0
    answers = [status_of(client, f"X-{number}={'x' * 1100}\0".encode(), 0, None) for number in range(14)]
    assert set(answers) == {0}
    assert status_of(client, f"X-a={'x' * 1100}\0".encode(), 0, None) == 0x0200
    assert channel.closed


@pytest.mark.parametrize(
    "after",
    [
        pytest.param({}, id="deleted"),
        pytest.param({INITIATOR: Account("host", CHAP)}, id="asks for CHAP now"),
        pytest.param({INITIATOR: Account("other")}, id="is another host's initiator now"),
    ],
)
def test_a_host_that_changes_during_a_login_ends_it(after: dict[str, Account]) -> None:
    """S2: a login begun under the old rules doesn't outlive them; sessions are ended by the appliance."""
    access = MemoryAccess()
    client, channel = connect(access)
    assert status_of(client, client.names(), 1, None) == 0
    access.accounts = after
    assert status_of(client, {}, 1, 3) == 0x0202
    assert channel.closed
    assert not access.nexuses


def test_a_thousand_unknown_keys_make_no_long_reply() -> None:
    """CVE-2013-2850, CVE-2026-63887."""
    client, _ = connect(MemoryAccess())
    answer = client.login_request({**NAMES, **{f"X-{n:059d}": "v" for n in range(60)}}, 1, 3)
    assert len(answer.data) < 8192
    client, channel = connect(MemoryAccess())
    assert status_of(client, {f"X{n}": "" for n in range(65)}) == 0x0200
    assert channel.closed


@pytest.mark.parametrize("pdu", [NopOut, ScsiCommand, TextRequest], ids=lambda cls: cls.__name__)
def test_nothing_but_logins_before_login(pdu: type[Wire]) -> None:
    """S1: SPDK #3927."""
    client, channel = connect(MemoryAccess())
    client.send(pdu)
    assert channel.closed
    assert not channel.sent


def test_a_long_segment_before_login_ends_the_connection_at_its_header() -> None:
    """S1: nobody makes us wait for 16 MiB."""
    _, channel = connect(MemoryAccess())
    channel.send(LoginRequest.build(immediate=1, data_bytes=8193))
    assert channel.closed


def test_an_appliance_that_opens_no_nexus_is_unavailable() -> None:
    class Broken(MemoryAccess):
        def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
            raise UsageError("the target is closing")

    client, channel = connect(Broken())
    assert status_of(client, NAMES) == 0x0301
    assert len(channel.core._registry) == 0


def test_security_keys_in_the_operational_stage_are_rejected() -> None:
    client, _ = connect(MemoryAccess())
    assert client.login({**FAST_KEYS, "AuthMethod": "None"})["AuthMethod"] == "Reject"


def test_command_numbers_go_on_from_the_login() -> None:
    client, _ = connect(MemoryAccess())
    client.cmd_sn = 0xFFFFFFFF
    client.login()
    assert [client.command(read10(0, 1), read=512).status for _ in range(3)] == [0, 0, 0]


def test_the_table_has_every_phase_and_ends() -> None:
    assert TRANSITIONS.keys() == set(Phase)
    assert all(Event.REFUSE in moves for phase, moves in TRANSITIONS.items() if phase is not Phase.REFUSED)
    assert TRANSITIONS[Phase.REFUSED] == {}
