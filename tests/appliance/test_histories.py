"""Random histories with the real store: crashes at any write, ALUs that are away, come late, or are old copies.

A history is a row of sessions. In each the appliance starts on the ALUs that are there, people change volumes, legs
fail, an ALU comes late; then power fails at a random write of the session, its start included, or it stops cleanly.
What must hold: what was acknowledged is there, or named with what it waits for; what was deleted never comes back;
nothing overlaps; and mending comes to rest. Sessions have a majority of the ALUs, as the GS set asks for (M4). It is
the real set, which tells older copies, too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from appliance.globalset import GlobalSet
from appliance.messages import GsState
from appliance.vbm import grow_volume
from appliance.volumes import Known
from backstores.alu.base import AluOp
from backstores.block import Op, Request
from backstores.errors import UsageError
from backstores.metadata import gscopy
from backstores.metadata import label as labels
from backstores.metadata.findings import Problem
from backstores.metadata.inspection import copies_at, directory_of
from backstores.metadata.layout import label_addresses
from backstores.metadata.mdr import Directory
from backstores.metadata.mends import mends
from backstores.metadata.merge import system_image
from backstores.objects import MIB, AnyObject, LegState, MirrorObject, PartitionObject
from backstores.wwn import Wwn
from tests.support.fuzzing import TIMES, first_seed, named
from tests.support.memory_alus import PATHS, SIZE, Disks, Images, RecordingDriver, Site, fill, site
from tests.support.metadata import answered
from tests.support.recording import SECTOR, Event, Image, put
from tests.support.tally import CRASH_STATES

HISTORIES = 1000 * TIMES
PARTS = 8  # of all histories, each a test of its own
SESSIONS = 5
MAJORITY = 3
LAYOUTS = ("linear", "concat", "mirror", "stripe", "stripe-mirror")

Tree = frozenset[AnyObject]
"""A volume's second-tier objects: they name the partitions, which never change."""


@dataclass
class Expected:
    """What is known of a volume: the trees that may be found, and whether it may be gone."""

    trees: set[Tree]
    may_be_gone: bool = False


@dataclass(frozen=True)
class Change:
    """What somebody asked for: a tree, or None for a deletion; the journal's length when it began and when it ended."""

    volume: Wwn
    tree: Tree | None
    began: int
    ended: int


@dataclass(frozen=True)
class Copy:
    """An ALU as it once was."""

    path: str
    image: Image
    directory: Directory


@dataclass
class History:
    """The ALUs between two sessions, and what must be found on them."""

    dice: random.Random
    disks: Disks
    journal: list[tuple[str, Event]]
    images: Images = field(default_factory=lambda: {path: {} for path in PATHS})
    volumes: dict[Wwn, Expected] = field(default_factory=dict)
    deleted: set[Wwn] = field(default_factory=set)
    sessions: int = 0
    returns: int = 0  # of older copies
    copies: list[Copy] = field(default_factory=list)
    repeated_deletion: bool = False  # one that was cut short: its tombstone may wait for ever

    def happened(self, change: Change, cut: int) -> None:
        """Take a change into account that had begun when power failed."""
        wanted = self.volumes.setdefault(change.volume, Expected(set(), may_be_gone=True))
        done = change.ended <= cut
        if change.tree is None:
            self.repeated_deletion |= wanted.may_be_gone
            wanted.may_be_gone = True
            if done:
                del self.volumes[change.volume]
                self.deleted.add(change.volume)
        elif done:
            self.volumes[change.volume] = Expected({change.tree})
        else:
            wanted.trees.add(change.tree)

    def settle(self, found: Mapping[Wwn, Tree | None]) -> None:
        """Take into account what a start with all ALUs has made of changes that were cut short."""
        for wwn, tree in found.items():
            if tree is not None:
                self.volumes[wwn] = Expected({tree})
            else:
                del self.volumes[wwn]
                self.deleted.add(wwn)


