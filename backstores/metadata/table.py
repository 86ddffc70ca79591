"""The partition table: which parts of an ALU are in use, as a second witness of its objects (R1, R3).

Invariants. Four copies lie beside those of the label. A sector holds seven entries and stands for itself; the
copies of it are written two at a time, with a flush between, so that whole ones exist at every moment. Of the
copies of a sector the one with the highest generation counts; a sector that was never written is free room.

An entry is there, *reserved*, before the object that it witnesses is committed, and goes when the object is gone.
So after a crash an entry may be there for nothing, which is mended by the next change of the table; an object
without an entry is named and entered again. But where objects were lost to damage, entries without objects are
all that is known of them: they are kept as *lost*, and their room is given to nobody.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from backstores.errors import UsageError
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.label import Label
from backstores.metadata.layout import MOST_TABLE_BYTES, TABLE_BYTES
from backstores.metadata.records import is_object_name
from backstores.metadata.sector import (
    SECTOR_BYTES,
    Sector,
    SectorError,
    following,
    seal_on,
    stamped,
    stored_wwn,
    unseal,
)
from backstores.metadata.steps import IO_UNIT, Flush, Step, Write
from backstores.objects import AnyObject, Extent, PartitionObject
from backstores.wire import Bits, Bytes, Wire
from backstores.wwn import Wwn, to_bytes

SECTORS_OF_A_UNIT: Final = IO_UNIT // SECTOR_BYTES
ZERO_SECTOR: Final = bytes(SECTOR_BYTES)


class EntryState(enum.IntEnum):
    """What an entry says of its extent."""

    FREE = 0
    RESERVED = 1  # the object is about to be committed
    IN_USE = 2
    LOST = 3  # the object was there, and can't be read any more


class EntryKind(enum.IntEnum):
    """What an extent is used for."""

    DATA = 1
    BITMAP = 2


class EntryFormat(Wire, size=64, order="little"):
    """An entry of the partition table; all zeros where none is."""

    state = Bits(byte=0, width=8, doc=", ".join(f"{s.value} {s.name.lower().replace('_', ' ')}" for s in EntryState))
    kind = Bits(byte=1, width=8, doc=", ".join(f"{k.value} {k.name.lower()}" for k in EntryKind))
    name = Bytes(byte=16, length=16, doc="NAA 6 name of the partition")
    start = Bits(byte=32, width=64, doc="first byte of the extent")
    length = Bits(byte=40, width=64, doc="length of the extent")


class TableSector(Sector, size=512, order="little"):
    """A sector of the partition table."""

    magic = Bytes(byte=0, length=8, value=b"TGPARTS\0")
    index = Bits(byte=56, width=64, doc="number of this sector in its table, from zero")
    entries = Bytes(byte=64, length=448, doc="seven entries")


ENTRIES_OF_A_SECTOR: Final = TableSector.entries.width // 8 // EntryFormat.SIZE


def entries_of(table_bytes: int) -> int:
    """How many entries a table of this length has room for."""
    return table_bytes // SECTOR_BYTES * ENTRIES_OF_A_SECTOR


MOST_ENTRIES: Final = entries_of(TABLE_BYTES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of the ALU that is not free."""

    name: Wwn
    kind: EntryKind
    state: EntryState
    extent: Extent

    @property
    def key(self) -> tuple[Wwn, EntryKind]:
        """What it witnesses: a partition has an entry for its data, and may have one for its bitmap."""
        return self.name, self.kind


Key = tuple[Wwn, EntryKind]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which write of a sector this is."""

    generation: int
    time_ns: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Table:
    """What a partition table says. ``generation`` is the highest that was ever tried.

    ``slots`` has entries by number, ``stamps`` those sectors that were ever written; ``uneven`` are those whose
    copies are not alike, and which the next change writes again.
    """

    slots: Mapping[int, Entry] = field(default_factory=dict)
    stamps: Mapping[int, Stamp] = field(default_factory=dict)
    uneven: frozenset[int] = frozenset()
    generation: int = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order of their places."""
        return tuple(self.slots[slot] for slot in sorted(self.slots))


@dataclass(frozen=True, slots=True)
class Update:
    """How a change of the table gets onto the ALU.

    While it is being written ``begun`` holds: nobody knows then what the copies of its sectors say. ``after``
    holds once all ``steps`` have ended well.
    """

    steps: tuple[Step, ...]
    begun: Table
    after: Table


def witnesses(objects: Iterable[AnyObject], state: EntryState, data: Extent) -> dict[Key, Entry]:
    """Give the entries that objects should have; what a damaged object claims beyond the data area gets none."""
    entries: dict[Key, Entry] = {}
    for item in objects:
        if isinstance(item, PartitionObject):
            for kind, extent in ((EntryKind.DATA, item.extent), (EntryKind.BITMAP, item.bitmap)):
                if extent is not None and is_object_name(item.wwn) and _inside(extent, data):
                    entries[item.wwn, kind] = Entry(item.wwn, kind, state, extent)
    return entries


def update(table: Table, wanted: Mapping[Key, Entry], label: Label, now_ns: int, epoch: int) -> Update:
    """Say how these become the entries of the table: those that change, and what is uneven, are written.

    Raises:
        UsageError: there is no room for so many.
    """
    names = {entry.name for entry in table.slots.values()} | {name for name, _ in wanted}
    return amend(table, names, wanted, label, now_ns, epoch)


