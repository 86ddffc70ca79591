"""What a file or a disk is recognized by when it is opened again; ``backstores.metadata.legacy`` says why by this."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backstores.alu.descriptor import DescriptorDriver
from backstores.metadata.legacy import MOST_MARK_CHARACTERS, Mark

FS_IOC_GETVERSION: Final = 2 << 30 | struct.calcsize("l") << 16 | ord("v") << 8 | 1  # linux/fs.h: _IOR('v', 1, long)
SYSFS: Final = Path("/sys/dev/block")

ATTRIBUTES: Final = (
    ("device/wwid", "world wide name"),  # SCSI
    ("wwid", "world wide name"),  # NVMe
    ("device/serial", "serial number"),
    ("serial", "serial number"),  # virtio
    ("dm/uuid", "device-mapper uuid"),
    ("md/uuid", "md uuid"),
    ("loop/backing_file", "loop device of"),
)
"""Where the kernel tells a disk's name, below its folder in sysfs; the first that says something counts."""


def identify(driver: DescriptorDriver, sysfs: Path = SYSFS) -> Mark:
    """Look at what a driver has open. Blocks for a moment.

    Raises:
        OSError: it can't be looked at.
    """
    found = os.fstat(driver.fd)
    if not stat.S_ISBLK(found.st_mode):
        generation = _inode_generation(driver.fd)
        text = f"inode {found.st_ino}" + ("" if generation is None else f" of generation {generation}")
        return Mark(driver.size_bytes, text)
    text = _disk_name(sysfs / f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}")
    return Mark(driver.size_bytes, text, anywhere=bool(text))


def _inode_generation(fd: int) -> int | None:
    """Ask the file system; not all of them count."""
    try:
        answer = fcntl.ioctl(fd, FS_IOC_GETVERSION, bytes(struct.calcsize("l")))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return None
    (generation,) = struct.unpack("I", answer[:4])  # the kernel fills in an int, whatever the number says
    assert isinstance(generation, int)
    return generation


def _disk_name(folder: Path) -> str:
    """Give the first name that sysfs tells of a disk; of a partition, its disk's and its own number."""
    if (number := _text(folder / "partition")) is not None:
        disk = _disk_name(folder.resolve().parent)
        return f"partition {number} of {disk}" if disk else ""
    for attribute, name in ATTRIBUTES:
        if text := _text(folder / attribute):
            return f"{name} {text}"
    return ""


def _text(path: Path) -> str | None:
    """Read an attribute; None where there is none. What a device made up is kept printable, and short."""
    try:
        raw = path.read_bytes()
    except OSError:  # the kernel has no such attribute here, or the device does not answer
        return None
    return "".join(_printable(" ".join(raw.decode("ascii", "replace").split())))[:MOST_MARK_CHARACTERS]


def _printable(text: str) -> Iterator[str]:
    return (letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
