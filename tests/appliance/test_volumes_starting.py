"""What a start makes of ALUs that are missing, that come back, or that fail while a volume is opened."""

from __future__ import annotations

import asyncio

import pytest

from backstores.alu.base import AluOp
from backstores.block import Op, Request
from backstores.metadata.layout import SMALL
from backstores.objects import AnyObject, LegState, MirrorObject, PartitionObject
from tests.support.memory_alus import PATHS, Disks, Site, blank_disks, started

DATA = b"x" * 4096


async def made(disks: Disks) -> tuple[AnyObject, ...]:
    """Make the volume, and stop cleanly."""
    async with started(disks) as found:
        known = await found.volumes.create(found.tree())
        assert known.served is not None
        await known.served.volume.submit(Request(Op.WRITE, 0, 8, memoryview(DATA)))
        await found.volumes.close()
        return known.objects


def leg_states(found: Site) -> list[LegState]:
    [known] = found.volumes.known.values()
    return [leg.state for obj in known.objects if isinstance(obj, MirrorObject) for leg in obj.legs]


def bitmap_start(objects: tuple[AnyObject, ...]) -> int:
    """Give where the bitmaps lie: at the same place on all ALUs."""
    starts = {obj.bitmap.start_bytes for obj in objects if isinstance(obj, PartitionObject) and obj.bitmap is not None}
    [start] = starts
    return start


async def read(found: Site) -> bytes:
    [known] = found.volumes.known.values()
    assert known.served is not None
    data = bytearray(4096)
    await known.served.volume.submit(Request(Op.READ, 0, 8, memoryview(data)))
    return bytes(data)


@pytest.mark.parametrize("path", PATHS)
def test_a_leg_that_takes_no_bitmap_at_start_costs_the_mirror_that_leg(path: str) -> None:
    """R27, D3: the volume comes on line without it, and the next start knows."""

    async def scenario() -> None:
        disks = blank_disks()
        await made(disks)
        fault = disks[path].fail(AluOp.WRITE, offset=SMALL.data_start)
        async with started(disks) as found:
            assert found.states() == {"v": "degraded"}
            assert leg_states(found).count(LegState.FAILED) == 1
            assert await read(found) == DATA
        disks[path].mend(fault)
        async with started(disks) as found:
            assert found.states() == {"v": "degraded"}

    asyncio.run(scenario())


def test_a_mirror_of_which_no_leg_takes_the_bitmap_stays_off_line() -> None:
    async def scenario() -> None:
        disks = blank_disks()
        await made(disks)
        for disk in disks.values():
            disk.fail(AluOp.WRITE, offset=SMALL.data_start)
        async with started(disks) as found:
            assert found.states() == {"v": "off line"}
            assert "dirty-region bitmap" in found.volumes.status()[0].detail
            for disk in disks.values():
                disk.mend()
            await found.volumes.assemble()
            assert found.states()["v"] in ("on line", "degraded")

    asyncio.run(scenario())


def test_a_bitmap_that_can_not_be_read_counts_as_all_dirty() -> None:
    """D2: it costs a copy of everything, and neither the leg nor the volume."""

    async def scenario() -> None:
        disks = blank_disks()
        start = bitmap_start(await made(disks))
        disks["a0"].fail(AluOp.READ, offset=start, length=4096)
        async with started(disks) as found:
            assert found.states() == {"v": "resynchronizing"}
            [known] = found.volumes.known.values()
            assert known.served is not None
            assert known.served.resync is not None
            await known.served.resync
            assert found.states() == {"v": "on line"}
            assert await read(found) == DATA

    asyncio.run(scenario())


async def without_a_leg(disks: Disks, path: str) -> None:
    """Make the volume, and let it lose the leg on an ALU."""
    await made(disks)
    fault = disks[path].fail(AluOp.WRITE, offset=SMALL.data_start)
    async with started(disks) as found:
        assert leg_states(found).count(LegState.FAILED) == 1
    disks[path].mend(fault)


@pytest.mark.parametrize("path", PATHS)
def test_a_failed_leg_whose_alu_is_gone_keeps_nothing_off_line(path: str) -> None:
    """R27: the volume comes up degraded, serves, can be deleted, and stays deleted when the ALU returns."""

    async def scenario() -> None:
        disks = blank_disks()
        await without_a_leg(disks, path)
        gone = disks.pop(path)
        async with started(disks) as found:
            assert found.states() == {"v": "degraded"}
            assert await read(found) == DATA
            [wwn] = found.volumes.known
            await found.volumes.delete(wwn)
            assert found.states() == {}
        async with started({**disks, path: gone}) as found:
            assert found.states() == {}
            assert found.stored() == dict.fromkeys(PATHS, ())

    asyncio.run(scenario())


