"""Images of ALUs that nobody should ever meet: only declared errors and findings come out (S3).

``tests.support.fuzzing`` says how many, and how to see a failure again.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable

import msgspec
import pytest

from backstores.errors import TiergateError
from backstores.metadata.bitmap import BitmapSector, Geometry, Place, decode
from backstores.metadata.free import free_extents
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.label import LabelSector
from backstores.metadata.layout import MDR_ADDRESSES, SMALL, label_addresses, table_addresses
from backstores.metadata.mdr import DirectorySector
from backstores.metadata.merge import AluRecord, system_image
from backstores.metadata.region import BODY_OFFSET, ChangeSector, RegionSector
from backstores.metadata.sector import SECTOR_BYTES, Sector, crc32c
from backstores.metadata.store import AluMetadata
from backstores.metadata.table import TableSector
from backstores.objects import MIB, AnyObject
from tests.support.fuzzing import IMAGES, Growth, first_seed, named
from tests.support.metadata import ALU, SIZE, SUSID, clock, mirror, name, partition, stripe, volume
from tests.support.params import cases
from tests.support.recording import Image, RecordingStorage, put, read

FIRST: tuple[AnyObject, ...] = (volume(2, 4), partition(4, 8, bitmap=9))
SECOND: tuple[AnyObject, ...] = (volume(2, 3), stripe(3, [5]), mirror(5, [4, 6]), partition(4, 8, bitmap=9))
GEOMETRY = Geometry(name(5), 3 * 8192, 8192)
BITMAP = Place(ALU, name(4), 9 * MIB)
KINDS: tuple[type[Sector], ...] = (LabelSector, DirectorySector, RegionSector, ChangeSector, TableSector, BitmapSector)
CHANGE_OFFSETS = (2 * BODY_OFFSET, 4 * BODY_OFFSET)  # of the log behind a base without objects
SECTORS: tuple[tuple[int, type[Sector]], ...] = (
    *((address, LabelSector) for address in label_addresses(SIZE)),
    *((address, DirectorySector) for address in MDR_ADDRESSES),
    *((address, RegionSector) for address in SMALL.regions),
    *((SMALL.regions[1] + offset, ChangeSector) for offset in CHANGE_OFFSETS),
    *((address, TableSector) for address in table_addresses(SIZE)),
)
BODIES = tuple(SMALL.regions[1] + offset + BODY_OFFSET for offset in (0, *CHANGE_OFFSETS))
PLACES = (*(address for address, _ in SECTORS), *BODIES, 9 * MIB)

ODD_VALUES = {
    int: (0, -1, 8 * MIB, 3 * MIB, MIB + 1, 1 << 62, (1 << 64) - 1),
    str: ("", "\x1b[2J", ALU, "volume", *(name(number) for number in range(1, 7))),
    list: ([], [name(4)], [name(5), name(5)], [{"child": name(3)}], [{"child": ""}]),
    dict: ({}, {"start_bytes": 8 * MIB, "length_bytes": MIB}),
}

Mutation = Callable[[Image, random.Random], None]


def valid() -> Image:
    storage = RecordingStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    asyncio.run(metadata.commit(FIRST))
    asyncio.run(metadata.commit(SECOND))
    return storage.image


def noise(image: Image, dice: random.Random) -> None:
    """Random bytes in some of the places where structures lie, magic numbers included now and then."""
    for address in dice.sample(PLACES, dice.randint(1, len(PLACES))):
        raw = bytearray(dice.randbytes(SECTOR_BYTES))
        kind = dice.choice((None, *KINDS))
        if kind is not None:
            raw[:8] = kind.magic.value or b""
            raw[8:10] = dice.choice((b"\1\0", b"\2\0"))
        put(image, address, bytes(raw))


def damage(image: Image, dice: random.Random) -> None:
    """Bytes flipped, sectors lost, doubled or swapped; checksums as they were."""
    for _ in range(dice.randint(1, 4)):
        address = dice.choice(PLACES)
        match dice.randrange(4):
            case 0:
                raw = bytearray(read(image, address, SECTOR_BYTES))
                raw[dice.randrange(SECTOR_BYTES)] ^= 1 << dice.randrange(8)
                put(image, address, bytes(raw))
            case 1:
                put(image, address, bytes(SECTOR_BYTES))
            case 2:
                put(image, dice.choice(PLACES), read(image, address, SECTOR_BYTES))
            case _:
                other = dice.choice(PLACES)
                here, there = read(image, address, SECTOR_BYTES), read(image, other, SECTOR_BYTES)
                put(image, address, there)
                put(image, other, here)


def resealed(raw: bytearray) -> bytes:
    crc = Sector.crc
    raw[crc.byte : crc.end] = bytes(4)
    raw[crc.byte : crc.end] = crc32c(bytes(raw)).to_bytes(4, "little")
    return bytes(raw)


def forge_sectors(image: Image, dice: random.Random) -> None:
    """Fields of any value under a checksum that is right."""
    for _ in range(dice.randint(1, 3)):
        address, kind = dice.choice(SECTORS)
        field = dice.choice(list(kind.FIELDS.values()))
        raw = bytearray(read(image, address, SECTOR_BYTES))
        width = field.end - field.byte
        extreme = dice.choice((0, 1, (1 << 8 * width) - 1, 1 << 8 * width - 1, dice.getrandbits(8 * width)))
        raw[field.byte : field.end] = extreme.to_bytes(width, "little")
        put(image, address, resealed(raw))


def forge_bodies(image: Image, dice: random.Random) -> None:
    """Objects of any content under checksums that are right."""
    plain = [msgspec.to_builtins(item) for item in SECOND]
    for _ in range(dice.randint(1, 4)):
        item = dice.choice(plain)
        item = item["extent"] if item.get("extent") and dice.random() < 0.5 else item
        key = dice.choice(sorted(item))
        values = next((values for kind, values in ODD_VALUES.items() if isinstance(item[key], kind)), (None,))
        item[key] = copy.deepcopy(dice.choice(values))
        if dice.random() < 0.5:
            plain.append(copy.deepcopy(dice.choice(plain)))
    if dice.random() < 0.5:
        seal_body(image, RegionSector, SMALL.regions[1], {"objects": plain}, len(plain), dice)
        return
    drop = [dice.choice(("", ALU, name(2), name(4))) for _ in range(dice.randint(0, 2))]
    at = SMALL.regions[1] + dice.choice(CHANGE_OFFSETS)
    seal_body(image, ChangeSector, at, {"put": plain, "drop": drop}, dice.randint(0, len(plain) + 3), dice)


def seal_body(
    image: Image, kind: type[Sector], address: int, content: object, objects: int, dice: random.Random
) -> None:
    """Put a body under a header that fits it."""
    body = msgspec.msgpack.encode(content)
    if dice.random() < 0.1:
        cut = dice.randrange(len(body))
        body = body[:cut] + dice.randbytes(8) + body[cut:]
    header = bytearray(read(image, address, SECTOR_BYTES))
    for field, value in (("body_bytes", len(body)), ("body_crc", crc32c(body)), ("objects", objects)):
        at = kind.FIELDS[field]
        header[at.byte : at.end] = value.to_bytes(at.end - at.byte, "little")
    put(image, address, resealed(header))
    put(image, address + BODY_OFFSET, body.ljust(-(-len(body) // SECTOR_BYTES) * SECTOR_BYTES, b"\0"))


async def look(image: Image) -> Inspection:
    """Take an image the whole way: inspect, merge, free room, bitmap, and the next commit and claim."""
    storage = RecordingStorage(SIZE, dict(image))
    metadata = AluMetadata(storage, SIZE, clock())
    inspection = await metadata.inspect(SUSID)
    str(inspection.findings)
    if inspection.label is not None and inspection.state is not None:
        merged = system_image([AluRecord(inspection.label.alu, inspection.state.objects, inspection.findings)])
        assert all(tree.objects for tree in merged.volumes)
        for finding in (*inspection.findings, *merged.findings):
            assert str(finding).isprintable()
        free = free_extents(inspection.label.data, inspection.state.objects)
        assert sum(extent.length_bytes for extent in free) <= inspection.label.data.length_bytes
    bitmap = decode(read(image, BITMAP.start_bytes, 4096), GEOMETRY, BITMAP)
    assert bitmap.dirty <= {0, 1, 2}
    if inspection.ownership is Ownership.OWNED:
        await attempt_commit(metadata)
    return inspection


async def attempt_commit(metadata: AluMetadata) -> None:
    """Whatever was read, the next commit works or says why not; and it stays away from the labels."""
    before = metadata.objects
    try:
        await metadata.commit(())
    except TiergateError:
        assert metadata.objects == before
    else:
        assert metadata.objects == ()


def wiped(image: Image) -> bool:
    """Say whether the last change is gone with header and body: nothing on this ALU tells then that it was there."""
    last = SMALL.regions[1] + CHANGE_OFFSETS[-1]
    return not any(read(image, at, SECTOR_BYTES).strip(b"\0") for at in (last, last + BODY_OFFSET))


MUTATIONS = (noise, damage, forge_sectors, forge_bodies)
IMAGES_EACH = IMAGES // len(MUTATIONS)


@pytest.mark.parametrize("mutation", cases({m.__name__: m for m in MUTATIONS}, slow=["noise", "forge_sectors"]))
def test_no_image_does_harm(mutation: Mutation) -> None:
    """R1, R2, R3: no other exception, and no state that was never committed without a forged checksum."""
    start = valid()
    committed = [set(), set(FIRST), set(SECOND)]

    async def go() -> dict[Ownership, int]:
        counts = dict.fromkeys(Ownership, 0)
        growth = Growth(IMAGES_EACH)
        first = first_seed(MUTATIONS.index(mutation))
        for number in range(IMAGES_EACH):
            growth.after(number)
            with named(first + number):
                counts[await attempt(random.Random(first + number))] += 1
        growth.check()
        return counts

    async def attempt(dice: random.Random) -> Ownership:
        image = dict(start)
        mutation(image, dice)
        inspection = await look(image)
        if mutation in (noise, damage):
            assert inspection.state is None or set(inspection.state.objects) in committed
        if image != start and mutation is damage and inspection.ownership is Ownership.OWNED:
            assert inspection.findings or set(inspection.state.objects) == set(SECOND) or wiped(image)
        return inspection.ownership

    counts = asyncio.run(go())
    assert sum(counts.values()) == IMAGES_EACH
    assert counts[Ownership.OWNED], "images are so broken that nothing behind the label is reached"
    if mutation is not forge_bodies:
        assert counts[Ownership.DAMAGED], "no image was broken"
