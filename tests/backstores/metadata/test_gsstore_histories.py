"""No history of crashes and absent disks loses what was committed to the GS set, or forks it (R4, M4, M5)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from backstores.metadata.gsformat import GsImage
from backstores.metadata.gsstore import BelowMajorityError, GsStore
from tests.support.gs import Disks, record, recorded, started
from tests.support.metadata import clock
from tests.support.params import cases

HISTORIES = 100
LIVES = 12


@dataclass
class History:
    """Lives of an appliance, one after the other, on the same disks; each has some of them."""

    dice: random.Random
    disks: Disks = field(init=False)
    committed: int = 0  # the last change that may not be lost
    number: int = 0  # of the last change that was tried
    images: dict[tuple[int, int], GsImage] = field(default_factory=dict)
    formed: bool = False
    starts: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disks = Disks.blank(self.dice.randint(1, 8))
        self.disks.on = {name: f"disk {self.dice.randrange(6)}" for name in self.disks.images}

    async def live(self) -> None:
        """Start, change this and that, and end in a crash or cleanly."""
        names = list(self.disks.images)
        self.disks.record()
        store = GsStore(clock())
        acknowledged = []
        try:
            least = max(1, len(names) // 2) if self.formed else len(names)  # an ALU that was never there forms a set
            present = self.dice.sample(names, self.dice.randint(least, len(names)))
            store = await started(self.disks, present, self.dice)
        except BelowMajorityError:
            pass
        self.starts.append(store.held)
        if store.held:
            assert recorded(store.image) >= self.committed, f"change {self.committed} is lost"
            assert not store.stale
            acknowledged.append((len(self.disks.journal), recorded(store.image)))
            for _ in range(self.dice.randrange(5)):
                await self.step(store)
                acknowledged.append((len(self.disks.journal), recorded(store.image)))
        at = self.disks.cut(self.dice) if self.dice.getrandbits(1) else len(self.disks.journal)
        self.formed |= store.held and at == len(self.disks.journal)
        self.committed = max([self.committed, *(number for when, number in acknowledged if when <= at)])
        for image in self.disks.found():
            if image.generation > 1:  # of first images there may be several: they say nothing yet
                assert self.images.setdefault(image.order, image) == image, f"two images of {image.order}"

    async def step(self, store: GsStore) -> None:
        """Do one thing that may change the set; a refusal must leave what is committed as it was."""
        present = list(store.disks)
        away = [name for name in self.disks.images if name not in store.disks]
        before = store.image
        self.number += 1
        try:
            match self.dice.randrange(7):
                case 0 if away:
                    await store.admit(self.disks.disk(self.dice.choice(away), self.dice))
                case 1 if len(present) > 1:
                    self.disks.storages[self.dice.choice(present)].failing = True
                    await store.tend()
                case 2 if len(present) > 1:
                    gone = self.dice.choice(present)
                    await store.release(gone, store.disks[gone].entry)
                case 3:
                    for name in present:
                        self.disks.storages[name].fail_after = self.dice.choice([None, *range(6)])
                    await store.change(legacy=record(self.number))
                case 4:
                    for name in present:
                        self.disks.storages[name].fail_after = self.dice.choice([None, None, *range(6)])
                    await store.renew()
                case _:
                    await store.change(legacy=record(self.number))
                    assert recorded(store.image) == self.number
        except BelowMajorityError:
            assert recorded(store.image) == recorded(before)
        finally:
            for name in present:
                self.disks.storages[name].fail_after = None


@pytest.mark.parametrize("part", cases({str(part): part for part in range(4)}, slow="123"))
def test_no_history_loses_what_was_committed(part: int) -> None:
    """M4, M6: whatever crashes, is absent, fails and returns; nor are there ever two images of one order (M5)."""
    starts = []
    for seed in range(part * HISTORIES, (part + 1) * HISTORIES):
        history = History(random.Random(seed))
        for _ in range(LIVES):
            asyncio.run(history.live())
        starts += history.starts
    assert starts.count(True) > HISTORIES
    assert starts.count(False) > HISTORIES, "the proof needs starts without a majority, too"
