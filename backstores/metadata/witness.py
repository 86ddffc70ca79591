"""What the copies of a partition table say, and how far that agrees with the objects.

Both functions are pure; what they find wrong is mended by the next commit, which writes the table as the objects
want it, or kept where the objects are known to be incomplete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backstores.errors import TiergateError
from backstores.metadata import table as tables
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.label import Label
from backstores.metadata.sector import SECTOR_BYTES, SectorError
from backstores.metadata.steps import IO_UNIT, ZERO_UNIT, Reads, Span
from backstores.metadata.table import (
    ENTRIES_OF_A_SECTOR,
    SECTORS_OF_A_UNIT,
    ZERO_SECTOR,
    Entry,
    EntryState,
    Key,
    Stamp,
    Table,
    Update,
    finding,
)
from backstores.objects import AnyObject, Extent

Content = tuple[Stamp, tuple[Entry | None, ...]]
Read = Content | SectorError


@dataclass(frozen=True, slots=True)
class Agreement:
    """What remains of a table beside the objects: ``kept`` are the entries whose objects were lost.

    ``settled``: nothing does, and nothing is missing, so that the next change need look at no more than it changes.
    """

    kept: Mapping[Key, Entry] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    settled: bool = False


def recover(label: Label) -> Reads[tuple[Table, tuple[Finding, ...]]]:
    """Read all copies of an ALU's partition table, and say which sectors count."""
    found: defaultdict[int, dict[int, Read]] = defaultdict(dict)  # by sector, then by address of the copy
    findings: list[Finding] = []
    for address in label.tables:
        raw, unreadable = yield from _raw(address, label.table_bytes)
        if unreadable:
            findings.append(Finding(Problem.UNREADABLE, f"partition table at byte {address}", unreadable))
        for index, sector in _written(raw):
            try:
                found[index][address] = tables.parse_sector(sector, address + index * SECTOR_BYTES, index, label)
            except SectorError as error:
                found[index][address] = error
    return _chosen(found, label, findings)


def _raw(address: int, length: int) -> Reads[tuple[bytes, str]]:
    """Read a copy, with zeros and the last error for what can't be read of it."""
    try:
        return (yield Span(address, length)), ""
    except TiergateError as error:
        reason = str(error)
    parts: list[bytes] = []
    for at in range(0, length, IO_UNIT):
        try:
            parts.append((yield Span(address + at, IO_UNIT)))
        except TiergateError as error:
            parts.append(ZERO_UNIT)
            reason = str(error)
    return b"".join(parts), reason


