"""Every crash of the whole GS set leaves the old state or the new one, on all of its members (R4, M4, M6)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from backstores.metadata.gsformat import RosterEntry, Usage
from backstores.metadata.gsstore import GsStore
from tests.support.gs import Disks, Images, alu, alus, copy_on, record, recorded, started
from tests.support.params import cases

SAMPLES = 3  # torn states at each moment
SECOND_CRASHES = 6  # first states, spread evenly, from which a start is cut, too
MEMBERS = 4

Change = Callable[[GsStore, Disks, random.Random], Awaitable[None]]


async def change(store: GsStore, disks: Disks, dice: random.Random) -> None:
    await store.change(legacy=record(2))


async def admit(store: GsStore, disks: Disks, dice: random.Random) -> None:
    await store.admit(disks.disk(alu(MEMBERS), dice))


async def release(store: GsStore, disks: Disks, dice: random.Random) -> None:
    await store.release(alu(1), RosterEntry(alu(1), "b", Usage.DETACHED, epoch=store.epoch))


async def start(store: GsStore, disks: Disks, dice: random.Random) -> None:
    await started(disks, disks.images, dice)


async def renew(store: GsStore, disks: Disks, dice: random.Random) -> None:
    await store.renew()


async def reform(store: GsStore, disks: Disks, dice: random.Random) -> None:
    await store.reform()


async def mend(store: GsStore, disks: Disks, dice: random.Random) -> None:
    disks.storages[alu(2)].failing = True
    await store.tend()


CHANGES: dict[str, Change] = {
    "change": change,
    "new-member": admit,
    "detach": release,
    "start": start,
    "new-epoch": renew,
    "reform": reform,
    "repair": mend,
}


async def recorded_change(what: Change) -> tuple[Disks, list[Images]]:
    """Carry a change out on a set that holds change 1; give all states in which it may have been cut."""
    disks = Disks.blank(MEMBERS)
    dice = random.Random(1)
    store = await started(disks, disks.images, dice)
    await store.change(legacy=record(1))
    disks.images[alu(MEMBERS)] = {}
    disks.record()
    await what(store, disks, dice)
    return disks, list(disks.crashes(SAMPLES))


async def recover(disks: Disks, images: Images) -> GsStore:
    """Start on all disks as a crash has left them: one image is on all members, and it is old or new."""
    disks.images = {name: dict(content) for name, content in images.items()}
    disks.record()
    store = await started(disks, alus(MEMBERS + 1), random.Random(2))
    assert store.image is not None
    assert recorded(store.image) in (1, 2)
    assert store.image.before == ()
    assert set(store.image.members) == set(alus(MEMBERS + 1))
    held = {copy_on(name, disks.images[name]).image for name in store.image.members}
    assert held == {store.image}
    assert not any(copy_on(name, content).doubt for name, content in disks.images.items())
    return store


@pytest.mark.parametrize("what", cases(CHANGES, slow=["new-member", "detach", "new-epoch", "reform", "repair"]))
def test_a_crash_of_all_members_at_once(what: Change) -> None:
    """M6: at every write of any of them; recovery is cut as well, and starts again."""

    async def scenario() -> None:
        disks, states = await recorded_change(what)
        for images in states:
            await recover(disks, images)
        for images in states[:: max(1, len(states) // SECOND_CRASHES)]:
            await recover(disks, images)
            for again in list(disks.crashes(1)):
                await recover(disks, again)

    asyncio.run(scenario())


def test_an_acknowledged_change_is_never_old() -> None:
    """M4: once it is told, any majority of the members knows it."""

    async def scenario() -> None:
        disks, _ = await recorded_change(change)
        after = {name: dict(content) for name, content in disks.images.items()}
        for away in alus(MEMBERS):
            disks.images = {name: dict(content) for name, content in after.items()}
            store = await started(disks, [name for name in alus(MEMBERS) if name != away])
            assert recorded(store.image) == 2

    asyncio.run(scenario())
