"""Small objects and names for tests of what lies on an ALU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from backstores.metadata.label import new_label
from backstores.metadata.layout import SMALL
from backstores.metadata.mdr import Directory
from backstores.metadata.sector import SECTOR_BYTES, Sector, crc32c
from backstores.metadata.steps import Reads, Step, Write
from backstores.objects import MIB, Extent, Leg, LegState, MirrorObject, PartitionObject, StripeObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn, new_object_wwn
from tests.support.recording import SECTOR, Image, StorageFailed, put, read

T = TypeVar("T")

SUSID = "tiergate-test"
SIZE = 16 * MIB
ALU = new_device_wwn(lambda bits: 1)
OTHER_ALU = new_device_wwn(lambda bits: 2)
LABEL = new_label(ALU, SIZE)
DIRECTORY = Directory(SUSID, ALU, SMALL.regions, SMALL.region_bytes)


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


def resealed(raw: bytes, kind: type[Sector], **values: int) -> bytes:
    """Forge numbers of a sector under a checksum that is right."""
    forged = bytearray(raw[:SECTOR_BYTES])
    for name, value in {**values, "crc": 0}.items():
        at = kind.FIELDS[name]
        forged[at.byte : at.end] = value.to_bytes(at.end - at.byte, "little")
    forged[kind.crc.byte : kind.crc.end] = crc32c(bytes(forged)).to_bytes(4, "little")
    return bytes(forged)


def answered(reads: Reads[T], image: Image, unreadable: Iterable[int] = ()) -> T:
    """Answer what a core reads from an image; the sectors at ``unreadable`` addresses give errors."""
    broken = set(unreadable)
    try:
        span = next(reads)
        while True:
            if any(span.offset <= at < span.offset + span.length for at in broken):
                span = reads.throw(StorageFailed("input/output error"))
            else:
                span = reads.send(read(image, span.offset, span.length))
    except StopIteration as done:
        decided: T = done.value
        return decided


def wrote(image: Image, steps: Iterable[Step]) -> Image:
    """Give an image with all steps carried out."""
    after = dict(image)
    for step in steps:
        if isinstance(step, Write):
            put(after, step.offset, step.data)
    return after


def flipped(image: Image, address: int, mask: int = 0x20) -> Image:
    """Give an image with a byte changed."""
    first = address // SECTOR * SECTOR
    raw = bytearray(read(image, first, SECTOR))
    raw[address - first] ^= mask
    after = dict(image)
    put(after, first, bytes(raw))
    return after
