"""On which disk an ALU lies, so that the GS set is spread over as many as there are (R4)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backstores.alu.file import open_file
from backstores.alu.location import disk_of
from backstores.alu.memory import MemoryDriver

SIZE = 1 << 20


def sysfs(folder: Path, number: str, disk: str, partition: str | None) -> Path:
    """Make what the kernel tells of one block device."""
    device = folder / "devices" / disk / (partition or "")
    device.mkdir(parents=True)
    if partition is not None:
        (device / "partition").write_text("1\n")
    numbers = folder / "dev"
    numbers.mkdir()
    (numbers / number).symlink_to(device)
    return numbers


@pytest.mark.parametrize("partition", [None, "sdq1"], ids=["whole-disk", "partition"])
def test_files_lie_on_the_disk_below_their_file_system(tmp_path: Path, partition: str | None) -> None:
    number = os.stat(tmp_path).st_dev
    numbers = sysfs(tmp_path, f"{os.major(number)}:{os.minor(number)}", "sdq", partition)
    found = []
    for name in ("a", "b"):
        driver = open_file(str(tmp_path / name), size_bytes=SIZE)
        found.append(disk_of(driver, numbers))
        driver.close()
    assert found == ["sdq", "sdq"]


def test_a_file_system_without_a_disk_stands_for_itself(tmp_path: Path) -> None:
    driver = open_file(str(tmp_path / "a"), size_bytes=SIZE)
    number = os.stat(tmp_path).st_dev
    assert disk_of(driver, tmp_path / "nothing") == f"{os.major(number)}:{os.minor(number)}"
    driver.close()


def test_a_driver_without_a_descriptor_stands_for_itself() -> None:
    assert disk_of(MemoryDriver(SIZE, path="a")) != disk_of(MemoryDriver(SIZE, path="b"))
