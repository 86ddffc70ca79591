"""A GS set on disks in memory, and what a power cut leaves of all of them at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from backstores.errors import TiergateError
from backstores.metadata.gscopy import POINTERS, Copy, parse_pointers, recover
from backstores.metadata.gsformat import GsImage, LegacyRecord, RosterEntry
from backstores.metadata.gsstore import GsDisk, GsStore
from backstores.objects import MIB
from backstores.wwn import Wwn, new_device_wwn
from tests.support.metadata import clock
from tests.support.recording import SECTOR, Event, Image, RecordingStorage, StorageFailed, put, read
from tests.support.tally import CRASH_STATES

SIZE = 2 * MIB
FENCE = 12 * 1024  # where these disks keep their epoch

Images = dict[Wwn, Image]
Journal = list[tuple[Wwn, Event]]


def alu(number: int) -> Wwn:
    """Name the ALU of a number."""
    return new_device_wwn(lambda bits: number + 1)


def alus(count: int) -> tuple[Wwn, ...]:
    """Name the first ALUs."""
    return tuple(alu(number) for number in range(count))


def image(count: int, *, epoch: int = 1, generation: int = 1, before: Sequence[Wwn] = ()) -> GsImage:
    """Make an image of this many members."""
    roster = tuple(RosterEntry(one, f"/disks/{one}", epoch=epoch) for one in alus(count))
    return GsImage(epoch, generation, 1_700_000_000_000_000_000 + generation, alus(count), tuple(before), roster)


class JournalStorage(RecordingStorage):
    """Notes its events in one order with those of other disks, too, and lets these go ahead now and then."""

    def __init__(self, name: Wwn, content: Image, journal: Journal, dice: random.Random) -> None:
        super().__init__(SIZE, content)
        self.failing = False  # answers everything with an error
        self.reads: list[tuple[int, int]] = []
        self._name = name
        self._journal = journal
        self._dice = dice

    async def read(self, offset: int, length: int) -> bytes:
        self._answer()
        self.reads.append((offset, length))
        return await super().read(offset, length)

    async def write(self, offset: int, data: bytes) -> None:
        await self._dawdle()
        await super().write(offset, data)
        self._journal.append((self._name, self.events[-1]))

    async def flush(self) -> None:
        await self._dawdle()
        await super().flush()
        self._journal.append((self._name, self.events[-1]))

    async def _dawdle(self) -> None:
        for _ in range(self._dice.randrange(4)):
            await asyncio.sleep(0)
        self._answer()

    def _answer(self) -> None:
        if self.failing:
            raise StorageFailed("input/output error")


@dataclass
class StoredFence:
    """The epoch of a disk, in a sector of its own."""

    storage: JournalStorage
    epoch: int = 0

    def __post_init__(self) -> None:
        self.epoch = epoch_on(self.storage.image)

    async def fence(self, epoch: int, own: int | None = None) -> None:
        async with self.writing(epoch if own is None else own):
            await self.storage.write(FENCE, epoch.to_bytes(8, "little").ljust(4096, b"\0"))
            await self.storage.flush()
            self.epoch = epoch

    @asynccontextmanager
    async def writing(self, epoch: int) -> AsyncIterator[None]:
        if epoch_on(self.storage.image) > epoch:
            raise TiergateError(f"fenced by epoch {epoch_on(self.storage.image)}")
        yield


def epoch_on(content: Image) -> int:
    """Give the epoch that a disk was fenced with."""
    return int.from_bytes(read(content, FENCE, 8), "little")


def copy_on(name: Wwn, content: Image) -> Copy:
    """Read what a disk holds of the set."""
    pointers = parse_pointers(read(content, POINTERS.start_bytes, POINTERS.length_bytes), name)
    return recover(name, pointers, [read(content, e.start_bytes, e.length_bytes) for e in pointers.extents])


@dataclass
class Disks:
    """Disks that outlive the stores on them. ``on`` says on which disk an ALU lies, where that is not its own."""

    images: Images
    on: dict[Wwn, str] = field(default_factory=dict)
    generations: dict[Wwn, int] = field(default_factory=dict)
    before: Images = field(default_factory=dict)
    journal: Journal = field(default_factory=list)
    storages: dict[Wwn, JournalStorage] = field(default_factory=dict)

    @classmethod
    def blank(cls, count: int) -> Disks:
        """Make new ones."""
        return cls({one: {} for one in alus(count)})

    def disk(self, name: Wwn, dice: random.Random | None = None) -> GsDisk:
        """Open one."""
        storage = JournalStorage(name, self.images[name], self.journal, dice or random.Random(0))
        self.storages[name] = storage
        return GsDisk(
            name, f"/disks/{name}", self.on.get(name, name), storage, StoredFence(storage), self.generation(name)
        )

    def generation(self, name: Wwn) -> int:
        """Give the generation of its objects."""
        return self.generations.get(name, 0)

    def record(self) -> None:
        """From now on is what ``cut`` may undo."""
        self.before = {name: dict(content) for name, content in self.images.items()}
        self.journal.clear()

    def cut(self, dice: random.Random) -> int:
        """Cut the power at a random moment since ``record``; say at which: how much of the journal was begun."""
        CRASH_STATES.one()
        at = dice.randrange(len(self.journal) + 1)
        self.images.update(self._at(at, "some", dice))
        return at

    def crashes(self, samples: int) -> Iterator[Images]:
        """Yield what a power cut leaves at every moment since ``record``: unflushed writes lost, there, or torn."""
        dice = random.Random(len(self.journal))
        for at in range(len(self.journal) + 1):
            for keep in ("nothing", "everything", *["some"] * samples):
                CRASH_STATES.one()
                yield self._at(at, keep, dice)

    def _at(self, at: int, keep: str, dice: random.Random) -> Images:
        durable = {name: dict(content) for name, content in self.before.items()}
        pending: Journal = []
        for name, event in self.journal[:at]:
            if event.offset is None:
                for _, write in (entry for entry in pending if entry[0] == name):
                    put(durable[name], write.offset or 0, write.data)
                pending = [entry for entry in pending if entry[0] != name]
            else:
                pending.append((name, event))
        for name, write in pending:
            for skip in range(0, len(write.data), SECTOR):
                if keep == "everything" or (keep == "some" and dice.getrandbits(1)):
                    put(durable[name], (write.offset or 0) + skip, write.data[skip : skip + SECTOR])
        return durable

    def found(self) -> list[GsImage]:
        """Read the images on all disks."""
        copies = (copy_on(name, content) for name, content in self.images.items())
        return [copy.image for copy in copies if copy.image is not None]


async def started(disks: Disks, names: Iterable[Wwn], dice: random.Random | None = None) -> GsStore:
    """Start a store on the disks that are there.

    Raises:
        BelowMajorityError: it can't be changed.
    """
    store = GsStore(clock())
    await store.start([disks.disk(name, dice) for name in names])
    return store


def record(number: int) -> tuple[LegacyRecord, ...]:
    """Make metadata of a legacy ALU that tells one change from another."""
    return (LegacyRecord(alu(100), number.to_bytes(4, "little")),)


def recorded(found: GsImage | None) -> int:
    """Tell which change an image holds; zero if none ever."""
    return int.from_bytes(found.legacy[0].body, "little") if found is not None and found.legacy else 0
