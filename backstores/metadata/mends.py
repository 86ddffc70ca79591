"""What can be mended of what the ALUs hold: which object is to be put on, or dropped from, which ALU (R3, M6).

A crash between two ALUs, or an ALU that failed or was away, leaves copies that are missing or old, and objects
that no volume needs. ``mends`` names what may be mended, all of it side by side; when that is done it is asked
again, until nothing is left. What makes each safe:

    put      the copy that counts, where one is missing or older. It counts already: all that changes is how many
             ALUs may be lost before it is.
    bury     the parts of a deleted volume go, an older copy of its volume object becomes the tombstone. That
             outvotes them for good, whoever is away. While it waits for something it lies on every ALU, so that
             whoever comes back meets it (the start asks for a majority of the GS set).
    forget   a tombstone goes when every ALU is there, those that had parts are there without, and no part is missing:
             see ``Deletion``. ALUs may have been struck off, so that "every ALU" alone would not do.
    sweep    what no volume needs goes only if every ALU is there and could be read whole; else a volume object that
             needs it could be on the one that is away.

An ALU that has lost something, or that is there twice, is left alone: a commit would overwrite the traces of that.
No order among the ALUs is needed within one answer; a crash after any part of it leaves what the next start mends.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from backstores.metadata.findings import Problem
from backstores.metadata.merge import AluRecord, SystemImage, stored_on
from backstores.metadata.records import described
from backstores.objects import AnyObject, Deletion, PartitionObject, VolumeObject
from backstores.wwn import Wwn

HARMLESS: Final = frozenset({Problem.UNFINISHED, Problem.ABSENT})
"""Findings on an ALU that can't mean that something newer was there."""

Held = Mapping[Wwn, Mapping[Wwn, AnyObject]]  # ALU, name, object
Parts = Mapping[Wwn, Sequence[AnyObject]]  # ALU, objects


class Action(enum.StrEnum):
    """What is done to one ALU."""

    PUT = "put"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Mend:
    """One object to be put on an ALU, in place of the copy that it has, or to be dropped from it."""

    alu: Wwn
    action: Action
    item: AnyObject
    reason: str

    def __str__(self) -> str:
        return f"alu {self.alu}: {self.action} {described(self.item)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Found:
    """What the ALUs hold that may be mended."""

    held: Held
    certain: bool  # every ALU is there, and may be mended


def mends(records: Sequence[AluRecord], image: SystemImage, complete: bool) -> list[Mend]:
    """Name what can be mended now. ``complete``: every ALU that should be there is there."""
    found = _sorted_out(records, complete)
    places = {item.wwn: alus for tree in image.volumes for item, alus in stored_on(tree)}
    todo = [
        mend
        for tree in image.volumes
        for item in tree.objects
        if not isinstance(item, PartitionObject)
        for mend in _puts(item, places[item.wwn], found.held)
    ]
    unsettled = {mend.item.volume for mend in todo}
    dead = _parts_of({head.wwn for head in image.tombstones}, found.held)
    for head in image.tombstones:
        todo += _bury(head, dead.get(head.wwn, {}), found) or _forget(head, found)
    if found.certain:
        todo += _sweep(image, found.held, places, unsettled)
    return todo


def mended(objects: Iterable[AnyObject], todo: Iterable[Mend]) -> list[AnyObject]:
    """Give what one ALU holds after its mends: what it keeps stays in its place, what it lacked comes last."""
    dropped = {mend.item.wwn for mend in todo if mend.action is Action.DROP}
    put = {mend.item.wwn: mend.item for mend in todo if mend.action is Action.PUT}
    kept = [put.pop(item.wwn, item) for item in objects if item.wwn not in dropped]
    return [*kept, *put.values()]


def summary(todo: Sequence[Mend]) -> str:
    """Say in a few words what was mended, the commonest first."""
    reasons = Counter((mend.action, mend.reason) for mend in todo).most_common()
    return "; ".join(f"{action} {number} ({reason})" for (action, reason), number in reasons)


def _sorted_out(records: Sequence[AluRecord], complete: bool) -> _Found:
    times = Counter(record.alu for record in records)
    sound = [
        record
        for record in records
        if times[record.alu] == 1 and all(finding.problem in HARMLESS for finding in record.findings)
    ]
    held = {record.alu: {item.wwn: item for item in record.objects} for record in sound}
    return _Found(held, certain=complete and len(sound) == len(records))