@pytest.mark.parametrize("path", PATHS)
def test_a_volume_waits_for_a_leg_in_sync_and_says_for_which_alu(path: str) -> None:
    """D3, R30: what is left could be old. The ALU comes back, and the volume comes on line."""

    async def scenario() -> None:
        disks = blank_disks()
        await made(disks)
        gone = disks.pop(path)
        async with started(disks, *PATHS) as found:
            [status] = found.volumes.status()
            assert status.state == "off line"
            assert f"bring back alu {path!r} ({path} does not exist)" in status.detail
            found.engine.disks[path] = gone
            await found.attach(path)
            await found.volumes.assemble()
            assert found.states() == {"v": "on line"}
            assert await read(found) == DATA

    asyncio.run(scenario())


def test_a_volume_that_waits_for_an_alu_nobody_named_says_what_is_missing() -> None:
    """After the settings were lost, only the object's name is known (R3)."""

    async def scenario() -> None:
        disks = blank_disks()
        objects = await made(disks)
        async with started(disks, "a0", "a1", "a2") as found:
            [status] = found.volumes.status()
            assert "attach the alu that holds it" in status.detail
            assert any(obj.wwn in status.detail for obj in objects if isinstance(obj, PartitionObject))
            await found.attach("a3")
            await found.volumes.assemble()
            assert found.states() == {"v": "on line"}

    asyncio.run(scenario())


@pytest.mark.parametrize("path", PATHS)
def test_a_volume_that_is_off_line_can_be_deleted_and_does_not_come_back(path: str) -> None:
    """It may be the only way to get room back. The tombstones wait for the ALU that was away."""

    async def scenario() -> None:
        disks = blank_disks()
        await made(disks)
        gone = disks.pop(path)
        async with started(disks, *PATHS) as found:
            [wwn] = found.volumes.known
            await found.volumes.delete(wwn)
            assert found.states() == {}
            await found.volumes.create(found.tree("w", layout="mirror"))
        async with started(disks, *PATHS) as found:
            assert found.states() == {"w": "on line"}
            found.engine.disks[path] = gone
            await found.attach(path)
            await found.volumes.assemble()
            assert found.states() == {"w": "on line"}, "an older copy of a deleted volume counts for nothing"
            await found.volumes.close()
        async with started({**disks, path: gone}) as found:
            assert found.states() == {"w": "on line"}
            volumes = {getattr(obj, "volume", obj.wwn) for objs in found.stored().values() for obj in objs}
            assert volumes == set(found.volumes.known), "everything else was swept away"

    asyncio.run(scenario())


@pytest.mark.parametrize("missing", [True, False], ids=["an-alu-is-missing", "all-are-there"])
def test_what_no_volume_needs_is_swept_only_when_every_alu_is_there(missing: bool) -> None:
    """R8: partitions of a volume that never came to be; its volume object could be on the ALU that is away."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            for alu in found.inventory:
                parts = [o for o in found.tree() if isinstance(o, PartitionObject) and o.alu == alu.wwn]
                await alu.metadata.commit(parts)
        if missing:
            del disks["a3"]
        async with started(disks, *PATHS) as found:
            assert all(objs for objs in found.stored().values()) is missing

    asyncio.run(scenario())


def test_nothing_is_swept_while_an_alu_has_lost_newer_metadata() -> None:
    """What could not be read may be the volume object that all the rest belongs to."""

    async def scenario() -> None:
        disks = blank_disks()
        await made(disks)
        stored = {}
        async with started(disks) as found:
            for alu in found.inventory:
                await alu.metadata.commit([obj for obj in alu.metadata.objects if isinstance(obj, PartitionObject)])
            stored = found.stored()
        disks["a2"].content[4096 + 512 : 4096 + 513] = b"!"  # anything: the label's first copy
        disks["a2"].content[4096 : 4096 + 64] = bytes(range(64))
        disks["a1"].content[(3 << 20) + 64] ^= 1  # the header of the object region's second copy
        async with started(disks) as found:
            assert found.stored()["a0"] == stored["a0"]

    asyncio.run(scenario())


def test_one_volume_that_can_not_start_holds_no_other_up() -> None:
    """C3."""

    async def scenario() -> None:
        disks = blank_disks()
        await made(disks)
        async with started(disks) as found:
            await found.volumes.create(
                found.tree("w", layout="mirror", alus=[found.statuses()[0].wwn, found.statuses()[1].wwn])
            )
            await found.volumes.close()
        del disks["a3"]
        async with started(disks, *PATHS) as found:
            assert found.states() == {"v": "off line", "w": "on line"}

    asyncio.run(scenario())
