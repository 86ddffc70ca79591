"""An ALU on a block device, past the page cache where the device allows that (R1).

O_EXCL keeps mounted disks and members of arrays out; it goes by device, not by node, so that two appliances
don't meet through two names.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from typing import Final

from backstores.alu.base import PAGE_BYTES, Kind
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.locking import ALLOWED, look, open_locked, refusing
from backstores.errors import UsageError

BLKSSZGET: Final = 0x1268  # linux/fs.h: logical sector, an int
BLKPBSZGET: Final = 0x127B  # physical sector, an unsigned int
BLKGETSIZE64: Final = 0x80001272 | ctypes.sizeof(ctypes.c_size_t) << 16  # bytes, 64 bits


def open_block(path: str, *, direct: bool | None = None, untouched: bool = False) -> DescriptorDriver:
    """Open a block device as an ALU. ``direct`` None: past the page cache if the device can.

    ``untouched``: to the last sector, and only to be read.

    Raises:
        UsageError: the device can't be used as asked.
    """
    found = look(path)
    if found is None or not stat.S_ISBLK(found.st_mode):
        raise UsageError(f"{path} is no block device; {ALLOWED}")
    with refusing(path):
        fd, is_direct = _open(path, direct, os.O_RDONLY if untouched else os.O_RDWR)
        try:
            sector_bytes = _ask(fd, BLKSSZGET, "i")
            size_bytes = _ask(fd, BLKGETSIZE64, "Q")
            size_bytes -= 0 if untouched else size_bytes % PAGE_BYTES
            physical_bytes = max(sector_bytes, _ask(fd, BLKPBSZGET, "I"))
            if sector_bytes > PAGE_BYTES:
                raise UsageError(f"{path} has sectors of {sector_bytes} bytes; up to {PAGE_BYTES} can be used")
            if size_bytes < PAGE_BYTES:
                raise UsageError(f"{path} has no room: its size is less than {PAGE_BYTES} bytes")
            return DescriptorDriver(
                path,
                Kind.BLOCK,
                fd,
                size_bytes=size_bytes,
                sector_bytes=sector_bytes,
                physical_bytes=physical_bytes,
                direct=is_direct,
                holes=False,  # a block device does not tell what it has unmapped
                writable=not untouched,
            )
        except BaseException:
            os.close(fd)
            raise


def _open(path: str, direct: bool | None, access: int) -> tuple[int, bool]:
    if direct is not False:
        try:
            return open_locked(path, os.O_EXCL | os.O_DIRECT, stat.S_IFBLK, access=access), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if direct:
                raise UsageError(f"{path} can't go past the page cache; open it without direct") from error
    return open_locked(path, os.O_EXCL, stat.S_IFBLK, access=access), False


def _ask(fd: int, request: int, layout: str) -> int:
    answer = fcntl.ioctl(fd, request, bytes(struct.calcsize(layout)))
    (number,) = struct.unpack(layout, answer)
    assert isinstance(number, int)
    return number
