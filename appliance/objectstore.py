"""Changes of a volume's objects over all its ALUs: each has one commit point (M6).

Every ALU commits its own objects, old or new (``backstores.metadata``); what is written here is the order
among the ALUs, so that a crash between any two commits, or an ALU that fails, leaves the old volume or the
new one, and at worst objects that no volume needs, which the next start sweeps away. Of two copies of an
object the higher generation counts, so one ALU is enough to make a change true:

    create   everything but the volume object; then the volume object. The first copy of it decides.
    change   what is new below; then, at once on each ALU that the volume had, what replaces older generations: the
             first decides; then the same on the ALUs that are new to it. Were one of those the first, and away at
             the next start, the volume would go on as it was, and its next change would take the same generation.
    record   (a leg has failed) as the second half of a change; ALUs that fail meanwhile are left behind.
    remove   a tombstone in place of all that there is of the volume, a generation higher; the first decides. It goes
             at once if every part was there and every ALU took it; else it waits on all ALUs: see ``Deletion``.
    mend     what crashes and absences have left behind, found and proved safe by ``backstores.metadata.mends``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from appliance.inventory import Inventory, OpenAlu
from backstores.errors import TiergateError, UsageError
from backstores.metadata.mends import Mend, mended, mends, summary
from backstores.metadata.merge import SystemImage, system_image
from backstores.objects import DELETED_LAYOUT, AnyObject, Deletion, PartitionObject, VolumeObject
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

Objects = Sequence[AnyObject]

MOST_ROUNDS: Final = 8
"""Rounds of mending that are tried; three are enough for all that is known to happen."""


class RolledBack(TiergateError):
    """A change failed. ``objects`` is the tree as it was, in generations above those that were tried."""

    def __init__(self, reason: TiergateError, objects: tuple[AnyObject, ...]) -> None:
        super().__init__(str(reason))
        self.objects = objects


class ObjectStore:
    """Stores objects where R3 wants them. One change at a time."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._changing = asyncio.Lock()

    async def create(self, tree: Objects) -> None:
        """Store a new volume.

        Raises:
            UsageError: an ALU is not there, or has no room for the objects.
            TiergateError: an ALU failed. The volume does not exist, or at most as a tombstone that outvotes it.
        """
        async with self._changing:
            placed = placement(tree)
            alus = self._owned(placed)
            before = _objects_of(alus)
            below = {wwn: [*before[wwn], *(obj for obj in objs if obj is not tree[0])] for wwn, objs in placed.items()}
            failures = await self._commit(alus, below)
            if failures:
                await self._commit(alus, before, again=failures)
                raise first(failures)
            failures = await self._commit(alus, {wwn: [*before[wwn], *objs] for wwn, objs in placed.items()})
            if failures:
                await self._erase(tree[0], alus)
                raise first(failures)

    async def change(self, old: Objects, new: Objects, spared: Collection[Wwn] = ()) -> None:
        """Store a tree in place of ``old``, without the ALUs in ``spared``.

        Raises:
            UsageError: an ALU is not there, or has no room for the objects; the old tree counts.
            RolledBack: an ALU failed after others had taken the new tree.
            TiergateError: an ALU failed; the old tree counts.
        """
        async with self._changing:
            known = {obj.wwn for obj in old}
            placed = _without_keys(placement(new), spared)
            alus = self._owned(placed)
            before = _objects_of(alus)
            added = {
                wwn: [*before[wwn], *(obj for obj in objs if obj.wwn not in known)] for wwn, objs in placed.items()
            }
            failures = await self._commit(alus, added)
            if failures:
                await self._commit(alus, before, again=failures)
                raise first(failures)
            replaced = _replaced(before, new[0].wwn, placed)
            had = placement(old).keys()
            failures = await self._commit(alus, {wwn: objs for wwn, objs in replaced.items() if wwn in had})
            failures = failures or await self._commit(alus, replaced)
            if failures:
                await self._roll_back(old, new, alus, failures)

    async def record(self, tree: Objects, changed: Objects, spared: Collection[Wwn]) -> None:
        """Store changed objects of a volume; of each, one copy is enough to outvote the older ones (D3).

        Raises:
            TiergateError: no ALU took one of them.
        """
        async with self._changing:
            placed = _without_keys(placement(tree), spared)
            alus = self._owned(placed)
            failures = await self._commit(alus, _replaced(_objects_of(alus), tree[0].wwn, placed))
            for obj in changed:
                if all(obj not in objs or wwn in failures for wwn, objs in placed.items()):
                    raise first(failures)

    async def remove(self, head: VolumeObject, whole: bool) -> None:
        """Remove all objects of a volume. ``whole``: all that it has are on attached ALUs.

        Raises:
            TiergateError: no ALU took the tombstone; the volume is still there.
        """
        async with self._changing:
            alus = {
                alu.wwn: alu
                for alu in self._inventory
                if alu.wwn is not None and any(obj.volume == head.wwn for obj in alu.metadata.objects)
            }
            await self._erase(head, alus, () if whole else _missing(head, _objects_of(alus).values()))

    async def mend(self) -> SystemImage:
        """Mend what can be; give what the ALUs hold then. What an ALU refuses to take waits for the next time."""
        async with self._changing:
            for _ in range(MOST_ROUNDS):
                records = self._inventory.records()
                image = system_image(records)
                todo = mends(records, image, self._inventory.complete)
                if not todo or not await self._carry_out(todo):
                    return image if not todo else system_image(self._inventory.records())
            log.error("the objects on the alus don't come to rest after %d rounds of mending", MOST_ROUNDS)
            return system_image(self._inventory.records())

    async def _carry_out(self, todo: Iterable[Mend]) -> bool:
        """Mend on all ALUs at once; say whether all of them took it."""
        by_alu: defaultdict[Wwn, list[Mend]] = defaultdict(list)
        for mend in todo:
            log.debug("%s", mend)
            by_alu[mend.alu].append(mend)
        alus = self._owned(by_alu)
        failures = await self._commit(
            alus, {wwn: mended(alus[wwn].metadata.objects, some) for wwn, some in by_alu.items()}
        )
        for wwn in by_alu.keys() - failures.keys():
            log.info("alu %s: objects are mended: %s", alus[wwn].driver.path, summary(by_alu[wwn]))
        return not failures

    async def _erase(self, head: AnyObject, alus: Mapping[Wwn, OpenAlu], missing: Iterable[Wwn] = ()) -> None:
        """Put a tombstone in the place of a volume; take it away when nothing can bring the volume back."""
        assert isinstance(head, VolumeObject)
        waits = Deletion(alus=tuple(sorted(alus)), missing=tuple(sorted(missing)))
        tombstone = msgspec.structs.replace(head, generation=head.generation + 1, layout=DELETED_LAYOUT, deletion=waits)
        rest = {wwn: _without(objs, head.wwn) for wwn, objs in _objects_of(alus).items()}
        failures = await self._commit(alus, {wwn: [*objs, tombstone] for wwn, objs in rest.items()})
        if alus and failures.keys() == alus.keys():
            raise first(failures)
        if not failures and not waits.missing:
            await self._commit(alus, rest)
            return
        others = {alu.wwn: alu for alu in self._inventory if alu.wwn is not None and alu.wwn not in alus}
        await self._commit(others, {wwn: [*objs, tombstone] for wwn, objs in _objects_of(others).items()})

    async def _roll_back(
        self, old: Objects, new: Objects, alus: Mapping[Wwn, OpenAlu], failures: Mapping[Wwn, TiergateError]
    ) -> None:
        """Make the old tree count again: where it was replaced, by generations above the new ones."""
        generations = {obj.wwn: obj.generation for obj in new}
        again = tuple(
            msgspec.structs.replace(obj, generation=generations[obj.wwn] + 1)
            if generations.get(obj.wwn, obj.generation) != obj.generation
            else obj
            for obj in old
        )
        volume = old[0].wwn
        placed = _without_keys(placement(again), {wwn for wwn in placement(again) if wwn not in alus})
        there = _objects_of(alus)
        names = {obj.wwn for obj in again}
        added = {
            wwn: [obj for obj in objs if obj.volume == volume and obj.wwn not in names] for wwn, objs in there.items()
        }
        both = {wwn: [*objs, *added[wwn]] for wwn, objs in placed.items()}
        worse = await self._commit({wwn: alus[wwn] for wwn in placed}, _replaced(there, volume, both), again=failures)
        if worse.keys() >= placed.keys():
            log.error("no alu took the old objects of volume %s back: the next start decides", volume)
        else:
            await self._commit(alus, _replaced(there, volume, placed))
        raise RolledBack(first(failures), again)

    def _owned(self, wwns: Iterable[Wwn]) -> dict[Wwn, OpenAlu]:
        return {wwn: self._inventory.owned(wwn) for wwn in wwns}

    async def _commit(
        self, alus: Mapping[Wwn, OpenAlu], objects: Mapping[Wwn, Objects], again: Collection[Wwn] = ()
    ) -> dict[Wwn, TiergateError]:
        """Commit on all ALUs at once; give those that failed.

        What an ALU has already is not written, unless it is one of ``again``: a commit that failed may have left
        anything, and only the next one makes it certain.
        """
        wanted = {w: objs for w, objs in objects.items() if tuple(objs) != alus[w].metadata.objects or w in again}
        outcomes = await asyncio.gather(*(alus[wwn].commit(objs) for wwn, objs in wanted.items()))
        return {wwn: error for wwn, error in zip(wanted, outcomes, strict=True) if error is not None}


