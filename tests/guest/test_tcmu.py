"""Volumes through a real kernel's target: LIO's fabrics on one side, our handler and a stripe of mirrors on the other.

The handler runs in a process of its own, on files in the guest's memory; LIO is set up by hand, without the appliance.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from backstores.errors import UsageError
from backstores.tcmu import uio
from backstores.tcmu.announcements import Announcement, Event
from backstores.tcmu.netlink import Listener
from tests.guest.inside import Guest
from tests.guest.serving import SIZE_BYTES

HBA: Final = 7
IQN: Final = "iqn.2026-11.example.tiergate:tcmu"
SG_SCSI_RESET: Final = 0x2284  # ioctl of Linux (scsi/sg.h)
SG_SCSI_RESET_DEVICE: Final = 1
LOOP: Final = ["target_core_user", "tcm_loop", "sd_mod"]
ISCSI: Final = ["target_core_user", "iscsi_target_mod", "iscsi_tcp", "sd_mod"]

needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="not installed: fio")


def fio(disk: Path, **settings: object) -> tuple[str, ...]:
    """Give the command of a job on a disk that verifies what it has written."""
    job = {
        "name": "verified",
        "filename": disk,
        "ioengine": "libaio",
        "direct": 1,
        "verify": "crc32c",
        "verify_fatal": 1,
        **settings,
    }
    return ("fio", "--output-format=json", *(f"--{key}={value}" for key, value in job.items()))


def result(output: str) -> dict[str, Any]:
    """Read what fio says of its one job."""
    (job,) = json.loads(output[output.index("{") :])["jobs"]
    assert job["error"] == 0
    found: dict[str, Any] = job
    return found


def copy_a_tree(guest: Guest, disk: Path, make: str, check: str) -> None:
    """Make a file system, copy files to it, and find them unharmed after it was mounted anew."""
    guest.sh(f"{make} {disk} && mkdir -p /run/disk && mount {disk} /run/disk")
    guest.sh("cp -a /usr/share/doc/[a-e]* /run/disk/ && umount /run/disk")
    guest.sh(f"{check} {disk} && echo 3 > /proc/sys/vm/drop_caches && mount {disk} /run/disk")
    guest.sh(
        "cd /usr/share/doc && for name in [a-e]*; do diff -r --no-dereference $name /run/disk/$name || exit 1; done"
    )
    guest.sh("umount /run/disk")


@pytest.mark.guest(modules=LOOP)
def test_blocks_written_through_lio_are_read_back(guest: Guest, tmp_path: Path) -> None:
    """R31: the thinnest way through: one WRITE, one READ, and a clean stop."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    handler = guest.serve(HBA, "v", "--fresh")
    disk = guest.loop_disk(backstore)
    assert guest.sh(f"blockdev --getsize64 {disk}") == f"{SIZE_BYTES}\n"
    data = tmp_path / "data"
    data.write_bytes(bytes(range(256)) * 1024)
    guest.sh(f"dd if={data} of={disk} bs=64k seek=100 oflag=direct")
    guest.sh(f"dd if={disk} of={tmp_path}/back bs=64k skip=100 count=4 iflag=direct")
    assert (tmp_path / "back").read_bytes() == data.read_bytes()
    with pytest.raises(UsageError, match="backstore v: Device or resource busy; end the process that serves it"):
        uio.find(HBA, "v").open()
    handler.terminate()
    assert handler.communicate()[0].endswith(b"ended: cleanly\n")


@pytest.mark.guest(modules=ISCSI)
def test_file_systems_survive_on_an_iscsi_disk(guest: Guest) -> None:
    """R31, R33: a real initiator, LIO's iSCSI, and file systems on a stripe of mirrors."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    guest.serve(HBA, "v", "--fresh")
    guest.iscsi_target(IQN, backstore)
    guest.start_initiator()
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    copy_a_tree(guest, disk, "mkfs.ext4 -q -F", "fsck.ext4 -fn")
    guest.log_out(IQN)


@needs_fio
@pytest.mark.guest(modules=LOOP, races=True)
def test_direct_writes_of_all_sizes_are_verified(guest: Guest) -> None:
    """Sizes down to one block, up to more than a chunk of the stripe; many at once, in any order."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    guest.serve(HBA, "v", "--fresh")
    disk = guest.loop_disk(backstore)
    command = fio(disk, rw="randrw", bsrange="512-256k", bs_unaligned=0, size="24M", iodepth=32, verify_backlog=64)
    assert result(guest.sh(" ".join(command)))["write"]["total_ios"] > 0


