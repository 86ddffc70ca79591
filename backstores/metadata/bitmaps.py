"""The dirty-region bitmaps of ALUs that no appliance has open, held against the mirrors that they belong to (D2).

As at a start the union of what the legs in sync say counts, and a leg that says nothing says that all is dirty. What
the legs say differs by one write at most, if power failed between them. Nothing here writes: a ``Renewal`` is
what a start writes before anything else, the union on every leg.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backstores.errors import TiergateError, UsageError
from backstores.metadata.bitmap import (
    MOST_BYTES,
    BitmapSector,
    Geometry,
    Loaded,
    Place,
    decode,
    merge,
    parse_sector,
    regions_of,
)
from backstores.metadata.dirty import DirtyRegions
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.merge import SystemImage
from backstores.metadata.records import described
from backstores.metadata.sector import SECTOR_BYTES, SectorError
from backstores.metadata.steps import Reads, Span, Write
from backstores.objects import AnyObject, LegState, MirrorObject, PartitionObject
from backstores.transforms.tree import MAX_DEPTH
from backstores.wwn import Wwn

Raw = Mapping[Wwn, bytes]  # partition, what lies in its room for a bitmap

USED: Final = LegState.IN_SYNC
"""The state of legs whose bitmaps count."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """A leg's bitmap that a start would write again."""

    geometry: Geometry
    place: Place
    union: Loaded

    def writes(self, now_ns: int) -> list[Write]:
        """Say how it gets onto the leg; a flush must follow."""
        batch = DirtyRegions(self.geometry, self.union).next_batch(now_ns)
        assert batch is not None, "the first batch is due at once"
        return batch.writes(self.place)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the bitmaps of all mirrors are like: findings by ALU, and what a start would write."""

    findings: tuple[tuple[Wwn, Finding], ...] = ()
    renewals: tuple[Renewal, ...] = ()


@dataclass(frozen=True, slots=True)
class Leg:
    """A leg of a mirror, as far as its bitmap goes: the first partition below it has the room for that."""

    mirror: MirrorObject
    partition: PartitionObject
    used: bool


def look(objects: Iterable[AnyObject], findings: Iterable[Finding]) -> Reads[dict[Wwn, bytes]]:
    """Read the bitmaps on an ALU; one that can't be read is empty. ``findings``: which objects can't be trusted."""
    wrong = {finding.wwn for finding in findings}
    found = {}
    for item in objects:
        if isinstance(item, PartitionObject) and item.bitmap is not None and item.wwn not in wrong:
            try:
                found[item.wwn] = yield Span(item.bitmap.start_bytes, MOST_BYTES)
            except TiergateError:
                found[item.wwn] = b""
    return found


def legs(objects: Iterable[AnyObject]) -> Iterator[Leg]:
    """Yield the legs of all mirrors among some objects, as far as their first partition is among these, too."""
    by_wwn = {item.wwn: item for item in objects}
    for mirror in [item for item in by_wwn.values() if isinstance(item, MirrorObject)]:
        for leg in mirror.legs:
            partition = _first_partition(leg.child, by_wwn)
            if partition is not None:
                yield Leg(mirror, partition, leg.state is USED)


def _first_partition(wwn: Wwn, by_wwn: Mapping[Wwn, AnyObject]) -> PartitionObject | None:
    for _ in range(MAX_DEPTH):  # a disk may hold a loop
        item = by_wwn.get(wwn)
        if item is None or isinstance(item, PartitionObject) or not item.children:
            return item if isinstance(item, PartitionObject) else None
        wwn = item.children[0]
    return None


def examine(image: SystemImage, raw: Raw) -> Examined:
    """Judge the bitmaps of all mirrors of an image; ``raw`` has those that were read."""
    findings: list[tuple[Wwn, Finding]] = []
    renewals: list[Renewal] = []
    for tree in image.volumes:
        below = list(legs(tree.objects))
        findings += _without_mirror(tree.objects, below)
        for item in tree.objects:
            if isinstance(item, MirrorObject):
                mine = [leg.partition for leg in below if leg.mirror is item and leg.used]
                told, todo = _of_mirror(item, mine, raw)
                findings += told
                renewals += todo if len(mine) == sum(leg.state is USED for leg in item.legs) else []
    return Examined(tuple(findings), tuple(renewals))


def _without_mirror(objects: Sequence[AnyObject], below: Iterable[Leg]) -> Iterator[tuple[Wwn, Finding]]:
    """Name bitmaps of a whole tree that no mirror has; what no volume has is told as an object."""
    led_to = {leg.partition.wwn for leg in below}
    for item in objects:
        if isinstance(item, PartitionObject) and item.bitmap is not None and item.wwn not in led_to:
            text = f"no mirror leads to {described(item)}: it is never read"
            yield item.alu, Finding(Problem.ORPHAN, f"bitmap at byte {item.bitmap.start_bytes}", text)


def _of_mirror(
    mirror: MirrorObject, partitions: Sequence[PartitionObject], raw: Raw
) -> tuple[list[tuple[Wwn, Finding]], list[Renewal]]:
    """Judge the bitmaps on the legs in sync of a mirror; where they are not alike, say what a start would write."""
    try:
        geometry = Geometry.of(mirror)
        read = {Place.of(partition): raw.get(partition.wwn, b"") for partition in partitions}
    except UsageError as error:  # the start says so, too, and keeps the volume off line
        return [(one.alu, Finding(Problem.INVALID, described(mirror), str(error))) for one in partitions[:1]], []
    loaded = [decode(content, geometry, place) for place, content in read.items()]
    findings = [(place.alu, finding) for place, one in zip(read, loaded, strict=True) for finding in one.findings]
    findings += _disagreement(geometry, read)
    union = merge(loaded, geometry)
    renewals = [Renewal(geometry, place, union) for place in read] if findings else []
    if union.dirty and partitions:
        text = f"{len(union.dirty)} of {geometry.regions} regions are dirty: the next start copies them"
        findings.append((partitions[0].alu, Finding(Problem.UNFINISHED, f"bitmap of {described(mirror)}", text)))
    return findings, renewals


def _disagreement(geometry: Geometry, read: Mapping[Place, bytes]) -> Iterator[tuple[Wwn, Finding]]:
    """Compare what the legs say, sector by sector: they are written one beside the other, all in one generation."""
    for index in range(geometry.sectors):
        good = dict(_good(geometry, read, index))
        newest = max(good.values(), key=lambda sector: sector.generation, default=None)
        for place, sector in good.items():
            assert newest is not None
            where = f"bitmap at byte {place.start_bytes + index * SECTOR_BYTES}"
            behind = newest.generation - sector.generation
            if behind:
                problem = Problem.UNFINISHED if behind == 1 else Problem.STALE
                text = f"generation {sector.generation}, another leg of the mirror has {newest.generation}"
                yield place.alu, Finding(problem, where, text)
            elif sector.bits != newest.bits:
                text = f"generation {sector.generation} of it differs from leg to leg"
                yield place.alu, Finding(Problem.CONTRADICTION, where, text)


def _good(geometry: Geometry, read: Mapping[Place, bytes], index: int) -> Iterator[tuple[Place, BitmapSector]]:
    for place, content in read.items():
        try:
            yield place, parse_sector(content, geometry, place, index)
        except SectorError:  # told by ``decode``
            continue


def told(sector: BitmapSector) -> Mapping[str, object]:
    """Give what the bits of a sector say, for people: how many regions are dirty, and which."""
    runs: list[list[int]] = []
    dirty = list(regions_of(sector))
    for region in dirty:
        if runs and runs[-1][1] == region - 1:
            runs[-1][1] = region
        else:
            runs.append([region, region])
    return {"dirty": len(dirty), "which": ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in runs) or "none"}
