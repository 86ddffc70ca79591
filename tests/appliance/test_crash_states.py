"""A power cut at any write of a change over four ALUs: the old volume or the new one, whole, never a half (M6)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from appliance.vbm import grow_volume
from backstores.alu.base import AluOp
from backstores.block import Op, Request
from backstores.objects import MIB, AnyObject, MirrorObject, PartitionObject
from backstores.wwn import Wwn
from tests.support.memory_alus import Disks, Images, Site, blank_disks, crashes, fill, record, started
from tests.support.params import cases

Change = Callable[[Site], Awaitable[None]]
View = frozenset[AnyObject]

LEAST_ORDERS = 3  # in which the ALUs' writes are interleaved; more where one has few states
LEAST_STATES = 100


async def nothing(found: Site) -> None:
    """Leave the ALUs as they are once claimed."""


async def create(found: Site) -> None:
    await found.volumes.create(found.tree())


async def create_second(found: Site) -> None:
    await found.volumes.create(found.tree("w"))


async def grow(found: Site) -> None:
    [known] = found.volumes.known.values()
    await found.volumes.replace(grow_volume(known.objects, 2 * MIB, found.statuses()).objects)


async def delete(found: Site) -> None:
    [wwn] = found.volumes.known
    await found.volumes.delete(wwn)


async def lose_a_leg(found: Site) -> None:
    """Let one leg of the first mirror refuse a write."""
    [known] = found.volumes.known.values()
    assert known.served is not None
    mirror = next(obj for obj in known.objects if isinstance(obj, MirrorObject))
    leg = next(obj for obj in known.objects if obj.wwn == mirror.legs[1].child)
    assert isinstance(leg, PartitionObject)
    disk = found.engine.disks[found.inventory.owned(leg.alu).driver.path]
    disk.fail(AluOp.WRITE, offset=leg.extent.start_bytes)
    await known.served.volume.submit(Request(Op.WRITE, 0, 8, memoryview(b"x" * 4096)))


HISTORIES: dict[str, tuple[list[Change], Change]] = {
    "create": ([nothing], create),
    "create-beside-another": ([create], create_second),
    "grow": ([create], grow),
    "grow-again": ([create, grow], grow),
    "delete": ([create], delete),
    "delete-a-grown-one": ([create, grow], delete),
    "lose-a-leg": ([create], lose_a_leg),
    "grow-without-a-leg": ([create, lose_a_leg], grow),
}
LONG_ONES = ("create-beside-another", "grow-again", "delete-a-grown-one", "grow-without-a-leg")


def blank() -> Images:
    return {path: {} for path in ("a0", "a1", "a2", "a3")}


async def look(disks: Disks, images: Images) -> tuple[View, set[Wwn]]:
    """Start on these ALUs: give the volumes, which must all be whole and on line, and what is stored."""
    async with started(fill(disks, images)) as found:
        for status in found.volumes.status():
            assert status.state != "off line", status.detail
        objects = {obj for status in found.volumes.status() for obj in status.objects}
        stored = {obj.wwn for objs in found.stored().values() for obj in objs}
        await found.volumes.close()
        return frozenset(objects), stored


@pytest.mark.parametrize(("history", "change"), cases(HISTORIES, slow=LONG_ONES))
def test_a_power_cut_leaves_the_old_volume_or_the_new_one(history: list[Change], change: Change) -> None:
    """M6, R3: and what it leaves over takes no room after the next start (R8)."""

    async def scenario() -> None:
        images, disks = blank(), blank_disks()
        for earlier in history:
            _, images = await record(images, earlier)
        states = 0
        for order in itertools.count():
            if order >= LEAST_ORDERS and states >= LEAST_STATES:
                break
            recorded, after = await record(images, change, order)
            (old, _), (new, _) = await look(disks, recorded.before), await look(disks, after)
            assert old != new
            seen = []
            for number, cut in enumerate(crashes(recorded)):
                volumes, stored = await look(disks, cut)
                assert volumes in (old, new), (order, number)
                assert stored == {obj.wwn for obj in volumes}, "something was left over"
                seen.append(volumes == new)
            assert (seen[0], seen[-1]) == (False, True)
            states += len(seen)

    asyncio.run(scenario())


def test_an_alu_that_runs_ahead_of_the_others_would_be_noticed() -> None:
    """These proofs can fail: a volume object that is stored before its tree is half a volume."""

    async def scenario() -> None:
        _, images = await record(blank(), nothing)
        recorded, _ = await record(images, create)
        recorded.journal.sort(key=lambda entry: entry[0])
        disks, found_states = blank_disks(), []
        for cut in crashes(recorded):
            async with started(fill(disks, cut)) as found:
                found_states.append(found.states())
                await found.volumes.close()
        assert {"v": "off line"} in found_states

    asyncio.run(scenario())
