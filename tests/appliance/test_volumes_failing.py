"""Making, growing and deleting volumes while an ALU fails: all or nothing, now and after a restart."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence

import pytest

from appliance.messages import AluState
from appliance.vbm import grow_volume
from backstores.alu.base import AluOp
from backstores.alu.memory import MemoryDriver
from backstores.block import Op, Request
from backstores.errors import TiergateError, UsageError
from backstores.metadata.layout import SMALL
from backstores.objects import MIB, AnyObject, LegState, MirrorObject
from backstores.wwn import Wwn
from tests.support.memory_alus import PATHS, Disks, Site, blank_disks, site, started

Fault = Callable[[MemoryDriver], object]
REGIONS = range(SMALL.regions[0], SMALL.regions[1] + SMALL.region_bytes)
WRITES_OF_A_ROUND = 2  # of a commit into the object region: the body, and then the header
GROWN = 3 * MIB


def commits(rounds: int, times: int | None, number: int = errno.EIO) -> Fault:
    """Let an ALU take the commits of so many rounds, and then fail at writes to its object region."""

    def apply(disk: MemoryDriver) -> None:
        left = iter(range(rounds * WRITES_OF_A_ROUND))
        real = disk.writev

        async def writev(views: Sequence[memoryview], offset: int, durable: bool) -> int:
            if offset in REGIONS and next(left, None) is None:
                disk.writev = real  # type: ignore[method-assign]
                disk.fail(AluOp.WRITE, number, offset=REGIONS.start, length=len(REGIONS), times=times)
            return await real(views, offset, durable)

        disk.writev = writev  # type: ignore[method-assign]

    return apply


def full(disk: MemoryDriver) -> None:
    disk.room_bytes = len(disk.mapped) * 4096


FAULTS: dict[str, Fault] = {
    "discard": lambda disk: disk.fail(AluOp.DISCARD),
    "bitmap": lambda disk: disk.fail(AluOp.WRITE, offset=SMALL.data_start),
    "no-space": full,
    "first-commit": commits(0, None),
    "first-commit-once": commits(0, 1),
    "second-commit": commits(1, None),
    "second-commit-once": commits(1, 1),
    "flush": lambda disk: disk.fail(AluOp.FLUSH),
}


def dying(flushes: int) -> Fault:
    """Let an ALU die at a flush: what it was given until then is on it, and nothing more will be."""

    def apply(disk: MemoryDriver) -> None:
        left = iter(range(flushes))
        real = disk.sync

        async def sync() -> int:
            if next(left, None) is None:
                disk.fail(AluOp.WRITE)
                return -errno.EIO
            return await real()

        disk.sync = sync  # type: ignore[method-assign]

    return apply


FAULTS |= {f"dies-at-flush-{number}": dying(number) for number in range(6)}  # two rounds of two, two of the table


def mend(disk: MemoryDriver) -> None:
    for patched in ("sync", "writev"):
        vars(disk).pop(patched, None)
    disk.mend()
    disk.room_bytes = None


async def grow(found: Site, wwn: Wwn) -> None:
    await found.volumes.replace(grow_volume(found.volumes.by_wwn(wwn).objects, 2 * MIB, found.statuses()).objects)


@pytest.mark.parametrize("path", ["a0", "a3"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_volume_that_could_not_be_made_leaves_nothing(fault: Fault, path: str) -> None:
    """R13: one of four ALUs fails, in every way; neither a volume runs, nor does a restart find one."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            fault(disks[path])
            with pytest.raises(TiergateError):
                await found.volumes.create(found.tree())
            assert found.states() == {}
            mend(disks[path])
        async with started(disks) as found:
            assert found.states() == {}
            assert found.stored() == dict.fromkeys(PATHS, ())
            await found.volumes.create(found.tree())
            assert found.states() == {"v": "on line"}

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["a0", "a3"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_volume_that_could_not_grow_goes_on_as_it_was(fault: Fault, path: str) -> None:
    """R16: the old tree serves, now and after a restart, and grows when the ALU is well again."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            known = await found.volumes.create(found.tree())
            fault(disks[path])
            with pytest.raises(TiergateError):
                await grow(found, known.head.wwn)
            assert found.states() == {"v": "on line"}
            assert known.head.blocks * 512 == MIB
            assert known.served is not None
            assert known.served.volume.objects == known.objects
            healthy = {obj.wwn for other, objs in found.stored().items() if other != path for obj in objs}
            assert healthy <= {obj.wwn for obj in known.objects}, "what was new is gone at once"
            mend(disks[path])
            await found.volumes.close()
        async with started(disks) as found:
            [known] = found.volumes.known.values()
            assert known.head.blocks * 512 == MIB
            assert found.states()["v"] in ("on line", "degraded")  # a failed flush costs the volume that leg (D1)
            assert {obj.wwn for objs in found.stored().values() for obj in objs} == {o.wwn for o in known.objects}
            await grow(found, known.head.wwn)
            assert known.head.blocks * 512 == GROWN

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["now", "after a restart"])
def test_a_volume_that_could_not_grow_may_grow_later(way: str) -> None:
    """The generations that were tried are never used again: two ALUs would contradict each other."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            known = await found.volumes.create(found.tree())
            commits(1, 2, errno.ENOSPC)(disks["a2"])  # the second round, and once more when it is taken back
            with pytest.raises(TiergateError):
                await grow(found, known.head.wwn)
            mend(disks["a2"])
            if way == "now":
                await grow(found, known.head.wwn)
        async with started(disks) as found:
            [known] = found.volumes.known.values()
            assert found.states() == {"v": "on line"}
            assert (known.head.blocks * 512 == GROWN) is (way == "now")

    asyncio.run(scenario())


def test_a_leg_that_fails_while_a_volume_grows_stays_failed() -> None:
    """D3: the tree that the management asks for was made before the failure; the newer mirror counts."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            known = await found.volumes.create(found.tree())
            larger = grow_volume(known.objects, 2 * MIB, found.statuses()).objects
            assert known.served is not None
            await fail_a_write(disks, found, known.objects)
            assert leg_states(known.objects).count(LegState.FAILED) == 1
            await found.volumes.replace(larger)
            assert leg_states(known.objects).count(LegState.FAILED) == 1
            assert known.served.volume.objects == known.objects

    asyncio.run(scenario())


def leg_states(objects: tuple[AnyObject, ...]) -> list[LegState]:
    return [leg.state for obj in objects if isinstance(obj, MirrorObject) for leg in obj.legs]


async def fail_a_write(disks: Disks, found: Site, objects: tuple[AnyObject, ...]) -> None:
    """Let a1, a leg of the first mirror, refuse what a host writes, and take metadata as before."""
    fault = disks["a1"].fail(AluOp.WRITE, offset=SMALL.data_start)
    [known] = found.volumes.known.values()
    assert known.served is not None
    for lba in (0, 128):
        await known.served.volume.submit(Request(Op.WRITE, lba, 8, memoryview(b"x" * 4096)))
    disks["a1"].mend(fault)


DELETE_FAULTS = {name: FAULTS[name] for name in ("no-space", "first-commit", "second-commit", "flush")}


@pytest.mark.parametrize("fault", DELETE_FAULTS.values(), ids=DELETE_FAULTS)
def test_a_deleted_volume_stays_deleted_though_an_alu_did_not_hear_of_it(fault: Fault) -> None:
    """M6: a tombstone outvotes the copies on the ALU that failed, and goes when that one is well again."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            known = await found.volumes.create(found.tree())
            fault(disks["a3"])
            await found.volumes.delete(known.head.wwn)
            assert found.states() == {}
            mend(disks["a3"])
        async with started(disks) as found:
            assert found.states() == {}
            assert found.stored() == dict.fromkeys(PATHS, ())

    asyncio.run(scenario())


def test_volumes_are_deleted_though_no_file_system_has_room() -> None:
    """Each change of the objects takes room in the log: one that makes room must not wait for it."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            for number in range(24):
                await found.volumes.create(found.tree(f"v{number}", 65536, layout="linear"))
            for disk in disks.values():
                full(disk)
            for wwn in list(found.volumes.known):
                await found.volumes.delete(wwn)
            for disk in disks.values():
                assert disk.room_bytes is not None
                assert len(disk.mapped) * 4096 <= disk.room_bytes
                mend(disk)
        async with started(disks) as found:
            assert found.states() == {}
            assert found.stored() == dict.fromkeys(PATHS, ())

    asyncio.run(scenario())


def test_a_volume_that_no_alu_lets_go_is_still_there() -> None:
    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            known = await found.volumes.create(found.tree())
            for disk in disks.values():
                disk.fail(AluOp.FLUSH)
            with pytest.raises(TiergateError):
                await found.volumes.delete(known.head.wwn)
            assert found.states() == {"v": "off line"}
            assert "could not be deleted" in found.volumes.status()[0].detail
            for disk in disks.values():
                disk.mend()
            await found.volumes.delete(known.head.wwn)
            assert found.stored() == dict.fromkeys(PATHS, ())

    asyncio.run(scenario())


def test_an_alu_that_fails_a_commit_is_failed_until_one_succeeds() -> None:
    """R1: the state and its reason are listed; new volumes go elsewhere meanwhile."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            commits(0, None)(disks["a0"])
            with pytest.raises(TiergateError):
                await found.volumes.create(found.tree())
            [status] = [status for status in found.statuses() if status.state is AluState.FAILED]
            assert (status.path, "write at byte" in status.detail) == ("a0", True)
            with pytest.raises(UsageError, match="there are 3"):
                found.tree()
            mend(disks["a0"])
        async with started(disks) as found:
            assert {status.state for status in found.statuses()} == {AluState.OWNED}

    asyncio.run(scenario())


def test_room_that_is_taken_is_refused_before_anything_is_emptied() -> None:
    """A tree made from an old inventory must not punch holes into a volume."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            stale = found.tree("w")
            await found.volumes.create(found.tree())
            for disk in disks.values():
                disk.log.clear()
            with pytest.raises(UsageError, match="bytes free"):
                await found.volumes.create(stale)
            assert not any(disk.seen(AluOp.DISCARD) or disk.seen(AluOp.WRITE) for disk in disks.values())

    asyncio.run(scenario())


def test_a_name_that_is_taken_is_refused() -> None:
    async def scenario() -> None:
        async with started(blank_disks()) as found:
            await found.volumes.create(found.tree())
            with pytest.raises(UsageError, match="there is a volume 'v' already"):
                await found.volumes.create(found.tree())

    asyncio.run(scenario())


@pytest.mark.parametrize("operation", ["replace", "delete"])
def test_a_volume_that_is_not_there_is_refused(operation: str) -> None:
    calls: dict[str, Callable[[Site, tuple[AnyObject, ...]], Awaitable[object]]] = {
        "replace": lambda found, tree: found.volumes.replace(tree),
        "delete": lambda found, tree: found.volumes.delete(tree[0].wwn),
    }

    async def scenario() -> None:
        async with started(blank_disks()) as found:
            with pytest.raises(UsageError, match="there is no volume"):
                await calls[operation](found, found.tree())

    asyncio.run(scenario())


def test_an_inventory_without_alus_starts() -> None:
    async def scenario() -> None:
        async with site({}) as found:
            await found.volumes.assemble()
            assert found.states() == {}

    asyncio.run(scenario())


def test_no_space_is_no_fault_of_the_alu() -> None:
    """A full file system is told to whoever asked; the ALU may be used when there is room."""

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            commits(0, None, errno.ENOSPC)(disks["a0"])
            with pytest.raises(TiergateError, match="No space left"):
                await found.volumes.create(found.tree())
            assert {status.state for status in found.statuses()} == {AluState.OWNED}

    asyncio.run(scenario())
