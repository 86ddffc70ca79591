"""Transfers through the page cache that never wait for a disk: the hot path's way to storage.

They are closures over plain local names, not methods: at one microsecond a system call every attribute
that is looked up shows in the throughput. Both swallow OSErrors on purpose: False sends the caller the
waiting way, where an error that lasts shows again and is reported with its place.

A read says RWF_NOWAIT, and the kernel answers EAGAIN where a page is missing. ext4 takes no RWF_NOWAIT for a
buffered write (XFS and btrfs do), so writes go by what is known of the page cache:

- whole pages are copied into the cache without reading anything;
- part of a page needs the page: it goes inline only if a read of one byte shows that the page is cached;
- the kernel makes a writer wait when too many pages are dirty. A budget stays below that: after
  ``dirty_budget`` bytes a write-back is started and as much is granted again; when that is spent and the
  write-back still runs, writes take the waiting way until it has ended.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from backstores.alu.base import PAGE_BYTES, Hand, never_beside, never_now

LEAST_BUDGET_BYTES: Final = 16 << 20
UNLIMITED: Final = sys.maxsize
BUDGETS: Final = 8  # so many fit below the dirty bytes at which the kernel itself starts to write back
_IN_PAGE: Final = PAGE_BYTES - 1
_MEMORY_FILE_SYSTEMS: Final = frozenset({0x01021994, 0x858458F6})  # statfs(2): TMPFS_MAGIC, RAMFS_MAGIC
_STATFS_LONGS: Final = 32  # room for struct statfs (120 bytes on 64-bit Linux); its first long is the type

_libc = ctypes.CDLL(None, use_errno=True)


class Now(NamedTuple):
    """The hot callables of one file descriptor, and what ends them for good.

    ``retire`` comes before the descriptor is closed: its number may be another file's a moment later.
    """

    read: Callable[[int, memoryview], bool]
    write: Callable[[int, memoryview], bool]
    readv: Callable[[int, Sequence[memoryview]], bool]
    writev: Callable[[int, Sequence[memoryview]], bool]
    write_beside: Callable[[Hand, int, Sequence[memoryview]], bool]
    retire: Callable[[], None]


def dirty_budget() -> int:
    """Say how many bytes one file may make dirty before it is written back: a part of what the kernel bears."""
    limits = Path("/proc/sys/vm")
    bytes_set = int((limits / "dirty_background_bytes").read_text())
    percent = int((limits / "dirty_background_ratio").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(LEAST_BUDGET_BYTES, (bytes_set or memory * percent // 100) // BUDGETS)


def page_cache(fd: int, start_writeback: Callable[[], bool], dirty_bytes: int) -> Now:
    """Make the callables for a buffered file or block device.

    ``start_writeback`` is called each time ``dirty_bytes`` were written; it answers False while an earlier
    write-back still runs.
    """
    read_flags = _read_flags(fd)
    if read_flags is None:
        return Now(never_now, never_now, never_now, never_now, never_beside, lambda: None)
    read, readv, cached, retire_read = _readers(fd, read_flags)
    write, writev, write_beside, retire_write = _writers(fd, cached, start_writeback, dirty_bytes)

    def retire() -> None:
        retire_read()
        retire_write()

    return Now(read, write, readv, writev, write_beside, retire)


def _readers(
    fd: int, flags: int
) -> tuple[
    Callable[[int, memoryview], bool],
    Callable[[int, Sequence[memoryview]], bool],
    Callable[[int], bool],
    Callable[[], None],
]:
    preadv = os.preadv
    one_byte = (memoryview(bytearray(1)),)

    def read_now(offset: int, into: memoryview) -> bool:
        try:
            return preadv(fd, (into,), offset, flags) == len(into)
        except OSError:
            return False

    def readv_now(offset: int, parts: Sequence[memoryview]) -> bool:
        try:
            return preadv(fd, parts, offset, flags) == sum(map(len, parts))
        except OSError:
            return False

    def cached(offset: int) -> bool:
        try:
            return preadv(fd, one_byte, offset, flags) == 1
        except OSError:
            return False

    def retire() -> None:
        nonlocal fd
        fd = -1

    return read_now, readv_now, cached, retire


def _writers(
    fd: int, cached: Callable[[int], bool], start_writeback: Callable[[], bool], dirty_bytes: int
) -> tuple[
    Callable[[int, memoryview], bool],
    Callable[[int, Sequence[memoryview]], bool],
    Callable[[Hand, int, Sequence[memoryview]], bool],
    Callable[[], None],
]:
    pwrite, pwritev = os.pwrite, os.pwritev
    credit = dirty_bytes  # what may still be written before a write-back has to be started
    flags: int | None = None  # the first write shows whether the file system takes RWF_NOWAIT

    def admitted(offset: int, length: int) -> bool:
        nonlocal credit
        if credit < length:
            if length > dirty_bytes or not start_writeback():
                return False
            credit = dirty_bytes
        end = offset + length
        return not (offset | end) & _IN_PAGE or (
            (not offset & _IN_PAGE or cached(offset)) and (not end & _IN_PAGE or cached(end - 1))
        )

    def write_now(offset: int, data: memoryview) -> bool:
        nonlocal credit
        length = len(data)
        if not admitted(offset, length):
            return False
        try:
            done = pwrite(fd, data, offset) if flags == 0 else write_nowait(offset, (data,))
        except OSError:
            return False
        credit -= done
        return done == length

    def writev_now(offset: int, parts: Sequence[memoryview]) -> bool:
        nonlocal credit
        length = sum(map(len, parts))
        if not admitted(offset, length):
            return False
        try:
            done = pwritev(fd, parts, offset) if flags == 0 else write_nowait(offset, parts)
        except OSError:
            return False
        credit -= done
        return done == length

    def write_nowait(offset: int, parts: Sequence[memoryview]) -> int:
        nonlocal flags
        try:
            done = os.pwritev(fd, parts, offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            flags = 0
            return pwritev(fd, parts, offset)
        flags = os.RWF_NOWAIT
        return done

    def write_beside(hand: Hand, offset: int, parts: Sequence[memoryview]) -> bool:
        nonlocal credit
        length = sum(map(len, parts))
        if flags is None or not admitted(offset, length) or not hand.begin(fd, parts, offset, flags):
            return False
        credit -= length
        return True

    def retire() -> None:
        nonlocal fd
        fd = -1

    return write_now, writev_now, write_beside, retire


def _read_flags(fd: int) -> int | None:
    """Find out how a read is kept from waiting; None: it can't be."""
    try:
        os.preadv(fd, (bytearray(1),), 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return os.RWF_NOWAIT
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return 0 if _file_system(fd) in _MEMORY_FILE_SYSTEMS else None
    return os.RWF_NOWAIT


def _file_system(fd: int) -> int:
    room = (ctypes.c_long * _STATFS_LONGS)()
    if _libc.fstatfs(fd, room):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return room[0] & 0xFFFFFFFF
