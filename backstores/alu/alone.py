"""Changes that nobody else may make at the same time, in this process or another.

The flock that ``locking`` takes keeps appliances apart. Where it does not reach (a descriptor that was handed on,
a file system that several machines share) a lock on a range of bytes does. It belongs to an open file description
and not to a process: closing some other descriptor of the same file does not drop it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backstores.alu.base import AluError, AluOp, Backend


class Alone:
    """Lets one task at a time have a range of an open file."""

    def __init__(self, fd: int, path: str, backend: Backend) -> None:
        self._fd = fd
        self._path = path
        self._backend = backend
        self._turn = asyncio.Lock()  # the kernel's lock is the descriptor's, and would let all of our tasks pass

    @asynccontextmanager
    async def hold(self, offset: int, length: int) -> AsyncIterator[None]:
        """Have a range of bytes locked meanwhile.

        Raises:
            AluError: the file system does not offer it.
        """
        async with self._turn:
            try:
                await self._lock(offset, length)
                yield
            finally:  # also if the task was cancelled while it waited: the lock may have come all the same
                _set(self._fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, offset, length)

    async def _lock(self, offset: int, length: int) -> None:
        try:
            try:
                _set(self._fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, offset, length)
            except BlockingIOError:
                await self._backend.call(self._fd, _set, self._fd, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, offset, length)
        except OSError as error:
            raise AluError.of(self._path, AluOp.LOCK, offset, error.errno or errno.EIO) from error


def _set(fd: int, command: int, kind: int, offset: int, length: int) -> None:
    """Call fcntl(2) with a ``struct flock``, which Python knows no function for."""
    fcntl.fcntl(fd, command, struct.pack("hhqqi0q", kind, os.SEEK_SET, offset, length, 0))