def amend(
    table: Table, names: Collection[Wwn], wanted: Mapping[Key, Entry], label: Label, now_ns: int, epoch: int
) -> Update:
    """Say how these become the entries of some partitions; those of others stay. What is uneven is written, too.

    Raises:
        UsageError: there is no room for so many.
    """
    slots = dict(table.slots)
    held = sorted(slot for slot, entry in slots.items() if entry.name in names)
    placed: set[Key] = set()
    for slot in held:
        key = slots[slot].key
        if key in wanted and key not in placed:
            slots[slot] = wanted[key]
            placed.add(key)
        else:
            del slots[slot]
    added = [key for key in wanted if key not in placed]
    places = list(itertools.islice(_free_slots(slots, label), len(added)))
    if len(places) < len(added):
        raise UsageError(
            f"{len(slots) + len(added)} partitions and bitmaps on alu {label.alu}, its partition table has room for"
            f" {entries_of(label.table_bytes)}: use another alu, or delete volumes"
        )
    slots.update((place, wanted[key]) for place, key in zip(places, added, strict=True))
    touched = {slot for slot in (*held, *places) if table.slots.get(slot) != slots.get(slot)}
    changed = {slot // ENTRIES_OF_A_SECTOR for slot in touched} | table.uneven
    if not changed:
        return Update((), table, table)
    newest = max((stamp.time_ns for stamp in table.stamps.values()), default=0)
    stamp = Stamp(following(table.generation), stamped(newest, now_ns), epoch)
    stamps = {**table.stamps, **dict.fromkeys(changed, stamp)}
    after = Table(slots, stamps, frozenset(), stamp.generation)
    begun = replace(table, uneven=frozenset(changed), generation=stamp.generation)
    return Update(tuple(_steps(after, changed, label)), begun, after)


def _free_slots(slots: Mapping[int, Entry], label: Label) -> Iterator[int]:
    return (slot for slot in range(entries_of(label.table_bytes)) if slot not in slots)


def _steps(table: Table, changed: Iterable[int], label: Label) -> Iterator[Step]:
    """Write the units of changed sectors: one copy in front and one at the end, then the other two."""
    first_sectors = sorted({sector // SECTORS_OF_A_UNIT * SECTORS_OF_A_UNIT for sector in changed})
    for number, copies in enumerate((label.tables[::2], label.tables[1::2])):
        if number:
            yield Flush()
        for address in copies:
            for first in first_sectors:
                sectors = range(first, first + SECTORS_OF_A_UNIT)
                raw = b"".join(_build(table, sector, label, address) for sector in sectors)
                yield Write(address + first * SECTOR_BYTES, raw)


def _build(table: Table, sector: int, label: Label, address: int) -> bytes:
    stamp = table.stamps.get(sector)
    if stamp is None:
        return ZERO_SECTOR
    first = sector * ENTRIES_OF_A_SECTOR
    return seal_on(
        label.alu,
        address + sector * SECTOR_BYTES,
        TableSector,
        stamp,
        index=sector,
        entries=b"".join(_entry(table.slots.get(slot)) for slot in range(first, first + ENTRIES_OF_A_SECTOR)),
    )


def _entry(entry: Entry | None) -> bytes:
    if entry is None:
        return bytes(EntryFormat.SIZE)
    return EntryFormat.build(
        state=entry.state,
        kind=entry.kind,
        name=to_bytes(entry.name),
        start=entry.extent.start_bytes,
        length=entry.extent.length_bytes,
    )


def parse_sector(raw: bytes, address: int, index: int, label: Label) -> tuple[Stamp, tuple[Entry | None, ...]]:
    """Read a sector of a copy.

    Raises:
        SectorError: it is not one, or an entry makes no sense.
    """
    sector = unseal(TableSector, raw, address)
    if sector.alu != to_bytes(label.alu):
        raise SectorError(
            Problem.ABSENT, f"it was written for alu {stored_wwn(sector.alu)}, before this one was claimed"
        )
    if sector.index != index:
        raise SectorError(Problem.DAMAGED, f"it says that it is sector {sector.index}, not {index}")
    return Stamp(sector.generation, sector.time_ns, sector.epoch), _parse_entries(sector.entries, label.data)


@lru_cache(maxsize=MOST_TABLE_BYTES // SECTOR_BYTES)
def _parse_entries(raw: bytes, data: Extent) -> tuple[Entry | None, ...]:
    """Take the entries of a sector apart: once, for as a rule the four copies of a table say the same."""
    step = EntryFormat.SIZE
    return tuple(_parse_entry(raw[at : at + step], data) for at in range(0, len(raw), step))


def _parse_entry(raw: bytes, data: Extent) -> Entry | None:
    found = EntryFormat(raw)
    if found.state == EntryState.FREE:
        return None
    try:
        state, kind = EntryState(found.state), EntryKind(found.kind)
    except ValueError as error:
        raise SectorError(Problem.DAMAGED, f"an entry of state {found.state} and kind {found.kind}") from error
    extent = Extent(found.start, found.length)
    if not _inside(extent, data):
        raise SectorError(Problem.DAMAGED, f"an entry of {extent.length_bytes} bytes at {extent.start_bytes}")
    return Entry(stored_wwn(found.name), kind, state, extent)


def _inside(extent: Extent, data: Extent) -> bool:
    return data.start_bytes <= extent.start_bytes < extent.end_bytes <= data.end_bytes


def overlaps(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Yield entries that claim the same bytes, in pairs of neighbours."""
    farthest: Entry | None = None
    for entry in sorted(entries, key=lambda e: e.extent):
        if farthest is not None and entry.extent.start_bytes < farthest.extent.end_bytes:
            yield farthest, entry
        if farthest is None or entry.extent.end_bytes > farthest.extent.end_bytes:
            farthest = entry


def finding(problem: Problem, entry: Entry, detail: str) -> Finding:
    """Tell something of an entry. It says nothing against an object of that name: objects outrank the table."""
    where = f"partition table, {entry.kind.name.lower()} of partition {entry.name}"
    return Finding(problem, where, detail, entry.name if problem is Problem.LOST else None)
