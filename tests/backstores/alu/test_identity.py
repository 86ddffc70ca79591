"""What files and disks are recognized by (R5)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.identity import identify
from backstores.alu.untouched import open_guard
from backstores.metadata.legacy import MOST_MARK_CHARACTERS, Mark
from tests.support.engines import loop_device

SIZE = 8192


def mark_of(path: Path) -> Mark:
    driver = open_guard(str(path))
    try:
        return identify(driver)
    finally:
        driver.close()


def test_a_file_keeps_its_mark_when_it_is_written_to_and_renamed(disk: Path) -> None:
    """R5: hosts write to it, to its first sectors, too."""
    (disk / "a").write_bytes(bytes(SIZE))
    before = mark_of(disk / "a")
    with (disk / "a").open("r+b") as handle:
        handle.write(b"a new partition table")
    (disk / "a").rename(disk / "b")
    assert mark_of(disk / "b") == before
    assert not before.anywhere


def test_a_copy_has_another_mark_though_every_byte_is_equal(disk: Path) -> None:
    (disk / "a").write_bytes(bytes(SIZE))
    shutil.copy(disk / "a", disk / "b")
    assert mark_of(disk / "a") != mark_of(disk / "b")


def test_a_file_that_got_the_inode_number_of_another_has_another_mark(disk: Path) -> None:
    """R5: file systems give the number of a file that was removed to the next."""
    marks = set()
    for _ in range(3):
        (disk / "a").write_bytes(bytes(SIZE))
        marks.add(mark_of(disk / "a"))
        (disk / "a").unlink()
    assert len(marks) == 3


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """What the kernel tells of a disk 8:16, and of its second partition, 8:18."""
    disk = tmp_path / "devices" / "sdb"
    (disk / "device").mkdir(parents=True)
    (disk / "sdb2").mkdir()
    (disk / "sdb2" / "partition").write_text("2\n")
    (tmp_path / "sysfs").mkdir()
    (tmp_path / "sysfs" / "8:16").symlink_to(disk)
    (tmp_path / "sysfs" / "8:18").symlink_to(disk / "sdb2")
    return tmp_path / "sysfs"


def disk_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sysfs: Path, minor: int) -> Mark:
    """Give the mark of a device 8:minor that needs not be there."""
    (tmp_path / "node").write_bytes(bytes(SIZE))
    driver: DescriptorDriver = open_guard(str(tmp_path / "node"))
    device = os.stat_result((0o060600, 1, 1, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": os.makedev(8, minor)})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", lambda fd: device)
        mark = identify(driver, sysfs)
    driver.close()
    return mark


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        pytest.param({"device/wwid": "naa.600508b1001c\n"}, "world wide name naa.600508b1001c", id="scsi"),
        pytest.param({"device/wwid": "", "serial": "virt-7\n"}, "serial number virt-7", id="virtio-an-empty-one-first"),
        pytest.param({"wwid": "t10.ATA   DISK  \x01 77\n"}, "world wide name t10.ATA DISK ? 77", id="not-printable"),
        pytest.param({"serial": "x" * 5000}, "serial number " + "x" * MOST_MARK_CHARACTERS, id="too-long"),
        pytest.param({}, "", id="nothing"),
    ],
)
def test_a_disk_is_known_by_what_sysfs_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sysfs: Path, attributes: dict[str, str], text: str
) -> None:
    """R5; S3: what a device made up is kept printable, and short."""
    for name, value in attributes.items():
        path = sysfs / "8:16" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(value)
    assert disk_mark(monkeypatch, tmp_path, sysfs, 16) == Mark(SIZE, text, anywhere=bool(text))
    partition = disk_mark(monkeypatch, tmp_path, sysfs, 18).text
    assert partition == (f"partition 2 of {text}" if text else "")


@pytest.mark.root
def test_a_loop_device_is_known_by_its_file(disk: Path) -> None:
    with loop_device(disk / "backing", SIZE) as path:
        assert mark_of(Path(path)) == Mark(SIZE, f"loop device of {disk / 'backing'}", anywhere=True)
