"""What a driver for backing storage is, and how it fails (R1).

Theory of operation. A driver stands for one ALU that is open and locked. It has two faces:

- ``read_now`` and ``write_now`` are called in the event loop by the hot path. They move all bytes at once
  without waiting for a disk, or answer False and have done nothing that matters. ``readv_now`` and ``writev_now``
  are the same for several buffers whose bytes follow each other on the ALU.
- ``transfers`` is what the engine awaits. One call is *one attempt*, answered as the kernel answers: maybe
  fewer bytes than asked for, or minus an errno. The engine goes on from there, so that continuing short
  transfers and naming the first byte that failed is written once, for all drivers.

A driver with a file descriptor leaves its transfers to a ``Backend`` (io_uring or threads). One without, like
the twin in memory, carries them out itself.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from backstores.errors import TiergateError

PAGE_BYTES = 4096  # of the page cache; also the coarsest sector and the grain in which allocation is told
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

P = ParamSpec("P")
T = TypeVar("T")


class Kind(enum.StrEnum):
    """What an ALU is made of."""

    FILE = "file"
    BLOCK = "block"
    MEMORY = "memory"
    REMOTE = "remote"


class AluOp(enum.StrEnum):
    """What was being done to an ALU, in the words of an error message."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    DISCARD = "discard"
    ZERO = "zero"
    STATUS = "status"
    LOCK = "lock"


class AluError(TiergateError):
    """Backing storage failed. Bytes of the operation before ``offset`` were done, those from there on may not be."""

    def __init__(self, path: str, op: AluOp, offset: int, number: int, reason: str | None = None) -> None:
        super().__init__(f"{op} at byte {offset} of {path}: {reason or os.strerror(number)}")
        self.path = path
        self.op = op
        self.offset = offset
        self.errno = number

    @staticmethod
    def of(path: str, op: AluOp, offset: int, number: int) -> AluError:
        """Make the error that fits an errno."""
        return (AluFull if number in NO_SPACE else AluError)(path, op, offset, number)


class AluFull(AluError):
    """The storage below a sparse ALU has no room left."""


class ByteRun(NamedTuple):
    """Consecutive bytes that are alike: backed by storage (``mapped``), or a hole that reads as zeros."""

    offset: int
    length: int
    mapped: bool


class Backend(Protocol):
    """Carries system calls out away from the event loop.

    A task that is cancelled while it awaits a transfer goes on waiting until the kernel has let go of the buffers.
    """

    def readv(self, fd: int, views: Sequence[memoryview], offset: int) -> Awaitable[int]:
        """Read once; answer the bytes read, or minus an errno."""

    def writev(self, fd: int, views: Sequence[memoryview], offset: int, durable: bool) -> Awaitable[int]:
        """Write once; answer the bytes written, or minus an errno. ``durable``: as if fdatasync followed."""

    def fdatasync(self, fd: int) -> Awaitable[int]:
        """Make what was written durable; answer 0, or minus an errno."""

    async def call(self, fd: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function that concerns ``fd`` in a worker."""


class Hand(Protocol):
    """Writes one thing beside the caller. ``begin`` and ``end`` come in pairs; buffers are in use between them."""

    def begin(self, fd: int, parts: Sequence[memoryview], offset: int, flags: int) -> bool:
        """Have ``parts`` written one behind the other, with the flags of pwritev2(2); False: not now."""

    def end(self) -> int:
        """Wait for it; answer the bytes written, or minus an errno."""


class Transfers(Protocol):
    """What the engine awaits. The caller has checked ranges; ``readv``, ``writev``, ``sync`` answer like the kernel."""

    def readv(self, views: Sequence[memoryview], offset: int) -> Awaitable[int]:
        """Read once; answer the bytes read, or minus an errno."""

    def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> Awaitable[int]:
        """Write once; answer the bytes written, or minus an errno."""

    def sync(self) -> Awaitable[int]:
        """Make all that was written durable, ``write_now`` included; answer 0, or minus an errno."""

    async def discard(self, offset: int, length: int) -> None:
        """Give space back; it reads as zeros afterwards. Raises AluError."""

    async def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros and keep its space. Raises AluError."""

    async def status(self, offset: int, length: int) -> list[ByteRun]:
        """Tell what is backed by storage, in order and without gaps. Raises AluError."""

    def exclusive(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """Keep out who else asks for this, in this process or another. Entering it raises AluError."""

    async def settle(self) -> None:
        """Wait for what goes on in the background; the driver is about to be closed."""


class AluDriver(Protocol):
    """An open, locked ALU."""

    path: str
    kind: Kind
    size_bytes: int
    sector_bytes: int  # offsets and lengths are multiples of this
    physical_bytes: int  # writes aligned to this need no read first
    direct: bool  # goes past the page cache
    read_now: Callable[[int, memoryview], bool]  # (offset, into)
    write_now: Callable[[int, memoryview], bool]  # (offset, data)
    readv_now: Callable[[int, Sequence[memoryview]], bool]  # (offset, parts of what to read into)
    writev_now: Callable[[int, Sequence[memoryview]], bool]  # (offset, parts of the data)
    write_beside: Callable[[Hand, int, Sequence[memoryview]], bool]  # begun only: the hand's end says the rest
    closed: bool

    def transfers(self, backend: Backend) -> Transfers:
        """Say who carries out what has to wait. Called once, by the engine that takes the driver on."""

    def close(self) -> None:
        """Give the ALU and its lock back. ``read_now`` and its like answer False from now on."""


def never_now(offset: int, what: object) -> bool:
    """Stand in for ``read_now`` and its like where every transfer has to wait."""
    return False


def never_beside(hand: Hand, offset: int, parts: Sequence[memoryview]) -> bool:
    """Stand in for ``write_beside`` where there is no descriptor to give to a hand, or every transfer has to wait."""
    return False
