"""Storage processors on ALUs in memory, and every state in which a power cut can leave several of them at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from appliance.inventory import Inventory
from appliance.legacy import LegacyAlus
from appliance.messages import AluStatus
from appliance.vbm import VolumeRequest, build_volume
from appliance.volumes import Volumes
from backstores.alu.base import PAGE_BYTES, AluDriver
from backstores.alu.memory import MemoryDriver
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.objects import MIB, AnyObject
from backstores.scsi.store import MemoryStore
from tests.support.legacy import MemoryRecords
from tests.support.recording import SECTOR, Event, Image, put
from tests.support.tally import CRASH_STATES

SUSID = "memory"
PATHS = ("a0", "a1", "a2", "a3")
SIZE = 20 * MIB
SAMPLES = 12  # states that mix whole, torn and missing writes, at each moment

Disks = dict[str, MemoryDriver]
Images = dict[str, Image]


class MemoryEngine(Engine):
    """An engine for which every path names an ALU in memory."""

    def __init__(self, disks: Disks) -> None:
        super().__init__()
        self.disks = disks

    async def open(
        self, path: str, *, size_bytes: int | None = None, grow: bool = False, direct: bool | None = None
    ) -> AluDriver:
        if path not in self.disks:
            raise UsageError(f"{path} does not exist")
        disk = self.disks[path]
        disk.closed = False
        return disk


class RecordingDriver(MemoryDriver):
    """Remembers its writes and flushes, in one order with those of other ALUs, as (path, event)."""

    def __init__(self, size_bytes: int, path: str, journal: list[tuple[str, Event]], dice: random.Random) -> None:
        super().__init__(size_bytes, path=path, immediate=False)
        self._journal = journal
        self._dice = dice

    async def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> int:
        await self._dawdle()
        answer = await super().writev(views, offset, durable)
        if answer > 0:
            self._note(offset, b"".join(views)[:answer])
            if durable:
                self._note(None)
        return answer

    async def sync(self) -> int:
        await self._dawdle()
        answer = await super().sync()
        if answer == 0:
            self._note(None)
        return answer

    async def _dawdle(self) -> None:
        for _ in range(self._dice.randrange(8)):
            await asyncio.sleep(0)

    def _note(self, offset: int | None, data: bytes = b"") -> None:
        self._journal.append((self.path, Event(offset, data)))


@dataclass
class Site:
    """A storage processor's inventory and volumes."""

    engine: MemoryEngine
    inventory: Inventory
    volumes: Volumes

    async def attach(self, *paths: str) -> None:
        """Open ALUs, blank ones by a claim, as the management does at start: what is not there is missing."""
        for path in paths:
            try:
                alu = await self.inventory.attach(path)
            except UsageError as error:
                self.inventory.missing[path] = str(error)
                continue
            if not alu.owned:
                await self.inventory.claim(path, force=False)

    async def start(self, *paths: str) -> None:
        """Do what a storage processor does at its start."""
        await self.attach(*(paths or PATHS))
        await self.volumes.assemble()

    def statuses(self) -> list[AluStatus]:
        """Describe the ALUs."""
        return [alu.status() for alu in self.inventory]

    def tree(self, name: str = "v", size_bytes: int = MIB, **options: str | int) -> tuple[AnyObject, ...]:
        """Have the VBM build a volume: a stripe over two mirrors unless told otherwise."""
        request = {"layout": "stripe-mirror", **options}
        wanted = msgspec.convert({"name": name, "size_bytes": size_bytes, **request}, VolumeRequest)
        return build_volume(wanted, self.statuses()).objects

    def stored(self) -> dict[str, tuple[AnyObject, ...]]:
        """Give what each owned ALU holds."""
        return {alu.driver.path: alu.metadata.objects for alu in self.inventory if alu.owned}

    def states(self) -> dict[str, str]:
        """Give each volume's state, by its name."""
        return {status.name: str(status.state) for status in self.volumes.status()}


