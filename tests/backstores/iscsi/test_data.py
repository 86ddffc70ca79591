"""Data on its way in and out: immediate and unsolicited data, R2T, Data-In, residuals."""

from __future__ import annotations

import random

import pytest

from backstores.device import MemoryDevice
from backstores.iscsi.limits import CONNECTION_BYTES, TASK_BYTES, Limits
from backstores.iscsi.pdu import NO_TAG, DataIn, DataOut, R2t, Reject, RejectReason, ScsiCommand
from backstores.iscsi.session import SessionRegistry
from backstores.scsi.model import Response, Status
from tests.support.iscsi_client import FAST_KEYS, Client, CoreChannel, connect, read10, read16, write10, write16
from tests.support.iscsi_twins import MemoryAccess

MIB = 1 << 20
PATTERN = random.Random(1).randbytes(1 << 21)


def logged_in(
    immediate: bool = True, hold: bool = False, blocks: int = 8192, **keys: str
) -> tuple[Client, CoreChannel]:
    """Log in to a device that takes the hot path or never does."""
    device = MemoryDevice(blocks)
    device.immediate = immediate
    device.content[: len(PATTERN)] = PATTERN
    client, channel = connect(MemoryAccess(device), hold=hold, limits=Limits(idle_s=1e9))
    client.login({**FAST_KEYS, **keys})
    return client, channel


def device_of(channel: CoreChannel) -> MemoryDevice:
    assert channel.core.session is not None
    device: MemoryDevice = channel.core.session.nexus.device  # type: ignore[union-attr]
    return device


PATHS = pytest.mark.parametrize("immediate", [True, False], ids=["hot path", "general path"])


@PATHS
@pytest.mark.parametrize("blocks", [1, 8, 512, 2048, 4096])
@pytest.mark.parametrize("segment", ["512", "1000", "65536", "262144"])
def test_reads(immediate: bool, blocks: int, segment: str) -> None:
    """Data-In of every size in segments of every size, with exact DataSN and F bits at the ends of bursts."""
    client, _ = logged_in(immediate, MaxRecvDataSegmentLength=segment, MaxBurstLength="131072")
    result = client.command(read10(0, blocks), read=blocks * 512)
    assert (result.status, result.data) == (0, PATTERN[: blocks * 512])
    pdus = [pdu for pdu in result.pdus if isinstance(pdu, DataIn)]
    assert [pdu.data_sn for pdu in pdus] == list(range(len(pdus)))
    assert all(pdu.data_bytes <= int(segment) for pdu in pdus)
    ends = [pdu.offset_bytes + pdu.data_bytes for pdu in pdus]
    assert [pdu.final for pdu in pdus] == [int(end % 131072 == 0 or end == blocks * 512) for end in ends]
    assert [pdu.status_here for pdu in pdus] == [0] * (len(pdus) - 1) + [1]


