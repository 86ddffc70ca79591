"""Where things lie on an ALU (R1, R2).

What an ALU holds, from its first byte to its last, is the table ``AREAS``; the first 4 KiB are never
written, so that what others keep there (boot code, partition tables) survives even a claim. The label
directory (label and partition table) has two copies in front and two at the end, so that neither a
partitioning tool nor a resized image takes all of them. What is in front of 8 MiB lies where version 1
of the format had it, or had left room for it: a migration moves nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from backstores.errors import UsageError
from backstores.objects import MIB, Extent

KIB: Final = 1 << 10
GIB: Final = 1 << 30
FORMAT_VERSION: Final = 2
ALLOCATION_UNIT: Final = MIB  # every extent starts and ends on a multiple of this
PAGE: Final = 4 * KIB  # of what lies at the end: disks need not end on a multiple of it
LEAST_ALU_BYTES: Final = 16 * MIB
MOST_ALU_BYTES: Final = (1 << 63) - 1
LARGE_ALU_BYTES: Final = GIB  # from here on a new ALU has room for more objects

FRONT_LABELS: Final = (4 * KIB, 8 * KIB)
MDR_ADDRESSES: Final = (12 * KIB, 16 * KIB)
FIXED_END: Final = 20 * KIB  # of what lies in front at fixed places
GS_BOOT: Final = Extent(64 * KIB, 960 * KIB)  # the boot region of the GS set (R4); what follows lies in it
GS_POINTER_ADDRESSES: Final = (64 * KIB, 68 * KIB)
GS_LISTS: Final = (Extent(72 * KIB, 128 * KIB), Extent(200 * KIB, 128 * KIB))
GS_RESERVED: Final = (Extent(328 * KIB, 348 * KIB), Extent(676 * KIB, 348 * KIB))  # what legacy ALUs would hold (R5)
FRONT_TABLES: Final = (5 * MIB, 6 * MIB)
TABLE_BYTES: Final = 384 * KIB
MOST_TABLE_BYTES: Final = (
    508 * KIB
)  # of an ALU of version 1 that holds more partitions: as much as its tail has room for
TAIL_BYTES: Final = 1 * MIB  # at the least: what is left of the last whole unit belongs to it


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """Where object regions lie, by the size of an ALU, and where its data begins."""

    regions: tuple[int, int]
    region_bytes: int
    data_start: int


SMALL: Final = RegionPlan((1 * MIB, 3 * MIB), 2 * MIB, 8 * MIB)
LARGE: Final = RegionPlan((8 * MIB, 16 * MIB), 8 * MIB, 24 * MIB)


@dataclass(frozen=True, slots=True)
class Area:
    """A row of the map of an ALU; ``end`` None is where the data ends."""

    start: int
    end: int | None
    name: str
    meaning: str


AREAS: Final = (
    Area(0, FRONT_LABELS[0], "boot", "never written, so that others' boot sectors survive"),
    Area(FRONT_LABELS[0], FRONT_LABELS[1], "label A", "label sector, the rest zero"),
    Area(FRONT_LABELS[1], MDR_ADDRESSES[0], "label B", "label sector, the rest zero"),
    Area(MDR_ADDRESSES[0], MDR_ADDRESSES[1], "MDR directory A", "its sector, the rest zero"),
    Area(MDR_ADDRESSES[1], FIXED_END, "MDR directory B", "its sector, the rest zero"),
    Area(FIXED_END, GS_BOOT.start_bytes, "reserved", ""),
    Area(GS_POINTER_ADDRESSES[0], GS_POINTER_ADDRESSES[1], "GS pointer A", "boot region of the GS set: pointer sector"),
    Area(GS_POINTER_ADDRESSES[1], GS_LISTS[0].start_bytes, "GS pointer B", "pointer sector"),
    Area(GS_LISTS[0].start_bytes, GS_LISTS[0].end_bytes, "GS list A", "active list"),
    Area(GS_LISTS[1].start_bytes, GS_LISTS[1].end_bytes, "GS list B", "active list"),
    Area(GS_RESERVED[0].start_bytes, GS_RESERVED[0].end_bytes, "GS reserved A", "what legacy ALUs would hold (R5)"),
    Area(GS_RESERVED[1].start_bytes, GS_RESERVED[1].end_bytes, "GS reserved B", "what legacy ALUs would hold (R5)"),
    Area(SMALL.regions[0], SMALL.regions[1], "object region A", "if the MDR directory says so: base and log"),
    Area(SMALL.regions[1], FRONT_TABLES[0], "object region B", "if the MDR directory says so: base and log"),
    Area(FRONT_TABLES[0], FRONT_TABLES[1], "partition table A", f"{TABLE_BYTES // KIB} KiB, the rest reserved"),
    Area(FRONT_TABLES[1], 7 * MIB, "partition table B", f"{TABLE_BYTES // KIB} KiB, the rest reserved"),
    Area(7 * MIB, SMALL.data_start, "reserved", ""),
    Area(SMALL.data_start, None, "data", "partitions and their bitmaps, in units of 1 MiB"),
)
TAIL_AREAS: Final = ("partition table C", "partition table D", "label C", "label D")
"""What the end of an ALU holds, in this order, the last 4 KiB of it last."""


def data_area(size_bytes: int) -> Extent:
    """Give the room for partitions on a new ALU of this size: the tail is left for copies of the label directory.

    Raises:
        UsageError: the ALU is too small, or larger than any disk.
    """
    if not LEAST_ALU_BYTES <= size_bytes <= MOST_ALU_BYTES:
        raise UsageError(
            f"an alu of {size_bytes} bytes: it must have {LEAST_ALU_BYTES} (16 MiB) to {MOST_ALU_BYTES} (8 EiB)"
        )
    start = region_plan(size_bytes).data_start
    end = (size_bytes - TAIL_BYTES) // ALLOCATION_UNIT * ALLOCATION_UNIT
    return Extent(start, end - start)


def region_plan(size_bytes: int) -> RegionPlan:
    """Say where the object regions of a new ALU of this size lie."""
    return LARGE if size_bytes >= LARGE_ALU_BYTES else SMALL


def label_addresses(size_bytes: int) -> tuple[int, ...]:
    """Give the places of the labels A, B, C, D."""
    end = size_bytes // PAGE * PAGE
    return (*FRONT_LABELS, end - 2 * PAGE, end - PAGE)


def table_addresses(size_bytes: int, table_bytes: int = TABLE_BYTES) -> tuple[int, ...]:
    """Give the places of the partition tables A, B, C, D."""
    end = label_addresses(size_bytes)[2]
    return (*FRONT_TABLES, end - 2 * table_bytes, end - table_bytes)


def disjoint(areas: Iterable[Extent], size_bytes: int) -> bool:
    """Say whether areas that were read from a disk lie on it, each for itself, in whole pages, and off the labels."""
    tail = label_addresses(size_bytes)[2]
    fixed = (Extent(0, FIXED_END), GS_BOOT, Extent(tail, 2 * PAGE))
    ordered = sorted((*fixed, *areas))
    return (
        all(area.length_bytes > 0 and not (area.start_bytes % PAGE or area.length_bytes % PAGE) for area in ordered)
        and all(before.end_bytes <= after.start_bytes for before, after in itertools.pairwise(ordered))
        and ordered[-1].end_bytes <= size_bytes
    )