@dataclass
class Session:
    """One run of the appliance."""

    history: History
    found: Site
    gs: GlobalSet
    journal: list[tuple[str, Event]]
    changes: list[Change] = field(default_factory=list)
    settled: dict[Wwn, Tree | None] = field(default_factory=dict)  # what the start has made of changes cut short
    settled_at: int | None = None  # the journal's length then; None if not every ALU was there

    async def start(self) -> bool:
        """Start as the appliance does: what is an older copy of itself is set aside. Say whether it mended anything."""
        self.history.sessions += 1
        await self.found.attach(*PATHS)
        await self.gs.start()
        assert self.gs.status().state is GsState.READY, "a majority is there"
        before = self.found.stored()
        await self.found.volumes.assemble()
        self.judge()
        return self.found.stored() != before

    def judge(self) -> None:
        """Hold what was found against what must be."""
        history, inventory = self.history, self.found.inventory
        records = inventory.records()
        image = system_image(records)
        assert mends(records, image, inventory.complete) == [], "mending has not come to rest"
        assert not {finding.problem for record in records for finding in record.findings} & {Problem.OVERLAP}
        trees = {tree.volume.wwn: tree for tree in image.volumes}
        assert not trees.keys() & history.deleted, "a deleted volume is back"
        for wwn, expected in history.volumes.items():
            tree = trees.pop(wwn, None)
            if tree is None:
                assert expected.may_be_gone or not inventory.complete
                self.settled[wwn] = None
            elif tree.complete:
                assert upper(tree.objects) in expected.trees, "a tree that nobody made"
                assert self.found.volumes.known[wwn].served is not None, self.found.volumes.known[wwn].reason
                self.settled[wwn] = upper(tree.objects)
            else:
                assert not inventory.complete
                assert tree.missing
                known = self.found.volumes.known[wwn]
                assert known.served is not None or "bring back" in known.reason
        assert not trees, "a volume that nobody made"
        self.settled_at = len(self.journal) if inventory.complete else None
        if inventory.complete and not history.repeated_deletion:
            stored = {obj for objects in self.found.stored().values() for obj in objects}
            assert stored == {obj for tree in image.volumes for obj in tree.objects}, "something is left over"

    async def live(self) -> None:
        """Do a few things."""
        doings: tuple[Callable[[], Awaitable[None]], ...] = (
            self.create,
            self.create,
            self.grow,
            self.delete,
            self.lose_a_leg,
            self.come_late,
        )
        for _ in range(self.history.dice.randint(1, 3)):
            await self.gs.ready()
            await self.history.dice.choice(doings)()

    def note(self, known: Known, began: int) -> None:
        self.changes.append(Change(known.head.wwn, upper(known.objects), began, len(self.journal)))

    def pick(self, on_line: bool) -> Known | None:
        some = [known for known in self.found.volumes.known.values() if known.served is not None or not on_line]
        return self.history.dice.choice(some) if some else None

    async def create(self) -> None:
        began = len(self.journal)
        name = f"v{self.history.sessions}-{began}"
        try:
            tree = self.found.tree(name, layout=self.history.dice.choice(LAYOUTS))
        except UsageError:
            return  # no room, or too few ALUs
        self.note(await self.found.volumes.create(tree), began)

    async def grow(self) -> None:
        known = self.pick(on_line=True)
        if known is None:
            return
        began = len(self.journal)
        try:
            grown = grow_volume(known.objects, MIB, self.found.statuses())
            await self.found.volumes.replace(grown.objects)
        except UsageError:
            assert len(self.journal) == began, "what is refused has written nothing"
            return
        self.note(known, began)

    async def delete(self) -> None:
        known = self.pick(on_line=False)
        if known is not None:
            began = len(self.journal)
            await self.found.volumes.delete(known.head.wwn)
            self.changes.append(Change(known.head.wwn, None, began, len(self.journal)))

    async def lose_a_leg(self) -> None:
        """Let one leg of a mirror refuse a write."""
        known = self.pick(on_line=True)
        if known is None or known.served is None:
            return
        by_wwn = {obj.wwn: obj for obj in known.objects}
        mirror = next((obj for obj in known.objects if isinstance(obj, MirrorObject)), None)
        legs = [leg for leg in mirror.legs if leg.state is LegState.IN_SYNC] if mirror is not None else []
        if len(legs) < 2:
            return
        began = len(self.journal)
        partition = by_wwn[self.history.dice.choice(legs).child]
        assert isinstance(partition, PartitionObject)
        disk = self.history.disks[self.found.inventory.owned(partition.alu).driver.path]
        fault = disk.fail(AluOp.WRITE, offset=partition.extent.start_bytes, length=MIB)
        await known.served.volume.submit(Request(Op.WRITE, 0, 8, memoryview(b"x" * 4096)))
        disk.mend(fault)
        self.note(known, began)

    async def come_late(self) -> None:
        """Let an ALU that was missing at the start come back (R30)."""
        missing = sorted(self.found.inventory.missing)
        if missing:
            path = self.history.dice.choice(missing)
            self.found.engine.disks[path] = self.history.disks[path]
            await self.found.attach(path)
            await self.gs.admit(self.found.inventory.by_path(path))
            await self.found.volumes.assemble()