def _puts(item: AnyObject, alus: Iterable[Wwn], held: Held) -> Iterator[Mend]:
    """Complete and renew the copies of a second-tier object on the ALUs below it."""
    for alu in alus:
        if alu not in held:
            continue
        copy = held[alu].get(item.wwn)
        if copy is None:
            yield Mend(alu, Action.PUT, item, "it had no copy of it")
        elif copy.generation < item.generation:
            yield Mend(alu, Action.PUT, item, f"its copy was of generation {copy.generation}")


def _parts_of(volumes: Collection[Wwn], held: Held) -> dict[Wwn, dict[Wwn, list[AnyObject]]]:
    """Give what there is of some volumes, ALU by ALU, but for the volume objects."""
    found: defaultdict[Wwn, defaultdict[Wwn, list[AnyObject]]] = defaultdict(lambda: defaultdict(list))
    if volumes:
        for alu, items in held.items():
            for item in items.values():
                if item.volume in volumes and item.volume != item.wwn:
                    found[item.volume][alu].append(item)
    return {volume: dict(parts) for volume, parts in found.items()}


def _bury(head: VolumeObject, parts: Parts, found: _Found) -> list[Mend]:
    """Take a deleted volume's parts away, and make the tombstone the same everywhere."""
    tombstone = _renewed(head, parts)
    todo = [Mend(alu, Action.DROP, part, "its volume is deleted") for alu, items in parts.items() for part in items]
    waits = not _settled(tombstone, found)
    for alu, items in found.held.items():
        copy = items.get(head.wwn)
        if copy != tombstone if copy is not None else waits or (tombstone != head and alu in parts):
            todo.append(Mend(alu, Action.PUT, tombstone, "it tells that the volume is deleted"))
    return todo


def _renewed(head: VolumeObject, parts: Parts) -> VolumeObject:
    """Give the tombstone that knows which missing parts have turned up, and on which ALUs.

    It is stored on these in the commit that drops the parts: wherever a crash comes, they are waited for by the one
    or by the other name.
    """
    deletion = head.deletion
    if deletion is msgspec.UNSET:
        return head
    seen = {part.wwn: part for items in parts.values() for part in items}
    if seen.keys().isdisjoint(deletion.missing):
        return head
    # A second-tier object that was missing may lead to parts that nobody could know of.
    unknown = {child for wwn in deletion.missing if wwn in seen for child in seen[wwn].children}
    newer = Deletion(
        alus=tuple(sorted({*deletion.alus, *parts})),
        missing=tuple(sorted(unknown.union(deletion.missing) - seen.keys())),
    )
    return msgspec.structs.replace(head, generation=head.generation + 1, deletion=newer)


def _settled(head: VolumeObject, found: _Found) -> bool:
    """Say whether a tombstone waits for nothing any more but that parts go which are there."""
    if head.deletion is msgspec.UNSET:
        return found.certain
    return found.certain and not head.deletion.missing and found.held.keys() >= set(head.deletion.alus)


def _forget(head: VolumeObject, found: _Found) -> list[Mend]:
    """Drop a tombstone that waits for nothing any more."""
    if not _settled(head, found):
        return []
    reason = "nothing is left of its volume"
    return [Mend(alu, Action.DROP, head, reason) for alu, items in found.held.items() if head.wwn in items]


def _sweep(
    image: SystemImage, held: Held, places: Mapping[Wwn, Collection[Wwn]], unsettled: Collection[Wwn]
) -> Iterator[Mend]:
    """Drop what has no volume, or lies outside of its volume's tree or on an ALU that is not below it.

    Not while a volume has copies to be put: the one that lies in the wrong place may be the only one that counts.
    """
    heads = {item.wwn for items in held.values() for item in items.values() if isinstance(item, VolumeObject)}
    whole = {tree.volume.wwn: tree for tree in image.volumes if tree.complete and tree.volume.wwn not in unsettled}
    wanted = {item.wwn for tree in whole.values() for item in tree.objects}
    for alu, items in held.items():
        for item in items.values():
            if item.volume not in heads:
                yield Mend(alu, Action.DROP, item, "it has no volume")
            elif item.volume in whole and (item.wwn not in wanted or alu not in places.get(item.wwn, (alu,))):
                yield Mend(alu, Action.DROP, item, "its volume has no need of it here")
