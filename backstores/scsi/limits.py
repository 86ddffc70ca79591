"""How much one command may ask for. The block limits page tells hosts; the commands check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstores.device import BlockDevice

MAX_TRANSFER_BYTES: Final = 8 << 20
MAX_UNMAP_BLOCKS: Final = 1 << 20
MAX_UNMAP_DESCRIPTORS: Final = 256
# Hosts that may WRITE SAME 65,536 blocks take it that so many can be read back at once, too.
MAX_WRITE_SAME_BYTES: Final = 16 << 20
MAX_COMPARE_BLOCKS: Final = 128
MAX_STATUS_BLOCKS: Final = 1 << 21
CHUNK_BYTES: Final = 1 << 20
"""What a long command moves at a time, so that it neither needs much memory nor holds others up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in blocks of one device."""

    transfer: int
    write_same: int
    chunk: int

    @classmethod
    def of(cls, device: BlockDevice) -> Limits:
        """Give the limits of a device."""
        size = device.block_bytes
        return cls(MAX_TRANSFER_BYTES // size, MAX_WRITE_SAME_BYTES // size, CHUNK_BYTES // size)
