"""The hot path says and does what the general path would, and leaves to that one what is not its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.device import MemoryDevice
from backstores.iscsi.digest import digest
from backstores.iscsi.pdu import BasicHeader, DataIn, Opcode, ScsiCommand, ScsiResponse
from tests.support.iscsi_client import FAST_KEYS, Client, CoreChannel, connect, read10, read16, write10, write16
from tests.support.iscsi_twins import MemoryAccess, MemoryNexus

BLOCKS = 4096
DIGESTS = ("None", "CRC32C")  # of headers
FEW = 64


def logged_in(
    fast: bool, block_bytes: int = 512, blocks: int = BLOCKS, **keys: str
) -> tuple[Client, CoreChannel, MemoryNexus]:
    device = MemoryDevice(blocks, block_bytes)
    device.content[:] = b"".join(number.to_bytes(4, "big") * (block_bytes // 4) for number in range(blocks))
    access = MemoryAccess(device)
    client, channel = connect(access)
    client.login({**FAST_KEYS, **keys})
    nexus = access.nexuses[0]
    if not fast:
        nexus.fast_read, nexus.fast_write = {}, {}
    return client, channel, nexus


commands = st.lists(
    st.tuples(
        st.sampled_from([read10, read16, write10, write16]),
        st.integers(0, FEW + 2),
        st.integers(0, 40),
        st.sampled_from([0, 0, 0, 512, -512]),  # what the expected length is off by
        st.sampled_from([0, 1, 1, 1, 2]),
    ),
    max_size=20,
)


def normal(data: bytes, digested: bool = False) -> list[tuple[Any, ...]]:
    """Take a stream of PDUs apart, and check the digests of their headers.

    MaxCmdSN of a Data-In in the middle is left out: on the general path the command still holds its place.
    """
    answers: list[tuple[Any, ...]] = []
    at = 0
    while at < len(data):
        header = BasicHeader.parse(data, at)
        raw = data[at : at + 48]
        data_at = at + 48
        if digested:
            data_at += 4
            assert data[at + 48 : data_at] == digest(raw)
        end = data_at + (header.data_bytes + 3 & ~3)
        if header.opcode == Opcode.DATA_IN and not DataIn.parse(raw).status_here:
            field = DataIn.max_cmd_sn
            raw = raw[: field.byte] + bytes(4) + raw[field.end :]
        answers.append((header.itt, raw.hex(), data[data_at:end]))
        at = end
    return answers


@settings(deadline=None, max_examples=150)
@given(commands, st.sampled_from([512, 4096]), st.sampled_from(["512", "4096", "262144"]), st.sampled_from(DIGESTS))
def test_both_paths_give_the_same_bytes(script: list[Any], block_bytes: int, segment: str, digests: str) -> None:
    """R32: one command at a time, every byte of every answer is the same, and so is the volume."""
    results = []
    for fast in (True, False):
        client, channel, nexus = logged_in(
            fast, block_bytes, FEW, MaxRecvDataSegmentLength=segment, HeaderDigest=digests
        )
        for make, lba, blocks, off, attribute in script:
            expected = max(0, blocks * block_bytes + off)
            writes = make in (write10, write16)
            data = bytes([lba % 251]) * expected if writes else b""
            flags = {"write": int(writes), "read": int(not writes)}
            client.send(ScsiCommand, data, cdb=make(lba, blocks), expected_bytes=expected, attribute=attribute, **flags)
        assert isinstance(nexus.device, MemoryDevice)
        results.append((normal(bytes(channel.sent), client.header_digest), bytes(nexus.device.content), channel.closed))
    assert results[0] == results[1]


def is_fast(nexus: MemoryNexus) -> bool:
    return not nexus.commands


GOOD: dict[str, Any] = {"read": 1, "attribute": 1, "expected_bytes": 4096, "cdb": read10(0, 8)}


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        pytest.param(GOOD, 0, id="READ(10)"),
        pytest.param({**GOOD, "cdb": read16(0, 8)}, 0, id="READ(16)"),
        pytest.param({**GOOD, "attribute": 0}, 0, id="untagged"),
        pytest.param({**GOOD, "cdb": read10(0, 2048), "expected_bytes": 1 << 20}, 0, id="1 MiB"),
        pytest.param({**GOOD, "read": 0, "write": 1, "cdb": write10(0, 8)}, 4096, id="WRITE(10)"),
        pytest.param({**GOOD, "read": 0, "write": 1, "cdb": write16(0, 8)}, 4096, id="WRITE(16)"),
    ],
)
@pytest.mark.parametrize("digests", DIGESTS)
def test_plain_commands_are_taken(fields: dict[str, Any], data: int, digests: str) -> None:
    client, _, nexus = logged_in(fast=True, HeaderDigest=digests)
    itt = client.send(ScsiCommand, bytes(data), **fields)
    assert client.finish(itt).status == 0
    assert is_fast(nexus)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"attribute": 2}, id="ordered"),
        pytest.param({"attribute": 3}, id="head of queue"),
        pytest.param({"immediate": 1}, id="immediate"),
        pytest.param({"lun": 1 << 48}, id="LUN without licence"),
        pytest.param({"expected_bytes": 4095}, id="shorter expected length"),
        pytest.param({"expected_bytes": 8192}, id="longer expected length"),
        pytest.param({"cdb": read10(BLOCKS - 7, 8)}, id="past the end"),
        pytest.param({"cdb": read10(0, 0), "expected_bytes": 0}, id="no blocks"),
        pytest.param({"cdb": b"\x28\x08" + read10(0, 8)[2:]}, id="FUA"),
        pytest.param({"cdb": read10(0, 8)[:9] + b"\x04"}, id="NACA"),
        pytest.param({"cdb": read10(0, 4096), "expected_bytes": 2 << 20}, id="longer than the buffer"),
        pytest.param({"cdb": b"\xa8\0\0\0\0\0\0\0\0\x08"}, id="READ(12)"),
    ],
)
def test_unusual_commands_are_left_to_the_general_path(change: dict[str, Any]) -> None:
    client, channel, nexus = logged_in(fast=True)
    client.send(ScsiCommand, **{**GOOD, **change})
    assert not is_fast(nexus)
    assert channel.sent


def test_a_device_that_would_wait_is_left_to_the_general_path() -> None:
    client, _, nexus = logged_in(fast=True)
    assert isinstance(nexus.device, MemoryDevice)
    nexus.device.immediate = False
    for blocks in (8, 2048):
        assert client.command(read10(0, blocks), read=blocks * 512).status == 0
    assert client.command(write10(0, 8), write=bytes(4096)).status == 0
    assert len(nexus.commands) == 3


def test_a_long_read_that_stops_in_the_middle_leaves_nothing_behind() -> None:
    client, channel, nexus = logged_in(fast=True)
    device = nexus.device
    assert isinstance(device, MemoryDevice)
    calls = []

    def read_now(lba: int, blocks: int, into: memoryview) -> bool:
        calls.append(lba)
        return len(calls) < 3

    device.read_now = read_now  # type: ignore[method-assign]
    nexus.respond = lambda lun, command: (_ for _ in ()).throw(AssertionError)  # type: ignore[method-assign, assignment]
    channel.hold = True
    client.send(ScsiCommand, read=1, attribute=1, expected_bytes=1 << 20, cdb=read10(0, 2048))
    assert calls == [0, 512, 1024]
    assert client.silent()
    assert len(channel.running) == 1


def test_a_batch_stops_when_the_send_buffer_is_full() -> None:
    """Sixty-four 64 KiB reads in one piece: 4 MiB pass through 1.5 MiB of buffer."""
    client, channel, nexus = logged_in(fast=True)
    batch = b"".join(
        client.build(ScsiCommand, read=1, attribute=1, expected_bytes=65536, cdb=read10(0, 128)) for _ in range(64)
    )
    channel.send(batch)
    data = [client.receive() for _ in range(64)]
    assert all(isinstance(received.pdu, DataIn) and len(received.data) == 65536 for received in data)
    assert is_fast(nexus)


@pytest.mark.parametrize("cut", [1, 47, 48, 49, 100, 4143])
def test_a_pdu_may_come_in_two_parts(cut: int) -> None:
    client, channel, nexus = logged_in(fast=True)
    raw = client.build(ScsiCommand, b"z" * 4096, write=1, attribute=1, expected_bytes=4096, cdb=write10(0, 8))
    channel.send(raw[:cut])
    assert client.silent()
    channel.send(raw[cut:])
    assert client.expect(ScsiResponse).status == 0
    assert is_fast(nexus)
    assert isinstance(nexus.device, MemoryDevice)
    assert nexus.device.content[:4096] == b"z" * 4096


def test_a_wrong_header_digest_is_no_command() -> None:
    """S3: the hot path stops in front of it, and the general path closes the connection (7.8)."""
    client, channel, nexus = logged_in(fast=True, HeaderDigest="CRC32C")
    raw = bytearray(
        client.build(ScsiCommand, b"z" * 4096, write=1, attribute=1, expected_bytes=4096, cdb=write10(0, 8))
    )
    raw[50] ^= 1
    before = bytes(nexus.device.content) if isinstance(nexus.device, MemoryDevice) else b""
    channel.send(bytes(raw))
    assert "digest" in channel.closed
    assert isinstance(nexus.device, MemoryDevice)
    assert bytes(nexus.device.content) == before
