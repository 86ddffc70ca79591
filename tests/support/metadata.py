"""Small objects and names for tests of what lies on an ALU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from backstores.metadata.label import LabelSector
from backstores.metadata.sector import SECTOR_BYTES, crc32c
from backstores.objects import MIB, Extent, Leg, LegState, MirrorObject, PartitionObject, StripeObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn, new_object_wwn

SUSID = "tiergate-test"
SIZE = 16 * MIB
ALU = new_device_wwn(lambda bits: 1)
OTHER_ALU = new_device_wwn(lambda bits: 2)


def name(number: int) -> Wwn:
    """Make the name of object ``number``."""
    return new_object_wwn(lambda bits: number)


def clock(start: int = 1_700_000_000_000_000_000) -> Callable[[], int]:
    """Make a clock that moves by a second at every look."""
    ticks = itertools.count(start, 1_000_000_000)
    return lambda: next(ticks)


def partition(
    number: int, at: int, units: int = 1, *, alu: Wwn = ALU, tree: int = 2, bitmap: int | None = None
) -> PartitionObject:
    """Make a partition of ``units`` MiB, ``at`` MiB from the start of its ALU, of volume ``tree``."""
    room = None if bitmap is None else Extent(bitmap * MIB, MIB)
    return PartitionObject(
        wwn=name(number), volume=name(tree), alu=alu, extent=Extent(at * MIB, units * MIB), bitmap=room
    )


def mirror(number: int, legs: Sequence[int], *, tree: int = 2, generation: int = 1) -> MirrorObject:
    """Make a mirror of in-sync legs."""
    members = tuple(Leg(name(leg), LegState.IN_SYNC) for leg in legs)
    return MirrorObject(
        wwn=name(number), volume=name(tree), legs=members, region_blocks=8192, blocks=2048, generation=generation
    )


def stripe(number: int, members: Sequence[int], *, tree: int = 2) -> StripeObject:
    """Make a stripe."""
    below = tuple(name(member) for member in members)
    return StripeObject(wwn=name(number), volume=name(tree), children=below, chunk_blocks=128, blocks=4096)


def volume(number: int, root: int, *, called: str = "db", generation: int = 1) -> VolumeObject:
    """Make the volume object over ``root``."""
    return VolumeObject(
        wwn=name(number),
        name=called,
        root=name(root),
        layout="linear",
        block_bytes=512,
        blocks=2048,
        created="2026-01-01T00:00:00Z",
        generation=generation,
    )


def resealed(raw: bytes, field: str, value: int) -> bytes:
    """Forge a field of a label under a checksum that is right."""
    forged = bytearray(raw[:SECTOR_BYTES])
    crc = LabelSector.crc
    for at, number in ((LabelSector.FIELDS[field], value), (crc, 0)):
        forged[at.byte : at.end] = number.to_bytes(at.end - at.byte, "little")
    forged[crc.byte : crc.end] = crc32c(bytes(forged)).to_bytes(4, "little")
    return bytes(forged)