@PATHS
@pytest.mark.parametrize("length", [512, 4096, 65536, 262144, 1 << 20])
@pytest.mark.parametrize("immediate_bytes", [0, 512, 262144])
@pytest.mark.parametrize("burst", ["4096", "262144", "1048576"])
def test_writes(immediate: bool, length: int, immediate_bytes: int, burst: str) -> None:
    """Immediate data, then R2Ts for exactly the rest, one burst each."""
    client, channel = logged_in(immediate, MaxBurstLength=burst)
    data = PATTERN[::-1][:length]
    first = min(immediate_bytes, length, int(burst))
    result = client.command(write16(3, length // 512), write=data, immediate_bytes=first)
    assert result.status == 0
    assert device_of(channel).content[3 * 512 : 3 * 512 + length] == data
    wanted = [(at, min(int(burst), length - at)) for at in range(first, length, int(burst))]
    assert result.r2ts == wanted
    assert [pdu.r2t_sn for pdu in result.pdus if isinstance(pdu, R2t)] == list(range(len(wanted)))


def unsolicited(client: Client, length: int, *offsets: int, step: int = 512, **fields: int) -> int:
    """Send a WRITE whose data follows unasked, in PDUs of ``step`` bytes at ``offsets``."""
    itt = client.send(
        ScsiCommand, final=0, write=1, attribute=1, expected_bytes=length, cdb=write10(0, length // 512), **fields
    )
    for number, at in enumerate(offsets):
        client.send(
            DataOut,
            bytes([number + 1]) * step,
            itt=itt,
            ttt=NO_TAG,
            data_sn=number,
            offset_bytes=at,
            final=int(number == len(offsets) - 1),
        )
    return itt


def test_unsolicited_data() -> None:
    client, channel = logged_in()
    assert client.finish(unsolicited(client, 1024, 0, 512)).status == 0
    assert device_of(channel).content[:1024] == b"\1" * 512 + b"\2" * 512


def test_unsolicited_data_then_an_r2t_for_the_rest() -> None:
    client, channel = logged_in(FirstBurstLength="512")
    itt = unsolicited(client, 2048, 0)
    result = client.finish(itt, bytes([7]) * 2048)
    assert (result.status, result.r2ts) == (0, [(512, 1536)])
    assert device_of(channel).content[:2048] == b"\1" * 512 + b"\7" * 1536


BAD = {
    "DataSN skipped": {"data_sn": 1},
    "DataSN far off": {"data_sn": 0xFFFFFFFF},
    "offset behind": {"offset_bytes": 512},
    "offset before": {"offset_bytes": 0},
    "tag of no R2T": {"ttt": 99},
    "reserved tag": {"ttt": NO_TAG},
    "early F": {"final": 1},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_bad_solicited_data_fails_the_command(change: dict[str, int]) -> None:
    """RFC 7143, 7.9: the command fails, once its sequence has ended; nothing is written."""
    client, channel = logged_in()
    before = bytes(device_of(channel).content)
    itt = client.send(ScsiCommand, b"a" * 512, write=1, attribute=1, expected_bytes=2048, cdb=write10(0, 4))
    r2t = client.expect(R2t)
    assert (r2t.offset_bytes, r2t.desired_bytes) == (512, 1536)
    if change == {"offset_bytes": 512}:
        change = {"offset_bytes": 1024}
    good = {"itt": itt, "ttt": r2t.ttt, "data_sn": 0, "offset_bytes": 512, "final": 0}
    client.send(DataOut, b"b" * 512, **{**good, **change})
    if not change.get("final"):
        assert client.silent()
        client.send(DataOut, b"c" * 1024, **{**good, "data_sn": 1, "offset_bytes": 1024, "final": 1})
    result = client.finish(itt)
    assert (result.status, result.asc) in [(2, (0x0B, 0x47, 0x05)), (2, (0x0B, 0x0C, 0x0D))]
    assert device_of(channel).content == before
    assert client.command(bytes(6)).status == 0


@pytest.mark.parametrize(
    ("length", "final"),
    [(2048, 1), (512, 0)],
    ids=["more than was asked for", "less, and no F"],
)
def test_solicited_data_of_another_length_fails_the_command(length: int, final: int) -> None:
    client, _ = logged_in()
    itt = client.send(ScsiCommand, write=1, attribute=1, expected_bytes=1024, cdb=write10(0, 2))
    r2t = client.expect(R2t)
    client.send(DataOut, bytes(length), itt=itt, ttt=r2t.ttt, final=final)
    if not final:
        client.send(DataOut, bytes(512), itt=itt, ttt=r2t.ttt, data_sn=1, offset_bytes=512, final=0)
        assert client.silent()
        return
    assert client.finish(itt).asc == (0x0B, 0x0C, 0x0D)


@pytest.mark.parametrize("data_sn", [1, 2, 100, 0xFFFFFFFF])
def test_bad_unsolicited_data_fails_the_command(data_sn: int) -> None:
    client, channel = logged_in()
    before = bytes(device_of(channel).content)
    itt = client.send(ScsiCommand, final=0, write=1, attribute=1, expected_bytes=512, cdb=write10(0, 1))
    client.send(DataOut, b"x" * 512, itt=itt, ttt=NO_TAG, data_sn=data_sn)
    assert client.finish(itt).asc == (0x0B, 0x47, 0x05)
    assert device_of(channel).content == before


@pytest.mark.parametrize(
    ("keys", "fields", "data", "asc"),
    [
        pytest.param({"ImmediateData": "No"}, {}, 512, (0x0B, 0x0C, 0x0C), id="immediate data not agreed"),
        pytest.param({}, {"expected_bytes": 256}, 512, (0x0B, 0x0C, 0x0D), id="more than expected"),
        pytest.param({"FirstBurstLength": "512"}, {}, 1024, (0x0B, 0x0C, 0x0D), id="more than a first burst"),
        pytest.param({}, {"write": 0, "read": 1}, 512, (0x0B, 0x0C, 0x0C), id="data with a read"),
    ],
)
def test_immediate_data_that_must_not_be(
    keys: dict[str, str], fields: dict[str, int], data: int, asc: tuple[int, int, int]
) -> None:
    client, channel = logged_in(**keys)
    before = bytes(device_of(channel).content)
    flags = {"write": 1, "attribute": 1, "expected_bytes": 1024, **fields}
    itt = client.send(ScsiCommand, b"x" * data, cdb=write10(0, 2), **flags)
    assert client.finish(itt).asc == asc
    assert device_of(channel).content == before


def test_unsolicited_data_needs_initial_r2t_no() -> None:
    client, _ = logged_in(InitialR2T="Yes")
    assert client.finish(unsolicited(client, 512, 0)).asc == (0x0B, 0x0C, 0x0C)


def test_data_of_no_task_is_rejected() -> None:
    client, channel = logged_in()
    client.send(DataOut, b"x" * 512, itt=77, ttt=NO_TAG)
    assert client.expect(Reject).reason == RejectReason.PROTOCOL_ERROR
    assert not channel.closed


def test_an_r2t_of_another_session_is_worth_nothing() -> None:
    """S2: tags belong to a session."""
    first, _ = logged_in()
    second, _ = logged_in()
    itt = first.send(ScsiCommand, write=1, attribute=1, expected_bytes=512, cdb=write10(0, 1))
    r2t = first.expect(R2t)
    second.send(DataOut, b"x" * 512, itt=itt, ttt=r2t.ttt)
    assert second.expect(Reject)
    assert first.silent()


def test_a_tag_in_use_is_rejected() -> None:
    client, _ = logged_in(hold=True)
    client.send(ScsiCommand, itt=5)
    client.send(ScsiCommand, itt=5)
    assert client.expect(Reject).reason == RejectReason.TASK_IN_PROGRESS


# Residuals: what the initiator expects, what the CDB moves (RFC 7143, 11.4.5)

RESIDUALS = [(0, 512, 0), (200, 312, 0), (512, 0, 0), (10000, 0, 9488)]


@pytest.mark.parametrize(("expected", "overflow", "underflow"), RESIDUALS)
def test_read_residuals(expected: int, overflow: int, underflow: int) -> None:
    client, _ = logged_in()
    result = client.command(read10(0, 1), read=1, expected=expected)
    assert (result.status, result.overflow, result.underflow) == (0, overflow, underflow)
    assert result.data == PATTERN[: min(expected, 512)]


@pytest.mark.parametrize(("expected", "overflow", "underflow"), RESIDUALS)
@pytest.mark.parametrize("immediate_bytes", [0, None], ids=["R2T", "immediate data"])
def test_write_residuals(expected: int, overflow: int, underflow: int, immediate_bytes: int | None) -> None:
    client, channel = logged_in()
    data = b"w" * expected
    flags = {"write": 1, "attribute": 1, "expected_bytes": expected}
    result = client.finish(client.send(ScsiCommand, data[:immediate_bytes], cdb=write10(0, 1), **flags), data)
    assert (result.status, result.overflow, result.underflow) == (0, overflow, underflow)
    written = 512 if expected >= 512 else 0
    assert device_of(channel).content[:512] == b"w" * written + PATTERN[written:512]


@pytest.mark.parametrize("expected", [0, 512, 1024])
def test_the_unit_hears_how_much_was_announced(expected: int) -> None:
    """It sees no more than its CDB takes, but can refuse the rest."""
    client, channel = logged_in(hold=True)
    client.send(ScsiCommand, bytes(expected), write=1, attribute=2, expected_bytes=expected, cdb=write10(0, 1))
    command = channel.running[0].command()
    assert (len(command.data_out), command.announced_bytes) == (min(expected, 512), expected)


def test_a_residual_fits_its_field() -> None:
    """A CDB can ask for more than 2^32 bytes."""
    client, _ = logged_in()
    itt = client.send(ScsiCommand, write=1, expected_bytes=0, cdb=write16(0, 0xFFFFFFFF))
    assert client.finish(itt).overflow == 0xFFFFFFFF


def test_a_failed_read_moves_nothing() -> None:
    client, _ = logged_in()
    result = client.command(read10(1 << 30, 1), read=512)
    assert (result.status, result.asc, result.underflow) == (2, (5, 0x21, 0), 512)


def test_data_with_a_bad_status_comes_before_it() -> None:
    client, channel = logged_in(hold=True)
    itt = client.send(ScsiCommand, read=1, expected_bytes=8, cdb=b"\x12")
    channel.finish(channel.running[0], Response(Status.CHECK_CONDITION, b"\x70" + bytes(17), b"12345678"))
    result = client.finish(itt)
    assert (result.status, result.data, len(result.sense)) == (2, b"12345678", 18)


# What a peer can make us keep (S3)


def test_a_transfer_that_is_too_long_asks_for_nothing() -> None:
    client, _ = logged_in()
    length = TASK_BYTES + 512
    itt = client.send(ScsiCommand, write=1, attribute=1, expected_bytes=length, cdb=write16(0, length // 512))
    assert client.finish(itt).asc == (5, 0x24, 0)


def test_room_is_reserved_before_data_is_asked_for() -> None:
    """The third command's R2T waits until the first has ended."""
    client, channel = logged_in(hold=True, blocks=TASK_BYTES // 512)
    blocks = TASK_BYTES // 512
    assert 2 * TASK_BYTES == CONNECTION_BYTES
    tags = [
        client.send(ScsiCommand, write=1, attribute=1, expected_bytes=TASK_BYTES, cdb=write16(0, blocks))
        for _ in range(3)
    ]
    assert [client.expect(R2t).itt for _ in range(2)] == tags[:2]
    assert client.silent()
    channel.tick(1000)
    channel.tick(2000)  # the data of the first two has stalled: they end, and make room
    assert client.expect(R2t).itt == tags[2]
    assert [client.finish(tag).asc for tag in tags[:2]] == [(0x0B, 0x4B, 0x06)] * 2


def test_an_expected_length_alone_takes_no_memory() -> None:
    client, _ = logged_in()
    result = client.command(read10(0, 1), read=1, expected=0xFFFFFFFF)
    assert (result.data, result.underflow) == (PATTERN[:512], 0xFFFFFFFF - 512)


@PATHS
def test_sixteen_byte_cdbs_reach_past_two_tebibytes(immediate: bool) -> None:
    client, channel = logged_in(immediate)
    assert client.command(read16(1 << 40, 1), read=512).asc == (5, 0x21, 0)
    assert not channel.closed


def test_room_is_shared_by_all_connections_but_none_waits_for_another() -> None:
    """S3: peers that ask for much and read nothing end where the node's room does; C3: one command always has some."""
    device = MemoryDevice(1 << 16)
    access, registry = MemoryAccess(device), SessionRegistry()
    device.immediate = False
    registry.allowance.left_bytes = MIB
    greedy, other = (CoreChannel(access, registry, hold=True) for _ in range(2))
    for number, channel in enumerate((greedy, other)):
        client = Client(channel, isid=b"\x80\0\0\0\0" + bytes([number]))
        client.login()
        for _ in range(3):
            client.send(ScsiCommand, read=1, expected_bytes=MIB, cdb=read10(0, MIB // 512), attribute=1)
        assert len(channel.running) == 1
    assert registry.allowance.left_bytes == -MIB
    other.finish(other.running.pop(), Response(data_in=bytes(MIB)))
    assert len(other.running) == 1  # its next one, though the greedy one keeps all the room
    late = greedy.running[0]
    greedy.close()
    greedy.core.completed(late, Response())
    assert registry.allowance.left_bytes == 0
    other.close()
    assert registry.allowance.left_bytes == MIB
