"""On which disk an ALU lies: what fails with it. ALUs on one disk are no safer than one of them (R4)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from backstores.alu.base import AluDriver
from backstores.alu.descriptor import DescriptorDriver

SYSFS: Final = Path("/sys/dev/block")


def disk_of(driver: AluDriver, sysfs: Path = SYSFS) -> str:
    """Name what an ALU lies on: of a partition its disk, of a file the disk below its file system.

    Where the kernel tells no disk (a network file system, tmpfs) it is the file system; a driver without a
    descriptor stands for itself.

    Raises:
        OSError: the descriptor can't be asked.
    """
    if not isinstance(driver, DescriptorDriver):
        return driver.path
    found = os.fstat(driver.fd)
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    text = f"{os.major(number)}:{os.minor(number)}"
    folder = sysfs / text
    if not folder.exists():
        return text
    folder = folder.resolve()
    return folder.parent.name if (folder / "partition").exists() else folder.name