async def run(
    history: History, paths: Sequence[str], old: Copy | None, crash: bool, idle: bool
) -> tuple[Session, bool]:
    """Let the appliance run; what is under way ends with the loop. Say whether it mended anything."""
    async with site({path: history.disks[path] for path in paths}) as found:
        now = Session(history, found, GlobalSet(found.engine, found.inventory), history.journal)
        mended = await now.start()
        if old is not None:
            assert "an older copy" in found.inventory.by_path(old.path).stale
        if not idle:
            await now.live()
        if not crash:
            await found.volumes.close()
            await now.gs.renew()
    return now, mended


def session(history: History, paths: Sequence[str], old: Copy | None, crash: bool, idle: bool = False) -> bool:
    """Let the appliance run once, and leave the ALUs as it left them. Say whether mending changed anything."""
    journal, before = history.journal, dict(history.images)
    contents = before if old is None else {**before, old.path: old.image}
    fill(history.disks, contents)
    journal.clear()
    now, mended = asyncio.run(run(history, paths, old, crash, idle))
    if old is not None:
        assert not [event for path, event in journal if path == old.path], "an old copy was written to"
    cut = len(journal)
    if crash:
        cut = history.dice.randint(0, len(journal))
        CRASH_STATES.one()
    history.images = {path: left(history, image, path, journal[:cut]) for path, image in before.items()}
    if now.settled_at is not None and now.settled_at <= cut:
        history.settle(now.settled)
    for change in now.changes:
        if change.began < cut:
            history.happened(change, cut)
    return mended


def upper(objects: Iterable[AnyObject]) -> Tree:
    return frozenset(obj for obj in objects if not isinstance(obj, PartitionObject))


def left(history: History, before: Image, path: str, journal: list[tuple[str, Event]]) -> Image:
    """Give what a power cut leaves of one ALU: writes since its last flush may be there, or not, or be torn."""
    durable, pending = dict(before), list[Event]()
    for event in (event for where, event in journal if where == path):
        if event.offset is not None:
            pending.append(event)
            continue
        for write in pending:
            assert write.offset is not None
            put(durable, write.offset, write.data)
        pending.clear()
    for write in pending:
        assert write.offset is not None
        for at in range(0, len(write.data), SECTOR):
            if history.dice.getrandbits(1):
                put(durable, write.offset + at, write.data[at : at + SECTOR])
    return durable


def directory_on(image: Image) -> Directory:
    """Read the MDR directory of an ALU."""
    label = labels.choose(answered(copies_at(label_addresses(SIZE)), image)).winner
    assert label is not None
    directory = answered(directory_of(label), image).winner
    assert directory is not None
    return directory


def from_before(copies: Sequence[Copy], images: Images) -> list[Copy]:
    """Give the copies of ALUs that the GS set has taken over since, by what the others of them say."""
    held = {path: answered(gscopy.look(directory_on(image).alu), image).image for path, image in images.items()}
    stale = []
    for copy in copies:
        newest = max((one for path, one in held.items() if one and path != copy.path), key=lambda one: one.order)
        entry = newest.entry(copy.directory.alu)
        if entry is not None and copy.directory.epoch < entry.epoch:
            stale.append(copy)
    return stale


def live(history: History) -> None:
    """Have one session after the other; in the end all ALUs are there, and the second start finds nothing to do."""
    dice = history.dice
    session(history, PATHS, None, crash=False)
    for _ in range(SESSIONS):
        paths = dice.sample(PATHS, dice.randint(MAJORITY, len(PATHS)))
        old = None
        stale = from_before(history.copies, history.images)
        if stale and dice.random() < 0.5:
            old, paths = dice.choice(stale), list(PATHS)
            history.returns += 1
        session(history, paths, old, crash=dice.random() < 0.7)
        path = dice.choice(PATHS)
        image = dict(history.images[path])
        history.copies.append(Copy(path, image, directory_on(image)))
    session(history, PATHS, None, crash=False, idle=True)
    assert not session(history, PATHS, None, crash=False, idle=True), "a second start has mended something"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_loses_a_volume_or_brings_one_back(part: int) -> None:
    """R3, R4, R30, M4, M6."""
    first, volumes, returns = first_seed(50 + part), 0, 0
    journal: list[tuple[str, Event]] = []
    dice = random.Random(first)
    disks: Disks = {path: RecordingDriver(SIZE, path, journal, dice) for path in PATHS}
    for seed in range(first, first + HISTORIES // PARTS):
        with named(seed):
            dice.seed(seed)
            history = History(dice, disks, journal)
            live(history)
            volumes += len(history.volumes)
            returns += history.returns
    assert min(volumes, returns) > HISTORIES // PARTS // 2, "too few volumes, or older copies, to prove anything"
