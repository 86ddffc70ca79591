"""A file system that runs full under the ALUs of a volume: hosts are told, and everything else goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backstores.objects import MIB
from tests.support.appliance import INITIATOR, Appliance, appliance, need, refused, tool
from tests.support.engines import mounted
from tests.support.iscsi_client import Client, Result, SocketChannel, read16, write16

pytestmark = [need("qemu-io"), pytest.mark.root, pytest.mark.slow]

WRITE_BLOCKS = 128
BLOCK_BYTES = 512
SPACE_ALLOCATION_FAILED = (0x7, 0x27, 0x07)  # DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (SBC-3)
DATA_START = 8 * MIB
LEG_BYTES = 64 * MIB


@dataclass
class Crowded:
    """An appliance with a volume on a small file system, "full", and another, "roomy", elsewhere."""

    running: Appliance
    small: Path
    target: str

    def login(self) -> Client:
        client = Client(SocketChannel(("127.0.0.1", self.running.port)), INITIATOR)
        client.login(target=self.target)
        for lun in (0, 1):
            while client.command(bytes(16), lun=lun << 48).status:  # unit attentions come first
                pass
        return client

    def url(self, lun: int) -> str:
        return f"iscsi://127.0.0.1:{self.running.port}/{self.target}/{lun}"


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Crowded]:
    with (
        mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=72M", "tmpfs") as small,
        appliance(tmp_path / "a") as running,
    ):
        (small / "hog").write_bytes(bytes(24 * MIB))
        for number in range(4):
            running.say("/alus", "attach", f"path={small}/f{number}.img", "size=128M")
            running.say("/alus", "attach", f"path={tmp_path}/r{number}.img", "size=128M")
        for lun, (name, letter) in enumerate((("full", "f"), ("roomy", "r"))):
            alus = ",".join(f"{letter}{number}" for number in range(4))
            running.say("/volumes", "create", f"name={name}", "size=128M", "layout=stripe-mirror", f"alus={alus}")
            if not lun:
                running.say("/hosts", "create", "name=any", "iqn=*")
            running.say(f"/volumes/{name}", "expose", "host=any", f"lun={lun}")
        yield Crowded(running, small, running.say("/sps", "status")[0]["target"])


def content(number: int) -> bytes:
    return random.Random(number).randbytes(WRITE_BLOCKS * BLOCK_BYTES)


def write(client: Client, number: int, lun: int = 0) -> Result:
    return client.command(write16(number * WRITE_BLOCKS, WRITE_BLOCKS), write=content(number), lun=lun << 48)


def read(client: Client, number: int) -> bytes:
    length = WRITE_BLOCKS * BLOCK_BYTES
    return client.command(read16(number * WRITE_BLOCKS, WRITE_BLOCKS), read=length).data


def fill(client: Client) -> int:
    """Write one piece after the other until there is no room: give the number of the first that failed."""
    for number in range(LEG_BYTES * 2 // (WRITE_BLOCKS * BLOCK_BYTES)):
        result = write(client, number)
        if result.status:
            assert result.asc == SPACE_ALLOCATION_FAILED
            return number
    raise AssertionError("the file system was never full")


def test_a_full_disk_is_told_to_the_host_and_nothing_else_suffers(crowded: Crowded) -> None:
    """R1, R7: 7/27/07; what was acknowledged is there, other volumes go on, and room makes writes succeed again."""
    client = crowded.login()
    failed = fill(client)
    assert failed > 0
    for number in range(failed):
        assert read(client, number) == content(number), f"piece {number} was acknowledged"
    assert write(client, failed, lun=1).status == 0, "the other volume has room"
    assert crowded.running.say("/volumes/full", "info")["state"] == "on line", "a full disk is no fault of a leg"

    (crowded.small / "hog").unlink()
    assert write(client, failed).status == 0
    assert read(client, failed) == content(failed)
    assert crowded.running.stop() == 0
    legs = [(crowded.small / f"f{n}.img").read_bytes()[DATA_START : DATA_START + LEG_BYTES] for n in range(4)]
    assert legs[0] == legs[1]
    assert legs[2] == legs[3]


def test_a_real_initiator_gets_an_error_and_can_go_on(crowded: Crowded) -> None:
    """R33: QEMU's initiator, past the end of the room."""
    said = refused("qemu-io", "-f", "raw", "-c", "write -P 5 0 120M", crowded.url(0))
    assert "No space left on device" in said or "Input/output error" in said
    tool("qemu-io", "-f", "raw", "-c", "write -P 6 0 16M", "-c", "read -P 6 0 16M", crowded.url(1))
    (crowded.small / "hog").unlink()
    tool("qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "-c", "read -P 7 0 1M", crowded.url(0))
    assert crowded.running.say("/volumes/full", "info")["state"] == "on line"
    assert "Traceback" not in crowded.running.log
