"""The dirty-region bitmap of a mirror, as it lies on each of its legs (D2, R27).

A mirror is divided into at most 16,384 regions; a bit says that a write to the region was begun and
that the legs may differ there after an unclean stop. Each leg keeps the whole bitmap, in the room its
partition has for it.

Invariants. Each sector stands for itself: it names the mirror, the leg, its place and the size of
the regions, so that it is written in place, in one piece (M1), without a second copy. A sector that
can't be read, or that belongs to something else, counts as all dirty: that costs time, never data.
Of several legs' bitmaps the union counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from backstores.errors import UsageError
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.layout import ALLOCATION_UNIT, FORMAT_VERSION
from backstores.metadata.sector import SECTOR_BYTES, Sector, SectorError, seal, unseal
from backstores.metadata.steps import Write, padded, units
from backstores.objects import MIB, MirrorObject, PartitionObject
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn, to_bytes

MOST_REGIONS: Final = 16_384
LEAST_REGION_BYTES: Final = 4 * MIB


class BitmapSector(Sector, size=512, order="little"):
    """One sector of a leg's bitmap: the same in both versions of the format, for a migration leaves bitmaps alone."""

    VERSIONS = frozenset({1, FORMAT_VERSION})

    magic = Bytes(byte=0, length=8, value=b"TGBITMAP")
    mirror = Bytes(byte=64, length=16, doc="NAA 6 name of the mirror")
    leg = Bytes(byte=80, length=16, doc="NAA 6 name of the partition that this bitmap lies in")
    index = Bits(byte=96, width=32, doc="number of this sector in the bitmap, from zero")
    regions = Bits(byte=100, width=32, doc="number of regions of the mirror")
    region_blocks = Bits(byte=104, width=64, doc="blocks a region: a power of two")
    bits = Bytes(byte=128, length=384, doc="a bit a region, the first one lowest; 1 is dirty")