def _written(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the sectors of a copy that are not zero, with their numbers."""
    for unit in range(0, len(raw), IO_UNIT):
        if raw[unit : unit + IO_UNIT] != ZERO_UNIT:
            for number in range(SECTORS_OF_A_UNIT):
                at = unit + number * SECTOR_BYTES
                if (sector := raw[at : at + SECTOR_BYTES]) != ZERO_SECTOR:
                    yield at // SECTOR_BYTES, sector


def _chosen(
    found: Mapping[int, Mapping[int, Read]], label: Label, findings: list[Finding]
) -> tuple[Table, tuple[Finding, ...]]:
    newest = max(
        (one[0].generation for copies in found.values() for one in copies.values() if isinstance(one, tuple)), default=0
    )
    slots: dict[int, Entry] = {}
    stamps: dict[int, Stamp] = {}
    uneven: set[int] = set()
    wrong: defaultdict[tuple[int, Problem], list[str]] = defaultdict(list)
    absent = SectorError(Problem.ABSENT, "it was never written")
    for index in sorted(found):
        copies = {address: found[index].get(address, absent) for address in label.tables}
        good = [one for one in copies.values() if isinstance(one, tuple)]
        best = max(good, key=lambda one: one[0].generation, default=None)
        if best is None and all(
            isinstance(one, SectorError) and one.problem is Problem.ABSENT for one in copies.values()
        ):
            continue  # what others left here, before the ALU was claimed
        for address, one in copies.items():
            problem = _problem(one, best, newest)
            if problem is not None:
                wrong[address, problem[0]].append(f"sector {index}: {problem[1]}")
                uneven.add(index)
        if best is not None:
            stamps[index] = best[0]
            first = index * ENTRIES_OF_A_SECTOR
            slots.update((first + n, entry) for n, entry in enumerate(best[1]) if entry is not None)
    for (address, kind), texts in wrong.items():
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        findings.append(Finding(kind, f"partition table at byte {address}", texts[0] + more))
    return Table(slots, stamps, frozenset(uneven), newest), tuple(findings)


def _problem(one: Read, best: Content | None, newest: int) -> tuple[Problem, str] | None:
    """Say what is wrong with a copy of a sector, beside the copy that counts."""
    if isinstance(one, SectorError) and (best is None or one.problem is not Problem.ABSENT):
        return one.problem, str(one)
    if one == best:
        return None
    assert best is not None
    if isinstance(one, tuple) and one[0].generation == best[0].generation:
        return Problem.CONTRADICTION, f"generation {best[0].generation} is there twice, and the two differ"
    if best[0].generation == newest:
        return Problem.UNFINISHED, f"generation {newest} has not reached it"
    return Problem.DAMAGED, f"it misses generation {best[0].generation}"


def compare(table: Table, objects: Sequence[AnyObject], data: Extent, lost: bool) -> Agreement:
    """Hold the table against the objects. ``lost``: there may have been more of these than could be read."""
    wanted = tables.witnesses(objects, EntryState.IN_USE, data)
    kept: dict[Key, Entry] = {}
    findings: list[Finding] = []
    there: set[Key] = set()
    for entry in table.entries:
        expected = wanted.get(entry.key)
        if entry.key in there:
            findings.append(finding(Problem.DUPLICATE, entry, "it has two entries"))
        elif expected is None and (lost or entry.state is EntryState.LOST):
            kept[entry.key] = replace(entry, state=EntryState.LOST)
            findings.append(finding(Problem.LOST, entry, f"no object has {_text(entry)} any more"))
        elif expected is None:
            findings.append(finding(Problem.UNFINISHED, entry, f"no object has {_text(entry)}"))
        elif entry.extent != expected.extent:
            problem = Problem.UNFINISHED if entry.state is EntryState.RESERVED else Problem.CONTRADICTION
            findings.append(finding(problem, entry, f"it says {_text(entry)}, the object has {_text(expected)}"))
        there.add(entry.key)
    missing = [entry for key, entry in wanted.items() if key not in there]
    findings += [
        finding(Problem.MISSING, entry, "it has no entry, and gets one with the next change") for entry in missing
    ]
    findings += _collisions([*wanted.values(), *kept.values()], kept)
    in_use = all(entry.state is EntryState.IN_USE for entry in table.slots.values())
    return Agreement(kept, tuple(findings), settled=in_use and not findings)


def _collisions(entries: Sequence[Entry], kept: Mapping[Key, Entry]) -> Iterator[Finding]:
    """Name objects that lie where a lost one did; what objects do among themselves is told elsewhere."""
    for one, other in tables.overlaps(entries):
        if one.key in kept or other.key in kept:
            yield finding(Problem.OVERLAP, other, f"it overlaps partition {one.name}")


def settled(objects: Iterable[AnyObject], kept: Mapping[Key, Entry], data: Extent) -> dict[Key, Entry]:
    """Give the entries that a table should have when nothing is going on."""
    return {**kept, **tables.witnesses(objects, EntryState.IN_USE, data)}


def reserving(
    before: Iterable[AnyObject], after: Iterable[AnyObject], kept: Mapping[Key, Entry], data: Extent
) -> dict[Key, Entry]:
    """Give the entries that a table must have while objects are being committed: those of both."""
    old = tables.witnesses(before, EntryState.IN_USE, data)
    new = tables.witnesses(after, EntryState.RESERVED, data)
    return {
        **kept,
        **old,
        **{key: entry for key, entry in new.items() if key not in old or old[key].extent != entry.extent},
    }


def around(
    table: Table,
    before: Sequence[AnyObject],
    after: Sequence[AnyObject],
    kept: Mapping[Key, Entry],
    label: Label,
    now_ns: int,
    epoch: int,
) -> tuple[Update, Update]:
    """Say what becomes of a table round a commit: room is reserved before it, and all is settled behind it."""
    reserved = tables.update(table, reserving(before, after, kept, label.data), label, now_ns, epoch)
    return reserved, tables.update(reserved.after, settled(after, kept, label.data), label, now_ns, epoch)


def around_change(
    table: Table,
    gone: Sequence[AnyObject],
    put: Sequence[AnyObject],
    kept: Mapping[Key, Entry],
    label: Label,
    now_ns: int,
    epoch: int,
) -> tuple[Update, Update]:
    """Say the same of a table that agrees with the objects, by looking at those alone that go and come."""
    names = {item.wwn for item in (*gone, *put)}
    mine = {key: entry for key, entry in kept.items() if entry.name in names}
    reserved = tables.amend(table, names, reserving(gone, put, mine, label.data), label, now_ns, epoch)
    return reserved, tables.amend(reserved.after, names, settled(put, mine, label.data), label, now_ns, epoch)


def _text(entry: Entry) -> str:
    return f"{entry.extent.length_bytes} bytes at {entry.extent.start_bytes}"