@asynccontextmanager
async def site(disks: Disks) -> AsyncIterator[Site]:
    """Run one; without a clean stop of its volumes, that is a crash."""
    async with MemoryEngine(disks) as engine:
        inventory = Inventory(engine, SUSID)
        yield Site(
            engine, inventory, Volumes(engine, inventory, LegacyAlus(engine, SUSID, MemoryRecords()), MemoryStore())
        )


@asynccontextmanager
async def started(disks: Disks, *paths: str) -> AsyncIterator[Site]:
    """Run one that has been started."""
    async with site(disks) as found:
        await found.start(*paths)
        yield found


def blank_disks(*paths: str, size_bytes: int = SIZE) -> Disks:
    """Make blank ALUs."""
    return {path: MemoryDriver(size_bytes, path=path) for path in paths or PATHS}


def fill(disks: Disks, images: Images) -> Disks:
    """Make ALUs hold these images and nothing else. (A new one costs more than a start on four of them.)"""
    for path, disk in disks.items():
        for page in disk.mapped:
            disk.content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
        disk.mapped.clear()
        disk.log.clear()
        for sector, data in images[path].items():
            disk.content[sector * SECTOR : (sector + 1) * SECTOR] = data
            disk.mapped.add(sector * SECTOR // PAGE_BYTES)
    return disks


def image_of(disk: MemoryDriver) -> Image:
    """Give the content of an ALU as sectors."""
    image: Image = {}
    for page in disk.mapped:
        put(image, page * PAGE_BYTES, bytes(disk.content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]))
    return image


@dataclass
class Recorded:
    """What a change did to the ALUs: how they were, and all its writes in their order."""

    before: Images
    journal: list[tuple[str, Event]] = field(default_factory=list)


async def record(images: Images, change: Callable[[Site], Awaitable[None]], seed: int = 0) -> tuple[Recorded, Images]:
    """Start on ALUs with these images, make a change, and give what it wrote and what the ALUs hold then.

    What runs side by side on several ALUs is interleaved by ``seed``.
    """
    recorded = Recorded(images)
    dice = random.Random(seed)
    disks: Disks = {path: RecordingDriver(SIZE, path, recorded.journal, dice) for path in images}
    async with started(fill(disks, images)) as found:
        recorded.before = {path: image_of(disk) for path, disk in disks.items()}
        recorded.journal.clear()
        await change(found)
        return recorded, {path: image_of(disk) for path, disk in disks.items()}


def crashes(recorded: Recorded) -> Iterator[Images]:
    """Yield what a power cut leaves: before each write and flush of any ALU, unflushed writes kept, lost or torn."""
    seen = set()
    for images in _cuts(recorded):
        key = tuple(frozenset(image.items()) for image in images.values())
        if key not in seen:
            seen.add(key)
            CRASH_STATES.one()
            yield images


def _cuts(recorded: Recorded) -> Iterator[Images]:
    dice = random.Random(len(recorded.journal))
    durable = {path: dict(image) for path, image in recorded.before.items()}
    pending: list[tuple[str, Event]] = []
    yield durable
    for path, event in recorded.journal:
        if event.offset is None:
            for _, write in (entry for entry in pending if entry[0] == path):
                assert write.offset is not None
                put(durable[path], write.offset, write.data)
            pending = [entry for entry in pending if entry[0] != path]
        else:
            pending.append((path, event))
        for keep in ("nothing", "everything", *["some"] * SAMPLES):
            yield _cut(durable, pending, keep, dice)


def _cut(durable: Images, pending: list[tuple[str, Event]], keep: str, dice: random.Random) -> Images:
    images = {path: dict(image) for path, image in durable.items()}
    for path, write in pending:
        assert write.offset is not None
        for at in range(0, len(write.data), SECTOR):
            if keep == "everything" or (keep == "some" and dice.getrandbits(1)):
                put(images[path], write.offset + at, write.data[at : at + SECTOR])
    return images