@needs_fio
@pytest.mark.guest(modules=LOOP, races=True)
def test_a_killed_handler_is_replaced_under_load(guest: Guest) -> None:
    """R31: kill -9 while a host writes, four times; it sees a pause, and neither an error nor a mismatch."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    handler = guest.serve(HBA, "v", "--fresh")
    disk = guest.loop_disk(backstore)
    command = fio(disk, rw="randrw", bs="4k", size="16M", iodepth=32, verify_backlog=256, time_based=1, runtime=600)
    load = guest.start(*command)
    action = backstore / "action"
    for _ in range(4):
        guest.until("load", partial(served_since, disk, commands_of(disk)))
        handler.kill()
        handler.wait()
        (action / "block_dev").write_text("1")
        (action / "reset_ring").write_text("1")
        handler = guest.serve(HBA, "v")
        (action / "block_dev").write_text("0")
    load.terminate()  # it verifies what it has written, and reports
    output, _ = load.communicate()
    result(output.decode())


def commands_of(disk: Path) -> int:
    """Say how many commands a disk has completed."""
    return int(Path("/sys/block", disk.name, "device", "iodone_cnt").read_text(), 16)


def logged(folder: Path, words: str) -> bool | None:
    """Say whether a handler has logged something."""
    return words in (folder / "log").read_text() or None


def served_since(disk: Path, mark: int) -> bool | None:
    """Say whether a disk has come a good deal further."""
    return commands_of(disk) > mark + 200 or None


@pytest.mark.guest(modules=LOOP, races=True)
def test_a_reset_of_the_unit_goes_through_the_ring(guest: Guest, tmp_path: Path) -> None:
    """A task management entry is taken and given back; the disk works afterwards."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    (backstore / "attrib" / "tmr_notification").write_text("1")
    handler = guest.serve(HBA, "v", "--fresh")
    disk = guest.loop_disk(backstore)
    with disk.open("rb") as opened:
        fcntl.ioctl(opened, SG_SCSI_RESET, SG_SCSI_RESET_DEVICE.to_bytes(4, "little"))
    guest.until("report", partial(logged, tmp_path, "the kernel reports LOGICAL_UNIT_RESET: 0 commands are aborted"))
    guest.sh(f"dd if=/dev/zero of={disk} bs=1M count=4 oflag=direct")
    handler.terminate()
    assert handler.communicate()[0].endswith(b"ended: cleanly\n")


@pytest.mark.guest(modules=LOOP, races=True)
def test_a_handler_that_stalls_is_waited_for(guest: Guest, tmp_path: Path) -> None:
    """The host gives a command up, and has it aborted; when the handler goes on, so does the host."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    (backstore / "attrib" / "tmr_notification").write_text("1")
    handler = guest.serve(HBA, "v", "--fresh")
    disk = guest.loop_disk(backstore)
    Path("/sys/block", disk.name, "device", "timeout").write_text("1")
    guest.sh(f"dd if={disk} of=/dev/null bs=64k count=1 iflag=direct")  # what the kernel itself reads is read by then
    handler.send_signal(signal.SIGSTOP)
    reader = guest.start("dd", f"if={disk}", "of=/dev/null", "bs=64k", "count=1", "skip=9", "iflag=direct")
    guest.until("abort", lambda: "ABORT_TASK: Found referenced" in guest.sh("dmesg") or None)
    handler.send_signal(signal.SIGCONT)
    assert reader.wait() == 0
    guest.until("report", partial(logged, tmp_path, "the kernel reports ABORT_TASK"))
    handler.terminate()
    assert handler.communicate()[0].endswith(b"ended: cleanly\n")


@pytest.mark.guest(modules=LOOP)
def test_a_removed_device_ends_its_handler(guest: Guest) -> None:
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    handler = guest.serve(HBA, "v", "--fresh")
    backstore.rmdir()
    assert b"ended: the kernel has removed the device" in handler.communicate()[0]


@pytest.mark.guest(modules=["target_core_user"])
def test_a_new_size_and_other_attributes_are_heard(guest: Guest) -> None:
    """R31: with nobody in the group, the kernel would refuse the change."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    size, write_cache = backstore / "attrib" / "dev_size", backstore / "attrib" / "emulate_write_cache"
    with pytest.raises(OSError, match="No such process"):
        size.write_text(str(2 * SIZE_BYTES))

    async def change() -> list[Announcement]:
        heard: asyncio.Queue[Announcement] = asyncio.Queue()
        listener = Listener(heard.put_nowait)
        size.write_text(str(3 * SIZE_BYTES))
        write_cache.write_text("1")
        try:
            return [await asyncio.wait_for(heard.get(), 10) for _ in range(2)]
        finally:
            listener.close()

    assert asyncio.run(change()) == [
        Announcement(Event.RECONFIGURED, HBA, "v", size_bytes=3 * SIZE_BYTES),
        Announcement(Event.RECONFIGURED, HBA, "v", write_cache=True),
    ]


@pytest.mark.guest
def test_without_tcmu_a_listener_says_what_to_load(guest: Guest) -> None:
    async def listen() -> None:
        Listener(lambda announcement: None)

    with pytest.raises(UsageError, match="load module target_core_user"):
        asyncio.run(listen())
