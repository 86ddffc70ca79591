"""Every byte of every structure on an ALU, flipped one at a time: no exception, and no silent acceptance (M1)."""

from __future__ import annotations

import asyncio

import pytest

from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.layout import MDR_ADDRESSES, SMALL, label_addresses, table_addresses
from backstores.metadata.store import AluMetadata
from backstores.objects import AnyObject
from tests.support.metadata import ALU, SIZE, SUSID, clock, flipped, mirror, partition, volume
from tests.support.recording import SECTOR, Image, RecordingStorage, read

COMMITS: tuple[tuple[AnyObject, ...], ...] = (
    (),
    (partition(1, 8),),
    (partition(1, 8), volume(2, 3), mirror(3, [1, 4]), partition(4, 9, bitmap=10)),
)
UNIT = 4096
LIVE = SMALL.regions[1]  # after a claim: its base without objects, and a change a commit
PLACES = {
    **{f"label-{name}": address for name, address in zip("abcd", label_addresses(SIZE), strict=True)},
    **{f"mdr-directory-{name}": address for name, address in zip("ab", MDR_ADDRESSES, strict=True)},
    **{f"partition-table-{name}": address for name, address in zip("abcd", table_addresses(SIZE), strict=True)},
    "other-region": SMALL.regions[0],
    "base": LIVE,
    "base-body": LIVE + UNIT,
    "first-change": LIVE + 2 * UNIT,
    "first-change-body": LIVE + 3 * UNIT,
    "last-change": LIVE + 4 * UNIT,
    "last-change-body": LIVE + 5 * UNIT,
    "end": LIVE + 6 * UNIT,
}
OF_ONE_COPY = ("label", "mdr", "partition", "other", "end")
"""What there are copies of, or what holds nothing yet: of these a flip loses no object."""


def image() -> Image:
    storage = RecordingStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    for objects in COMMITS[1:]:
        asyncio.run(metadata.commit(objects))
    return storage.image


def inspected(found: Image) -> Inspection:
    return asyncio.run(AluMetadata(RecordingStorage(SIZE, found), SIZE).inspect(SUSID))


def test_the_places_are_those_of_the_structures() -> None:
    """A flip where nothing lies would prove nothing."""
    good = image()
    empty = [name for name, address in PLACES.items() if not read(good, address, SECTOR).strip(b"\0")]
    assert empty == ["end"]
    assert inspected(good).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_every_flip_is_told(name: str) -> None:
    """M1, R1: what counts then is a state that was committed, the last one wherever there is a copy."""
    good, address = image(), PLACES[name]
    length = len(read(good, address, UNIT).rstrip(b"\0")) if name.endswith("body") else SECTOR
    for at in range(address, address + length):
        found = inspected(flipped(good, at))
        assert found.ownership is Ownership.OWNED, at
        assert found.state is not None
        assert found.findings, at
        assert found.state.objects in COMMITS, at
        if name.startswith(OF_ONE_COPY):
            assert found.state.objects == COMMITS[-1], at
