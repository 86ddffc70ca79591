"""Objects of other storage processors in a volume's tree, and the bitmap, the same by both ways (R12, M1, D2)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import pytest

from backstores.alu.memory import MemoryDriver
from backstores.block import Op, Request
from backstores.engine.engine import Engine
from backstores.metadata.bitmap import Geometry, Loaded, Stamp
from backstores.objects import MIB, AnyObject, Extent, MirrorObject, PartitionObject
from backstores.transforms.tree import build
from backstores.volume.dirty import DirtyLog
from backstores.volume.references import extents_of, leg_log, referenced
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.volumes import BLOCK_BYTES, DATA, stripe_over_mirrors

OBJECTS = stripe_over_mirrors(width=1)
LEGS = tuple(item for item in OBJECTS if isinstance(item, PartitionObject))
[MIRROR] = (item for item in OBJECTS if isinstance(item, MirrorObject))
GOLDEN = "a78b2428194746e4ebf82119336dde7b809b9ea5e85986f01d9d24b501dfcb65"
"""SHA-256 of the bitmap's first sector on the first leg, as releases before there were references have written it."""


def unit(alu: MemoryDriver, partition: PartitionObject) -> MemoryDriver:
    """Make a copy of the T1 unit of a partition: its data, then its bitmap."""
    content = b"".join(alu.content[e.start_bytes : e.end_bytes] for e in extents_of(partition))
    driver = MemoryDriver(len(content), path="rrn")
    driver.content[:] = content
    return driver


def put_back(alu: MemoryDriver, partition: PartitionObject, driver: MemoryDriver) -> None:
    at = 0
    for extent in extents_of(partition):
        alu.content[extent.start_bytes : extent.end_bytes] = driver.content[at : at + extent.length_bytes]
        at += extent.length_bytes


def test_only_what_is_remote_is_seen_as_a_lun() -> None:
    near, far = LEGS
    seen = referenced(OBJECTS, {far.wwn})
    assert [item for item in seen if item.wwn != far.wwn] == [item for item in OBJECTS if item.wwn != far.wwn]
    [reference] = (item for item in seen if item.wwn == far.wwn)
    assert isinstance(reference, PartitionObject)
    assert (reference.alu, reference.extent, reference.bitmap) == (far.wwn, Extent(0, DATA), Extent(DATA, MIB))
    assert near in seen
    assert build(seen).blocks == build(OBJECTS).blocks


@pytest.mark.parametrize("bitmap", [None, Extent(7 * MIB, MIB)], ids=["without", "with"])
def test_a_unit_is_the_data_with_the_bitmap_behind_it(bitmap: Extent | None) -> None:
    partition = PartitionObject(
        wwn=LEGS[0].wwn, volume=LEGS[0].volume, alu=LEGS[0].alu, extent=Extent(9 * MIB, 2 * MIB), bitmap=bitmap
    )
    extents = extents_of(partition)
    assert extents[0] == partition.extent
    assert list(extents[1:]) == ([bitmap] if bitmap else [])
    [reference] = referenced([partition], {partition.wwn})
    assert isinstance(reference, PartitionObject)
    assert (reference.bitmap is None) == (bitmap is None)


async def written(remote: Sequence[Wwn], dirty: frozenset[int]) -> list[MemoryDriver]:
    """Write the bitmaps of the legs, those in ``remote`` as LUNs; give the ALUs."""
    alus = [MemoryDriver(DATA * 2, path=leg.alu) for leg in LEGS]
    async with Engine() as engine:
        drivers = [unit(alu, leg) if leg.wwn in remote else alu for alu, leg in zip(alus, LEGS, strict=True)]
        legs = [leg_log(leg.wwn, leg, driver, remote) for leg, driver in zip(LEGS, drivers, strict=True)]
        log = DirtyLog(engine, Geometry.of(MIRROR), legs, Loaded(dirty, Stamp()), now_ns=lambda: 5)
        await log.publish()
        for alu, leg, driver in zip(alus, LEGS, drivers, strict=True):
            if driver is not alu:
                put_back(alu, leg, driver)
    return alus


def test_a_bitmap_written_through_a_reference_has_the_bytes_of_one_written_on_the_alu() -> None:
    """M1: its sectors name the place on the ALU, by whatever way they came there."""
    near = asyncio.run(written([], frozenset({1, 3})))
    far = asyncio.run(written([LEGS[0].wwn], frozenset({1, 3})))
    assert [alu.content for alu in near] == [alu.content for alu in far]
    assert hashlib.sha256(near[0].content[MIB : MIB + 512]).hexdigest() == GOLDEN


@pytest.mark.parametrize("written_by", [[], [LEGS[0].wwn], [leg.wwn for leg in LEGS]], ids=["here", "one", "both"])
@pytest.mark.parametrize("read_by", [[], [LEGS[1].wwn], [leg.wwn for leg in LEGS]], ids=["here", "one", "both"])
def test_what_one_way_wrote_the_other_reads(written_by: list[Wwn], read_by: list[Wwn]) -> None:
    """D2: a T2 that moves to another storage processor finds the regions that were dirty, and no others."""

    async def scenario() -> None:
        alus = await written(written_by, frozenset({2}))
        async with Engine() as engine:
            for alu in alus:
                alu.closed = False
            legs = [
                leg_log(leg.wwn, leg, unit(alu, leg) if leg.wwn in read_by else alu, read_by)
                for alu, leg in zip(alus, LEGS, strict=True)
            ]
            log = await DirtyLog.load(engine, Geometry.of(MIRROR), legs)
            assert log.dirty_at_open == (2,)

    asyncio.run(scenario())


def test_a_volume_over_a_local_leg_and_a_remote_one_keeps_both_alike() -> None:
    async def nothing(changed: Sequence[AnyObject]) -> None:
        raise AssertionError("no leg has failed")

    async def scenario() -> None:
        near, far = LEGS
        alu = MemoryDriver(DATA * 2, path=near.alu)
        async with Engine() as engine:
            drivers = {near.alu: alu, far.wwn: unit(MemoryDriver(DATA * 2), far)}
            remote = {far.wwn}
            legs = [leg_log(leg.wwn, leg, drivers[where], remote) for leg, where in ((near, near.alu), (far, far.wwn))]
            logs = {MIRROR.wwn: await DirtyLog.create(engine, Geometry.of(MIRROR), legs)}
            volume = Volume(referenced(OBJECTS, remote), drivers, engine, logs, nothing)
            data = memoryview(bytes(range(256)) * 16)
            await volume.submit(Request(Op.WRITE, 3, len(data) // BLOCK_BYTES, data))
            await volume.close()
            assert drivers[far.wwn].content[:DATA] == alu.content[DATA:]

    asyncio.run(scenario())
