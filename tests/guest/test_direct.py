"""Direct access to a SCSI disk of the guest's kernel (R5): by itself, and through a whole appliance."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.identity import identify
from backstores.device import MemoryDevice
from backstores.engine.engine import Engine
from backstores.scsi import cdb as formats
from backstores.scsi import lun
from backstores.scsi import transfers as t
from backstores.scsi.direct import DEVICE_COMMANDS
from backstores.scsi.model import Command, Response, Status
from backstores.scsi.sense import codes_of
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume.passing import SgPasser, passer_of
from backstores.wwn import Wwn
from tests.guest.inside import Guest
from tests.support.appliance import Appliance
from tests.support.engines import noise

WWN: Final = Wwn("6025447" + "0123456789abcdef012345678")
BLOCK: Final = 512
DRIVER: Final = Path("/sys/bus/pseudo/drivers/scsi_debug")
MEDIUM_ERRORS: Final = 2  # scsi_debug's option: some blocks from 1234h on can't be read

IQN: Final = "iqn.2026-11.example.tiergate:direct"
INITIATOR: Final = "iqn.2026-11.example.tiergate:guest"

on_disk = pytest.mark.guest(modules=["scsi_debug", "sd_mod"])

Send = Callable[..., Awaitable[Response]]


def disk_of(guest: Guest) -> Path:
    """Find the disk that scsi_debug makes, once its queue can be looked at."""

    def found() -> Path | None:
        for model in Path("/sys/block").glob("sd*/device/model"):
            node = Path("/dev") / model.parts[3]
            if model.read_text().strip() == "scsi_debug" and node.is_block_device():
                return node
        return None

    return guest.until("disk of scsi_debug", found)


def on(disk: Path, scenario: Callable[[Send, SgPasser, DescriptorDriver], Awaitable[None]]) -> None:
    """Run a scenario with a host at a unit that is the disk."""

    async def run() -> None:
        async with Engine() as engine:
            guard = await engine.open_guard(str(disk))
            driver = await engine.open_writable(guard)
            passer = await passer_of(engine, driver)
            assert passer is not None
            nexus = TargetDevice("iqn.2026-11.example:direct").open_nexus("host", {0: Exposed(make(passer, driver))})

            async def send(cdb: bytes, data: bytes = b"") -> Response:
                return await sent(nexus, cdb, data)

            await send(bytes(6))  # hears that it is new here
            await scenario(send, passer, driver)

    asyncio.run(run())


def make(passer: SgPasser, driver: DescriptorDriver) -> LogicalUnit:
    """Make a unit that is a disk; the blocks of the device in memory are never asked for."""
    device = MemoryDevice(driver.size_bytes // BLOCK, BLOCK)
    return LogicalUnit(device, Identity(WWN), commands=DEVICE_COMMANDS, passer=passer)


async def sent(nexus: TargetNexus, cdb: bytes, data: bytes) -> Response:
    response = await nexus.execute(lun.encode(0), Command(cdb, memoryview(data)))
    assert response is not None
    return response


@on_disk
def test_cdbs_reach_a_disk_of_the_kernel(guest: Guest) -> None:
    """R5: data both ways, long ones in parts; what it is called; what it refuses, in its own words."""
    disk = disk_of(guest)

    async def scenario(send: Send, passer: SgPasser, driver: DescriptorDriver) -> None:
        standard = await send(formats.Inquiry.build(allocation_bytes=96))
        assert bytes(standard.data_in[8:32]) == b"Linux   scsi_debug      "
        capacity = await send(formats.ReadCapacity10.build())
        assert int.from_bytes(capacity.data_in[:4]) == driver.size_bytes // BLOCK - 1
        long = passer.most_bytes // BLOCK * 2 + 7
        assert (await send(t.Write16.build(lba=1, blocks=long), noise(long * BLOCK))).status is Status.GOOD
        assert (await send(t.SynchronizeCache10.build())).status is Status.GOOD
        assert bytes((await send(t.Read10.build(lba=1, blocks=long))).data_in) == noise(long * BLOCK)
        past = await send(t.Read10.build(lba=driver.size_bytes // BLOCK, blocks=1))
        assert codes_of(past.sense) == (5, 0x21, 0)

    on(disk, scenario)
    guest.sh(f"blockdev --flushbufs {disk}")
    assert disk.read_bytes()[BLOCK : 101 * BLOCK] == noise(100 * BLOCK)


@on_disk
def test_a_medium_error_comes_through_with_its_address(guest: Guest) -> None:
    """R5: sense data as the disk gives them."""
    disk = disk_of(guest)
    (DRIVER / "opts").write_text(f"{MEDIUM_ERRORS}\n")

    async def scenario(send: Send, passer: SgPasser, driver: DescriptorDriver) -> None:
        failed = await send(t.Read10.build(lba=0x1230, blocks=8))
        assert (failed.status, codes_of(failed.sense)) == (Status.CHECK_CONDITION, (3, 0x11, 0))
        assert int.from_bytes(failed.sense[3:7]) == 0x1234
        assert (await send(t.Read10.build(lba=0x1200, blocks=8))).status is Status.GOOD

    on(disk, scenario)


@on_disk
def test_a_partition_is_no_disk(guest: Guest) -> None:
    """R5: CDBs sent to it would count from the first block of the whole disk."""
    disk = disk_of(guest)
    entry = struct.pack("<4x B3x II", 0x83, 2048, 4096)
    disk.write_bytes(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    guest.sh(f"blockdev --rereadpt {disk}")
    partition = guest.until("partition", lambda: next(iter(disk.parent.glob(f"{disk.name}1")), None))

    async def scenario() -> None:
        async with Engine() as engine:
            guard = await engine.open_guard(str(partition))
            assert identify(guard).text.startswith("partition 1 of world wide name ")
            assert await passer_of(engine, await engine.open_writable(guard)) is None

    asyncio.run(scenario())


@pytest.mark.guest(modules=["scsi_debug", "sd_mod", "iscsi_tcp", "target_core_user", "iscsi_target_mod"])
@pytest.mark.parametrize("front_end", ["embedded", "lio"])
def test_a_host_speaks_to_the_disk_through_the_appliance(guest: Guest, tmp_path: Path, front_end: str) -> None:
    """R5, R31, R33: open-iscsi finds the disk under the volume's name, reads, writes, and hears its medium errors."""
    disk = disk_of(guest)
    appliance = Appliance(tmp_path, port=3260)
    appliance.start("--frontend", front_end, "--iqn", IQN)
    try:
        appliance.say("/alus", "attach", f"path={tmp_path}/own.img", "size=64M")
        appliance.say("/alus", "attach", f"path={disk}", "name=old", "legacy=yes")
        appliance.say("/volumes", "create", "name=archive", "layout=direct", "alus=old")
        appliance.say("/volumes/archive", "expose", "host=guest", f"iqn={INITIATOR}")
        guest.start_initiator(INITIATOR)
        guest.log_in(IQN)
        seen = guest.iscsi_disk(IQN)
        device = Path(f"/sys/block/{seen.name}/device")
        assert (device / "model").read_text().strip() == "scsi_debug"
        assert (device / "wwid").read_text().strip() == f"naa.{appliance.say('/volumes/archive', 'info')['wwn']}"
        (tmp_path / "data").write_bytes(noise(1 << 20))
        guest.sh(f"dd if={tmp_path}/data of={seen} bs=1M oflag=direct status=none")
        guest.sh(f"cmp -n 1048576 {tmp_path}/data {seen}")
        (DRIVER / "opts").write_text(f"{MEDIUM_ERRORS}\n")
        guest.fails(f"dd if={seen} of=/dev/null bs=4096 skip={0x1230 // 8} count=1 iflag=direct")
        assert "critical medium error" in guest.sh("dmesg")
        guest.log_out(IQN)
        (DRIVER / "opts").write_text("0\n")
        appliance.say("/volumes/archive", "delete", "force=yes")
        appliance.say("/alus/old", "detach")
        guest.sh(f"cmp -n 1048576 {tmp_path}/data {disk}")
    finally:
        appliance.kill()