REGIONS_OF_A_SECTOR: Final = BitmapSector.bits.width
MOST_BYTES: Final = units(-(-MOST_REGIONS // REGIONS_OF_A_SECTOR) * SECTOR_BYTES)
"""No bitmap is longer."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a mirror is divided."""

    mirror: Wwn
    blocks: int
    region_blocks: int

    @classmethod
    def of(cls, mirror: MirrorObject) -> Geometry:
        """Take it from the mirror's definition.

        Raises:
            UsageError: the definition asks for more regions than there can be, or for none.
        """
        geometry = cls(mirror.wwn, mirror.blocks, mirror.region_blocks)
        power_of_two = mirror.region_blocks > 0 and mirror.region_blocks.bit_count() == 1
        if not power_of_two or not 0 < geometry.regions <= MOST_REGIONS:
            raise UsageError(
                f"mirror {mirror.wwn} of {mirror.blocks} blocks can't have regions of {mirror.region_blocks}:"
                f" take a power of two that gives 1 to {MOST_REGIONS} regions"
            )
        return geometry

    @property
    def regions(self) -> int:
        """How many there are; the last may be shorter."""
        return -(-self.blocks // self.region_blocks)

    @property
    def sectors(self) -> int:
        """How many sectors the bitmap takes."""
        return -(-self.regions // REGIONS_OF_A_SECTOR)

    @property
    def length_bytes(self) -> int:
        """How much of its room a bitmap reads and writes."""
        return units(self.sectors * SECTOR_BYTES)

    def span(self, lba: int, blocks: int) -> tuple[int, int]:
        """Give the first and the last region that [lba, lba + blocks) touches."""
        return lba // self.region_blocks, (lba + blocks - 1) // self.region_blocks

    def extent(self, region: int) -> tuple[int, int]:
        """Give the first block of a region and how many it has."""
        lba = region * self.region_blocks
        return lba, min(self.region_blocks, self.blocks - lba)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leg keeps its bitmap."""

    alu: Wwn
    leg: Wwn
    start_bytes: int

    @classmethod
    def of(cls, partition: PartitionObject) -> Place:
        """Take it from the partition's definition.

        Raises:
            UsageError: the partition has no room for a bitmap.
        """
        if partition.bitmap is None:
            raise UsageError(f"partition {partition.wwn} has no room for a dirty-region bitmap")
        return cls(partition.alu, partition.wwn, partition.bitmap.start_bytes)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which write of the bitmap this is."""

    generation: int = 0
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one leg's bitmap says, or several legs' together."""

    dirty: frozenset[int]
    stamp: Stamp
    findings: tuple[Finding, ...] = ()


def region_blocks_for(blocks: int, block_bytes: int) -> int:
    """Choose the size of the regions of a new mirror: the smallest power of two within the limits."""
    region_blocks = LEAST_REGION_BYTES // block_bytes
    while blocks > region_blocks * MOST_REGIONS:
        region_blocks *= 2
    return region_blocks


def bitmap_bytes(blocks: int, block_bytes: int) -> int:
    """How much room a leg's bitmap takes: whole allocation units, so that the data beside it stays aligned."""
    regions = -(-blocks // region_blocks_for(blocks, block_bytes))
    needed = -(-regions // REGIONS_OF_A_SECTOR) * SECTOR_BYTES
    return -(-needed // ALLOCATION_UNIT) * ALLOCATION_UNIT


def encode(bits: bytes, geometry: Geometry, place: Place, stamp: Stamp) -> list[Write]:
    """Say how a bitmap (a bit a region, the first one lowest) gets onto a leg. Sectors may arrive in any order."""
    step = REGIONS_OF_A_SECTOR // 8
    sectors = [
        seal(
            BitmapSector,
            address=place.start_bytes + index * SECTOR_BYTES,
            alu=to_bytes(place.alu),
            generation=stamp.generation,
            time_ns=stamp.time_ns,
            mirror=to_bytes(geometry.mirror),
            leg=to_bytes(place.leg),
            index=index,
            regions=geometry.regions,
            region_blocks=geometry.region_blocks,
            bits=bits[index * step : (index + 1) * step],
        )
        for index in range(geometry.sectors)
    ]
    return [Write(place.start_bytes, padded(b"".join(sectors)))]


def decode(raw: bytes, geometry: Geometry, place: Place) -> Loaded:
    """Read a leg's bitmap; what is missing from ``raw`` (a failed read: all of it) counts as dirty."""
    dirty: set[int] = set()
    findings: list[Finding] = []
    stamps = [Stamp()]
    for index in range(geometry.sectors):
        first = index * REGIONS_OF_A_SECTOR
        inside = range(first, min(first + REGIONS_OF_A_SECTOR, geometry.regions))
        try:
            sector = parse_sector(raw, geometry, place, index)
        except SectorError as error:
            findings.append(error.finding(f"bitmap at byte {place.start_bytes + index * SECTOR_BYTES}"))
            dirty.update(inside)
            continue
        stamps.append(Stamp(sector.generation, sector.time_ns))
        dirty.update(region for region in regions_of(sector) if region in inside)
    newest = Stamp(max(s.generation for s in stamps), max(s.time_ns for s in stamps))
    return Loaded(frozenset(dirty), newest, tuple(findings))


def parse_sector(raw: bytes, geometry: Geometry, place: Place, index: int) -> BitmapSector:
    """Take a sector out of a leg's bitmap.

    Raises:
        SectorError: it is none, or that of something else.
    """
    at = index * SECTOR_BYTES
    sector = unseal(BitmapSector, raw[at : at + SECTOR_BYTES], place.start_bytes + at)
    found = (sector.alu, sector.mirror, sector.leg, sector.index, sector.regions, sector.region_blocks)
    names = (to_bytes(place.alu), to_bytes(geometry.mirror), to_bytes(place.leg))
    if found != (*names, index, geometry.regions, geometry.region_blocks):
        raise SectorError(Problem.FOREIGN, "it belongs to another mirror or leg, or to another size")
    return sector


def regions_of(sector: BitmapSector) -> Iterator[int]:
    """Yield the dirty regions that a sector names."""
    first = sector.index * REGIONS_OF_A_SECTOR
    for number, byte in enumerate(sector.bits):
        for bit in range(8) if byte else ():
            if byte >> bit & 1:
                yield first + number * 8 + bit


def merge(legs: Iterable[Loaded], geometry: Geometry) -> Loaded:
    """Put the legs' bitmaps together: dirty on one is dirty; without any leg all is."""
    read = list(legs)
    if not read:
        return Loaded(frozenset(range(geometry.regions)), Stamp())
    newest = Stamp(max(leg.stamp.generation for leg in read), max(leg.stamp.time_ns for leg in read))
    findings = tuple(finding for leg in read for finding in leg.findings)
    return Loaded(frozenset().union(*(leg.dirty for leg in read)), newest, findings)