def placement(tree: Objects) -> dict[Wwn, list[AnyObject]]:
    """Say which objects of a tree are stored on which ALU (R3)."""
    by_wwn = {obj.wwn: obj for obj in tree}
    below: dict[Wwn, set[Wwn]] = {}

    def alus_below(obj: AnyObject) -> set[Wwn]:
        if isinstance(obj, PartitionObject):
            found = {obj.alu}
        else:
            found = set().union(*(alus_below(by_wwn[child]) for child in obj.children))
        below[obj.wwn] = found
        return found

    alus_below(tree[0])
    stored: dict[Wwn, list[AnyObject]] = {}
    for obj in tree:
        for alu in sorted(below[obj.wwn]):
            stored.setdefault(alu, []).append(obj)
    return stored


def first(failures: Mapping[Wwn, TiergateError]) -> TiergateError:
    """Give the failure to tell of, where one is enough."""
    return next(iter(failures.values()), UsageError("no alu is there to store it on"))


def _objects_of(alus: Mapping[Wwn, OpenAlu]) -> dict[Wwn, tuple[AnyObject, ...]]:
    return {wwn: alu.metadata.objects for wwn, alu in alus.items()}


def _replaced(before: Mapping[Wwn, Objects], volume: Wwn, placed: Mapping[Wwn, Objects]) -> dict[Wwn, list[AnyObject]]:
    """Give what the ALUs hold with these objects as all that they have of a volume."""
    return {wwn: [*_without(objs, volume), *placed.get(wwn, ())] for wwn, objs in before.items()}


def _without(objects: Objects, volume: Wwn) -> list[AnyObject]:
    return [obj for obj in objects if obj.volume != volume]


def _without_keys(placed: Mapping[Wwn, Objects], spared: Collection[Wwn]) -> dict[Wwn, Objects]:
    return {wwn: objs for wwn, objs in placed.items() if wwn not in spared}


def _missing(head: VolumeObject, held: Iterable[Objects]) -> set[Wwn]:
    """Name the parts of a volume that its tree leads to, and that are on none of these ALUs."""
    there = {obj.wwn: obj for objects in held for obj in objects if obj.volume == head.wwn}
    reached: set[Wwn] = set()
    pending = [*head.children]
    while pending:
        wwn = pending.pop()
        if wwn not in reached and wwn in there:  # a disk may hold a loop
            pending += there[wwn].children
        reached.add(wwn)
    return reached - there.keys()
