"""CRC32C header and data digests in both directions (R33)."""

from __future__ import annotations

import pytest

from backstores.device import MemoryDevice
from backstores.iscsi.digest import digest
from backstores.iscsi.pdu import NO_TAG, DataOut, NopIn, NopOut, R2t, Reject, RejectReason, ScsiCommand, TextRequest
from tests.support.iscsi_client import FAST_KEYS, Client, CoreChannel, connect, read10, write10
from tests.support.iscsi_twins import MemoryAccess

BOTH = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}


def logged_in(keys: dict[str, str]) -> tuple[Client, CoreChannel, MemoryDevice]:
    device = MemoryDevice(8192)
    client, channel = connect(MemoryAccess(device))
    client.login({**FAST_KEYS, **keys})
    return client, channel, device


def damaged(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    ("segment", "wire"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(range(31, -1, -1)), "5cdb3f11"),
    ],
    ids=["zeros", "ones", "rising", "falling"],
)
def test_the_examples_of_the_standard(segment: bytes, wire: str) -> None:
    """RFC 7143, appendix A.4."""
    assert digest(segment).hex() == wire


@pytest.mark.parametrize(
    "keys",
    [{"HeaderDigest": "CRC32C"}, {"DataDigest": "CRC32C"}, BOTH],
    ids=["header", "data", "both"],
)
def test_data_passes_with_digests(keys: dict[str, str]) -> None:
    """R33: the client checks what it receives."""
    client, _, device = logged_in(keys)
    data = bytes(range(256)) * 2048
    assert client.command(write10(0, 1024), write=data, immediate_bytes=4096).status == 0
    assert device.content[: len(data)] == data
    assert client.command(read10(0, 1024), read=len(data)).data == data
    client.send(NopOut, b"odd", ttt=NO_TAG)  # padding counts
    assert isinstance(client.receive().pdu, NopIn)
    assert client.command(read10(1 << 30, 1), read=512).status == 2


@pytest.mark.parametrize("at", [0, 20, 47, 48, 51], ids=["opcode", "length", "CDB", "digest", "its end"])
def test_a_wrong_header_digest_ends_the_connection(at: int) -> None:
    client, channel, _ = logged_in(BOTH)
    channel.send(damaged(client.build(ScsiCommand, read=1, expected_bytes=512, cdb=read10(0, 1)), at))
    assert channel.closed
    assert not channel.sent


@pytest.mark.parametrize("at", [52, 52 + 511, 52 + 512], ids=["first byte", "last byte", "digest"])
def test_a_wrong_data_digest_of_immediate_data(at: int) -> None:
    """RFC 7143, 7.8: the PDU is rejected, the command fails, nothing is written, the connection goes on."""
    client, channel, device = logged_in(BOTH)
    raw = client.build(ScsiCommand, b"x" * 512, itt=9, write=1, expected_bytes=512, cdb=write10(0, 1))
    channel.send(damaged(raw, at))
    assert client.expect(Reject).reason == RejectReason.DATA_DIGEST_ERROR
    assert client.finish(9).asc == (0x0B, 0x47, 0x05)
    assert not any(device.content)
    assert client.command(write10(0, 1), write=b"y" * 512).status == 0
    assert device.content[:512] == b"y" * 512


def test_a_wrong_data_digest_of_solicited_data() -> None:
    client, channel, device = logged_in(BOTH)
    itt = client.send(ScsiCommand, write=1, expected_bytes=1024, cdb=write10(0, 2))
    r2t = client.expect(R2t)
    channel.send(damaged(client.build(DataOut, b"x" * 512, itt=itt, ttt=r2t.ttt, final=0), 60))
    assert client.expect(Reject).reason == RejectReason.DATA_DIGEST_ERROR
    assert client.silent()  # the rest of the sequence is still to come
    client.send(DataOut, b"x" * 512, itt=itt, ttt=r2t.ttt, data_sn=1, offset_bytes=512)
    assert client.finish(itt).asc == (0x0B, 0x47, 0x05)
    assert not any(device.content)


@pytest.mark.parametrize("pdu", [NopOut, TextRequest], ids=lambda cls: cls.__name__)
def test_a_wrong_data_digest_elsewhere_is_rejected(pdu: type[NopOut] | type[TextRequest]) -> None:
    client, channel, _ = logged_in(BOTH)
    channel.send(damaged(client.build(pdu, b"K=12", ttt=NO_TAG), 52))
    assert client.expect(Reject).reason == RejectReason.DATA_DIGEST_ERROR
    assert client.command(bytes(6)).status == 0
