"""ALUs whose data must not be touched (R5): opened to be read, to their very last sector.

Two descriptors, one behind the other. The *guard* holds the lock for as long as the ALU is attached, and can't write:
whatever goes wrong above it, the kernel refuses. Only where a volume is to be served, a second driver is opened
behind it that can; it has no lock of its own and needs none, since the guard outlives it.
"""

from __future__ import annotations

import os
import stat

from backstores.alu.base import PAGE_BYTES, Kind
from backstores.alu.block import open_block
from backstores.alu.descriptor import DescriptorDriver, reopened
from backstores.alu.file import SECTOR_BYTES
from backstores.alu.locking import ALLOWED, look, open_locked, refusing
from backstores.errors import UsageError


def open_guard(path: str) -> DescriptorDriver:
    """Open a file or block device as it is, to be read, and lock it. Blocks for a moment.

    Raises:
        UsageError: the path can't be used.
    """
    found = look(path)
    if found is None:
        raise UsageError(f"{path} does not exist; {ALLOWED}")
    if stat.S_ISBLK(found.st_mode):
        return open_block(path, untouched=True)
    with refusing(path):
        fd = open_locked(path, 0, stat.S_IFREG, access=os.O_RDONLY)
        try:
            return _file(path, fd)
        except BaseException:
            os.close(fd)
            raise


def open_writable(guard: DescriptorDriver) -> DescriptorDriver:
    """Open what a guard stands for to be written, too. Blocks for a moment.

    Raises:
        UsageError: it may not be written.
    """
    with refusing(guard.path):
        fd = reopened(guard.fd, guard.direct)
        try:
            return DescriptorDriver(
                guard.path,
                guard.kind,
                fd,
                size_bytes=guard.size_bytes,
                sector_bytes=guard.sector_bytes,
                physical_bytes=guard.physical_bytes,
                direct=guard.direct,
                holes=guard.holes,
            )
        except BaseException:
            os.close(fd)
            raise


def _file(path: str, fd: int) -> DescriptorDriver:
    size_bytes = os.fstat(fd).st_size
    if size_bytes % SECTOR_BYTES or size_bytes < PAGE_BYTES:
        raise UsageError(
            f"{path} has {size_bytes} bytes; a legacy alu has {PAGE_BYTES} at least, in whole sectors of {SECTOR_BYTES}"
        )
    return DescriptorDriver(
        path,
        Kind.FILE,
        fd,
        size_bytes=size_bytes,
        sector_bytes=SECTOR_BYTES,
        physical_bytes=PAGE_BYTES,
        direct=False,
        holes=True,
        writable=False,
    )
