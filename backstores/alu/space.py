"""Discard, zeroing and allocation of a file descriptor: blocking calls, for a worker.

fallocate works on files and, on Linux, on block devices, where it becomes WRITE SAME or UNMAP and is sure to
leave zeros. What a file system or device does not offer is replaced by the next way, in the end by writing
zeros: the host was promised that the range reads as zeros (SBC-3 4.7.3.4.5, LBPRZ), not how that comes about.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from typing import Final

from backstores.alu.base import PAGE_BYTES, AluError, AluOp, ByteRun

FALLOC_KEEP_SIZE: Final = 0x01  # linux/falloc.h
FALLOC_PUNCH_HOLE: Final = 0x02
FALLOC_ZERO_RANGE: Final = 0x10
WAYS: Final = {
    AluOp.DISCARD: (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE),
    AluOp.ZERO: (FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,),
}
SYNC_WHOLE_FILE: Final = 0x1 | 0x2 | 0x4  # sync_file_range(2): WAIT_BEFORE, WRITE, WAIT_AFTER
RUNS_LIMIT: Final = 4096  # a file in a million fragments must not fill our memory

_NOT_OFFERED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV})
_ZEROS: Final = memoryview(mmap.mmap(-1, 1 << 20))  # page-aligned, as O_DIRECT wants it

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def clear(fd: int, path: str, op: AluOp, offset: int, length: int) -> None:
    """Make a range read as zeros in the best way there is: DISCARD gives its space back, ZERO keeps it.

    Raises:
        AluError: the bytes from its offset on may still hold what they held.
    """
    for mode in WAYS[op]:
        number = fallocate(fd, mode, offset, length)
        if not number:
            return
        if number not in _NOT_OFFERED:
            raise AluError.of(path, op, offset, number)
    write_zeros(fd, path, op, offset, length)


def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """Call fallocate(2); answer 0 or the errno. Python's own knows no modes."""
    while _libc.fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            return number
    return 0


def write_zeros(fd: int, path: str, op: AluOp, offset: int, length: int) -> None:
    """Write zeros over a range, a chunk at a time."""
    end = offset + length
    while offset < end:
        try:
            offset += os.pwrite(fd, _ZEROS[: end - offset], offset)
        except OSError as error:
            raise AluError.of(path, op, offset, error.errno or errno.EIO) from error


def runs(fd: int, path: str, offset: int, length: int, limit: int = RUNS_LIMIT) -> list[ByteRun]:
    """Tell holes from data. Past ``limit`` runs the rest is called mapped, which is never wrong, only less useful.

    File systems with small blocks answer in 1 KiB steps; data is rounded out to whole pages, so that a run
    never ends inside a logical block.
    """
    result: list[ByteRun] = []
    try:
        for run in _rounded(fd, offset, offset + length):
            left = offset + length - run.offset
            if len(result) == limit - 1 and run.length < left:
                result.append(ByteRun(run.offset, left, True))
                break
            result.append(run)
    except OSError as error:
        raise AluError.of(path, AluOp.STATUS, offset, error.errno or errno.EIO) from error
    return result


def _rounded(fd: int, start: int, end: int) -> Iterator[ByteRun]:
    """Walk the pages that a range touches; the first and the last run are cut to the range."""
    at, last = _floor(start), _ceiling(end)
    while at < last:
        stop = _floor(_seek(fd, at, os.SEEK_DATA, last))
        mapped = stop == at
        while mapped and stop < last and _floor(data := _seek(fd, stop, os.SEEK_DATA, last)) == stop:
            stop = _ceiling(_seek(fd, data, os.SEEK_HOLE, last))
        yield ByteRun(max(at, start), min(stop, end) - max(at, start), mapped)
        at = stop


def _floor(offset: int) -> int:
    return offset // PAGE_BYTES * PAGE_BYTES


def _ceiling(offset: int) -> int:
    return -(-offset // PAGE_BYTES) * PAGE_BYTES


def _seek(fd: int, offset: int, whence: int, end: int) -> int:
    try:
        return min(end, os.lseek(fd, offset, whence))
    except OSError as error:
        if error.errno == errno.ENXIO:  # lseek(2): no data from here on
            return end
        raise


def write_back(fd: int) -> None:
    """Write dirty pages out and wait for it, without the journal commit that fdatasync would force.

    Each open file description is told of a lost page once. This goes by a description of its own, so that the
    next fdatasync on ``fd`` still hears of what was lost here (D1).

    Raises:
        OSError: pages were lost, or can't be written out.
    """
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.sync_file_range(own, 0, 0, SYNC_WHOLE_FILE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(own)
