"""Open and lock what backs an ALU, and say in one line why it can't be one.

Two appliances must never have one ALU open. Each takes an exclusive flock on a descriptor of its own, which
also keeps one process from opening a file twice, by whatever name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from backstores.errors import UsageError

REFUSED_KINDS: Final = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a character device",
}
REFUSED_ERRNOS: Final = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "lies in something that is not a directory",
    errno.EISDIR: "is a directory",
    errno.ELOOP: "is a loop of symbolic links",
    errno.ENAMETOOLONG: "is too long a path",
    errno.EACCES: "may not be read and written by this user",
    errno.EPERM: "may not be written by this user",
    errno.EROFS: "is read-only",
    errno.EWOULDBLOCK: "is in use by another appliance",
    errno.EBUSY: "is in use: mounted, part of an array, or open in another appliance",
    errno.ETXTBSY: "is a program that runs",
    errno.ENXIO: "has no device behind it",
    errno.ENODEV: "has no device behind it",
    errno.ENOMEDIUM: "has no medium in it",
    errno.ENOSPC: "does not fit: the file system is full",
    errno.EDQUOT: "does not fit: the quota is used up",
    errno.EFBIG: "would be larger than its file system or this user's limit allows",
}
ALLOWED: Final = "an ALU is a file or a block device that can be read and written"


@contextmanager
def refusing(path: str) -> Iterator[None]:
    """Turn what the kernel says about a path into one line for a person.

    Raises:
        UsageError: the path can't be an ALU.
    """
    try:
        yield
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"{path!r} is no path; {ALLOWED}") from error
    except OSError as error:
        reason = REFUSED_ERRNOS.get(error.errno or 0, f"can't be opened ({error.strerror})")
        raise UsageError(f"{path} {reason}; {ALLOWED}") from error


def look(path: str) -> os.stat_result | None:
    """Look before anything is opened, for opening a tape or a watchdog does things; None: there is nothing.

    Raises:
        UsageError: there is something, but no file or block device, or marked read-only.
    """
    with refusing(path):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
    kind = stat.S_IFMT(found.st_mode)
    if kind in REFUSED_KINDS:
        raise UsageError(f"{path} {REFUSED_KINDS[kind]}; {ALLOWED}")
    if not found.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        # Root could write it all the same; the mark says that somebody does not want that.
        raise UsageError(f"{path} is read-only; {ALLOWED}")
    return found


def open_locked(path: str, flags: int, kind: int, mode: int = 0o600, access: int = os.O_RDWR) -> int:
    """Open and lock, to read and write unless ``access`` says otherwise; ``kind`` is the S_IF... that ``look`` saw.

    Raises:
        OSError: as open(2) and flock(2); to be turned by ``refusing``.
    """
    fd = os.open(path, access | os.O_CLOEXEC | flags, mode)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
            raise OSError(errno.EBUSY, "changed while it was being opened")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd
