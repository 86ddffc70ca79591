"""Where things lie on an ALU (R1, R2).

What an ALU holds, from its first byte to its last, is the table ``AREAS``; the first 4 KiB are never
written, so that what others keep there (boot code, partition tables) survives even a claim. Room is
kept for what later versions of the format need: the partition table of the label directory, the GS
boot region, and label copies at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstores.errors import UsageError
from backstores.objects import MIB, Extent

KIB: Final = 1 << 10
FORMAT_VERSION: Final = 1
ALLOCATION_UNIT: Final = MIB  # every extent starts and ends on a multiple of this
LEAST_ALU_BYTES: Final = 16 * MIB
MOST_ALU_BYTES: Final = (1 << 63) - 1

LABEL_ADDRESSES: Final = (4 * KIB, 8 * KIB)
REGION_ADDRESSES: Final = (1 * MIB, 3 * MIB)
REGION_BYTES: Final = 2 * MIB
DATA_START: Final = 8 * MIB
GS_BOOT: Final = Extent(64 * KIB, 960 * KIB)  # the boot region of the GS set (R4); what follows lies in it
GS_POINTER_ADDRESSES: Final = (64 * KIB, 68 * KIB)
GS_LISTS: Final = (Extent(72 * KIB, 128 * KIB), Extent(200 * KIB, 128 * KIB))
GS_RESERVED: Final = (Extent(328 * KIB, 348 * KIB), Extent(676 * KIB, 348 * KIB))  # what legacy ALUs would hold (R5)
TAIL_BYTES: Final = 1 * MIB  # at the least: what is left of the last whole unit belongs to it


@dataclass(frozen=True, slots=True)
class Area:
    """A row of the map of an ALU; ``end`` None is the end of the ALU."""

    start: int
    end: int | None
    name: str
    meaning: str


AREAS: Final = (
    Area(0, 4 * KIB, "boot", "never written, so that others' boot sectors survive"),
    Area(LABEL_ADDRESSES[0], LABEL_ADDRESSES[1], "label A", "label sector, the rest zero"),
    Area(LABEL_ADDRESSES[1], 12 * KIB, "label B", "label sector, the rest zero"),
    Area(12 * KIB, 64 * KIB, "reserved", "label directory of a later version"),
    Area(64 * KIB, 1 * MIB, "GS boot", "reserved for the boot region of the GS set (R4)"),
    Area(REGION_ADDRESSES[0], REGION_ADDRESSES[1], "object region A", "header sector, body from +4 KiB on"),
    Area(REGION_ADDRESSES[1], 5 * MIB, "object region B", "header sector, body from +4 KiB on"),
    Area(
        5 * MIB, DATA_START, "reserved", "partition table of the label directory, two copies of 4,096 entries or more"
    ),
    Area(DATA_START, None, "data", "partitions and their bitmaps, in units of 1 MiB, up to the tail"),
)


def data_area(size_bytes: int) -> Extent:
    """Give the room for partitions on an ALU of this size: the tail is left for label copies.

    Raises:
        UsageError: the ALU is too small, or larger than any disk.
    """
    if not LEAST_ALU_BYTES <= size_bytes <= MOST_ALU_BYTES:
        raise UsageError(
            f"an alu of {size_bytes} bytes: it must have {LEAST_ALU_BYTES} (16 MiB) to {MOST_ALU_BYTES} (8 EiB)"
        )
    end = (size_bytes - TAIL_BYTES) // ALLOCATION_UNIT * ALLOCATION_UNIT
    return Extent(DATA_START, end - DATA_START)
