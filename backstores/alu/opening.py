"""Open whatever a path names as an ALU."""

from __future__ import annotations

import stat

from backstores.alu.block import open_block
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.file import open_file
from backstores.alu.locking import look
from backstores.errors import UsageError


def open_alu(
    path: str, *, size_bytes: int | None = None, grow: bool = False, direct: bool | None = None
) -> DescriptorDriver:
    """Open a file (made when it is not there and a size is given) or a block device. Blocks for a moment.

    ``direct`` None: block devices go past the page cache if they can, files through it.

    Raises:
        UsageError: the path can't be used as asked; nothing has changed.
    """
    found = look(path)
    if found is None or not stat.S_ISBLK(found.st_mode):
        return open_file(path, size_bytes=size_bytes, grow=grow, direct=bool(direct))
    driver = open_block(path, direct=direct)
    if size_bytes is not None and size_bytes != driver.size_bytes:
        driver.close()
        raise UsageError(f"{path} is a device of {driver.size_bytes} bytes, not {size_bytes}; leave the size out")
    return driver
