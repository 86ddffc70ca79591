"""What a metadata core asks its shell to do, in order: read this, write here, flush now.

A core that must read on according to what it has read is a generator of spans: it is sent the bytes of each,
or is thrown the error that came instead.

All reads and writes are whole, aligned units of 4 KiB, so that they reach a disk with 4096-byte
sectors without a read first. Only 512 bytes are atomic (M1): what must be atomic lies in the first
sector of its unit, or in sectors that stand each for itself.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, TypeVar

IO_UNIT: Final = 4096
ZERO_UNIT: Final = bytes(IO_UNIT)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """Read ``length`` bytes from a byte address of the ALU; both are multiples of ``IO_UNIT``."""

    offset: int
    length: int


Reads = Generator[Span, bytes, T]


@dataclass(frozen=True, slots=True)
class Write:
    """Put ``data`` at a byte address of the ALU; both are multiples of ``IO_UNIT``."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Flush:
    """Wait until all that was written before is durable; what follows must not begin earlier."""


Step = Write | Flush


def units(length: int) -> int:
    """Round a length in bytes up to whole I/O units."""
    return -(-length // IO_UNIT) * IO_UNIT


def padded(data: bytes) -> bytes:
    """Fill up to whole I/O units with zeros."""
    return data.ljust(units(len(data)), b"\0")
