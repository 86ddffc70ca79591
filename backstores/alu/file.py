"""An ALU in a file: sparse, made on demand (R1)."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from backstores.alu.base import PAGE_BYTES, Kind
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.locking import look, open_locked, refusing
from backstores.errors import UsageError

SECTOR_BYTES: Final = 512


def open_file(
    path: str, *, size_bytes: int | None = None, grow: bool = False, direct: bool = False
) -> DescriptorDriver:
    """Open a file as an ALU; one that is not there is made, sparse, of ``size_bytes``.

    An existing file keeps its size, less what is no whole page; with ``grow`` it may become larger.

    Raises:
        UsageError: the file can't be used as asked; nothing has changed.
    """
    if size_bytes is not None and (size_bytes <= 0 or size_bytes % PAGE_BYTES):
        raise UsageError(f"size {size_bytes} is no positive multiple of {PAGE_BYTES} bytes")
    found = look(path)
    if found is None and size_bytes is None:
        raise UsageError(f"{path} does not exist; give its size to have it made")
    flags = os.O_DIRECT if direct else 0
    with refusing(path), _opened(path, flags, new=found is None) as fd:
        if found is None:
            assert size_bytes is not None
            _make(fd, path, size_bytes)
        else:
            _resize(fd, path, size_bytes, grow)
        return DescriptorDriver(
            path,
            Kind.FILE,
            fd,
            size_bytes=os.fstat(fd).st_size // PAGE_BYTES * PAGE_BYTES,
            sector_bytes=_direct_sector(fd) if direct else SECTOR_BYTES,
            physical_bytes=PAGE_BYTES,
            direct=direct,
            holes=True,
        )


@contextmanager
def _opened(path: str, flags: int, new: bool) -> Iterator[int]:
    """Open and lock; what goes wrong inside closes the file, and takes a new one away again."""
    try:
        fd = open_locked(path, flags | (os.O_CREAT | os.O_EXCL if new else 0), stat.S_IFREG)
    except OSError as error:
        if error.errno == errno.EINVAL and flags & os.O_DIRECT:
            raise UsageError(f"{path} is on a file system without O_DIRECT; open it without direct") from error
        raise
    try:
        yield fd
    except BaseException:
        os.close(fd)
        if new:
            os.unlink(path)
        raise


def _make(fd: int, path: str, size_bytes: int) -> None:
    os.fchmod(fd, 0o600)  # whatever the umask
    os.ftruncate(fd, size_bytes)
    os.fsync(fd)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name is durable too, before anything is laid on the ALU
    finally:
        os.close(folder)


def _resize(fd: int, path: str, size_bytes: int | None, grow: bool) -> None:
    have = os.fstat(fd).st_size
    if size_bytes is not None and size_bytes != have:
        if size_bytes < have or not grow:
            raise UsageError(f"{path} has {have} bytes, not {size_bytes}; leave the size out, or ask to grow it")
        os.ftruncate(fd, size_bytes)
        os.fsync(fd)
    elif have < PAGE_BYTES:
        raise UsageError(f"{path} has {have} bytes; an ALU has {PAGE_BYTES} at least")


def _direct_sector(fd: int) -> int:
    """Find the smallest read that the file system does past the page cache."""
    with mmap.mmap(-1, PAGE_BYTES) as aligned, memoryview(aligned) as page, page[:SECTOR_BYTES] as sector:
        try:
            os.preadv(fd, (sector,), 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return PAGE_BYTES
    return SECTOR_BYTES
