"""ALUs written by the first release stay readable."""

from __future__ import annotations

import asyncio

from backstores.metadata.bitmap import Place, Stamp, decode
from backstores.metadata.inspection import Ownership
from backstores.metadata.store import AluMetadata
from tests.support.format_1 import DIRTY, GEOMETRY, LEG, OBJECTS, fixture, make, storage_of
from tests.support.metadata import ALU, SIZE, SUSID


def test_the_fixture_is_read() -> None:
    """R1, R3: label, objects and bitmap of format version 1."""
    storage = fixture()
    metadata = AluMetadata(storage, SIZE)
    inspection = asyncio.run(metadata.inspect(SUSID))
    assert (inspection.ownership, inspection.findings) == (Ownership.OWNED, ())
    assert (metadata.label.alu, metadata.generation, metadata.objects) == (ALU, 4, OBJECTS)
    place = Place.of(LEG)
    loaded = decode(asyncio.run(storage.read(place.start_bytes, GEOMETRY.length_bytes)), GEOMETRY, place)
    assert (loaded.dirty, loaded.findings, loaded.stamp.generation) == (DIRTY, (), 7)
    assert loaded.stamp == Stamp(7, 1_700_000_000_000_000_001)


def test_this_release_still_writes_format_1() -> None:
    """Whoever changes a byte of the format raises its version, and keeps this fixture for the migration."""
    assert storage_of(asyncio.run(make())).image == fixture().image
