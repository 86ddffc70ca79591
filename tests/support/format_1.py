"""An ALU as format version 1 writes it, kept for later releases to read and to migrate.

The fixture was made by the last release that wrote version 1. It is never made anew: what disks in the field
hold does not change with our code.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backstores.metadata import records
from backstores.metadata.bitmap import Geometry
from backstores.metadata.layout import FRONT_LABELS, SMALL, data_area
from backstores.metadata.region import BODY_OFFSET, RegionSector
from backstores.metadata.sector import crc32c
from backstores.metadata.steps import padded
from backstores.metadata.version_1 import Label1Sector
from backstores.objects import AnyObject, ConcatObject
from tests.support.metadata import OTHER_ALU, mirror, name, partition, resealed, stripe, volume
from tests.support.recording import SECTOR, RecordingStorage, put, read

FIXTURE: Final = Path(__file__).parents[1] / "fixtures" / "alu-format-1.bin"
LEG: Final = partition(5, 8, bitmap=9)
OBJECTS: Final[tuple[AnyObject, ...]] = (
    volume(2, 3, generation=4),
    ConcatObject(wwn=name(3), volume=name(2), children=(name(4), name(7)), blocks=6144),
    mirror(4, [5, 6], generation=2),
    LEG,
    stripe(7, [8, 9]),
    partition(8, 10),
    volume(12, 14, called="Übung"),
    partition(14, 12, 2, tree=12),
)
GEOMETRY: Final = Geometry(name(4), 20_000 * 8192 // 2, 8192)
DIRTY: Final = frozenset({0, 3_071, 3_072, 9_999})
ELSEWHERE: Final = partition(6, 8, alu=OTHER_ALU, bitmap=9)


def storage_of(raw: bytes) -> RecordingStorage:
    """Make an ALU that holds these bytes."""
    storage = RecordingStorage(len(raw))
    put(storage.image, 0, raw)
    return storage


def holding(objects: Sequence[AnyObject], size_bytes: int) -> RecordingStorage:
    """Make an ALU of another size with other objects of what the fixture is."""
    storage = fixture()
    storage.size_bytes = size_bytes
    image, data_end = storage.image, data_area(size_bytes).end_bytes
    for address in FRONT_LABELS:
        raw = read(image, address, SECTOR)
        put(image, address, resealed(raw, Label1Sector, size_bytes=size_bytes, data_end=data_end))
    body = records.encode(objects)
    for address in SMALL.regions:
        raw = read(image, address, SECTOR)
        values = {"body_bytes": len(body), "body_crc": crc32c(body), "objects": len(objects)}
        put(image, address, resealed(raw, RegionSector, **values))
        put(image, address + BODY_OFFSET, padded(body))
    return storage


def fixture() -> RecordingStorage:
    """Read the fixture."""
    return storage_of(lzma.decompress(FIXTURE.read_bytes()))
