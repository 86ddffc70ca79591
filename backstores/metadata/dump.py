"""Everything that lies on an ALU, told structure by structure: what it says, and whether it counts.

What counts is decided where it always is (``inspection``, ``recovery``, ``witness``, ``gscopy``); here it is only
told. The fields of a structure are those of its declaration, so that none can be forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.metadata import bitmaps, gscopy, gsformat, legacy, mdr, records, version_1
from backstores.metadata import label as labels
from backstores.metadata import table as tables
from backstores.metadata.bitmap import BitmapSector, Geometry, Place, parse_sector
from backstores.metadata.findings import Problem
from backstores.metadata.gscopy import POINTERS, Pointers
from backstores.metadata.gsformat import ActiveList, GsPointer, ReservedRegion
from backstores.metadata.inspection import Inspection
from backstores.metadata.label import Label, LabelSector
from backstores.metadata.layout import (
    FRONT_LABELS,
    GS_POINTER_ADDRESSES,
    MDR_ADDRESSES,
    label_addresses,
    region_plan,
)
from backstores.metadata.mdr import DirectorySector
from backstores.metadata.region import BODY_OFFSET, ChangeSector, RegionSector
from backstores.metadata.sector import SECTOR_BYTES, Sector, SectorError, crc32c, unseal, version_of
from backstores.metadata.steps import IO_UNIT, Reads, Span, units
from backstores.metadata.table import ZERO_SECTOR, EntryFormat, EntryState, TableSector
from backstores.objects import Extent, PartitionObject
from backstores.wire import Bits, Wire
from backstores.wwn import Wwn

LETTERS: Final = "ABCD"
WWN_FIELDS: Final = frozenset({"alu", "name", "mirror", "leg"})
NOTHING_KNOWN: Final = frozenset({Problem.ABSENT, Problem.NEWER})  # fields would be guesses


class Standing(enum.StrEnum):
    """Whether a structure counts."""

    LIVE = "live"
    OLDER = "older"  # good, and something else counts
    EMPTY = "empty"
    DAMAGED = "damaged"  # or unreadable, or of a newer version: ``detail`` says it


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure at a byte address. ``content`` is its body, in plain values, where it has one."""

    name: str
    address: int
    standing: Standing
    detail: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    content: object = None


Judge = Callable[[bytes, int], bool]  # whether a sector counts; SectorError: it is not good


def describe(found: Inspection, size_bytes: int) -> Reads[list[Structure]]:
    """Tell all that lies on an ALU that was inspected, in the order of addresses."""
    told = yield from _labels(found, size_bytes)
    if found.version != version_1.VERSION:
        told += yield from _directories(found)
        if found.label is not None:
            told += yield from _gs_boot(found.label.alu)
            for number, address in enumerate(found.label.tables):
                told += yield from _table(f"partition table {LETTERS[number]}", address, found, found.label)
    where = found.directory or region_plan(size_bytes)
    for number, address in enumerate(where.regions):
        told += yield from _region(LETTERS[number], Extent(address, where.region_bytes), found, number)
    told += yield from _bitmaps(found)
    return sorted(told, key=lambda structure: structure.address)


def fields_of(structure: Wire) -> dict[str, object]:
    """Give the values of a structure, as its declaration has them."""
    values: dict[str, object] = {}
    for name, declared in type(structure).FIELDS.items():
        if isinstance(declared, Bits):
            values[name] = declared.read(structure.raw)
            continue
        raw = declared.read(structure.raw)
        text = raw.rstrip(b"\0").decode("ascii", "replace")
        values[name] = text if name not in WWN_FIELDS and text.isascii() and text.isprintable() else raw.hex()
    return values


def _told(name: str, address: int, raw: bytes, kind: type[Sector], judge: Judge) -> Structure:
    """Tell a sector that was read."""
    if raw == ZERO_SECTOR:
        return Structure(name, address, Standing.EMPTY)
    try:
        standing = Standing.LIVE if judge(raw, address) else Standing.OLDER
    except SectorError as error:
        ours = raw[: kind.magic.end] == kind.magic.value
        if error.problem is Problem.ABSENT and ours:  # of another ALU, before this one was claimed
            return Structure(name, address, Standing.OLDER, str(error), fields_of(kind(raw)))
        values = {} if error.problem in NOTHING_KNOWN else fields_of(kind(raw))
        return Structure(name, address, Standing.DAMAGED, f"{error.problem}: {error}", values)
    return Structure(name, address, standing, "", fields_of(kind(raw)))


def _sector(name: str, address: int, kind: type[Sector], judge: Judge) -> Reads[Structure]:
    try:
        raw = yield Span(address, IO_UNIT)
    except TiergateError as error:
        return Structure(name, address, Standing.DAMAGED, f"{Problem.UNREADABLE}: {error}")
    if kind is LabelSector and version_of(raw) == version_1.VERSION:
        kind = version_1.Label1Sector
    return _told(name, address, raw[:SECTOR_BYTES], kind, judge)


def _labels(found: Inspection, size_bytes: int) -> Reads[list[Structure]]:
    label = found.label
    places = label_addresses(size_bytes if label is None else label.size_bytes)
    if found.version == version_1.VERSION:
        places = FRONT_LABELS

    def counts(raw: bytes, address: int) -> bool:
        return labels.parse(raw, address) == label

    told = []
    for number, address in enumerate(places):
        told.append((yield from _sector(f"label {LETTERS[number]}", address, LabelSector, counts)))
    return told


def _directories(found: Inspection) -> Reads[list[Structure]]:
    def counts(raw: bytes, address: int) -> bool:
        return mdr.parse(raw, address) == found.directory

    told = []
    for number, address in enumerate(MDR_ADDRESSES):
        told.append((yield from _sector(f"MDR directory {LETTERS[number]}", address, DirectorySector, counts)))
    return told


def _table(name: str, address: int, found: Inspection, label: Label) -> Reads[list[Structure]]:
    """Tell the sectors of a copy of the partition table that are, or should be, more than zeros."""
    try:
        raw = yield Span(address, label.table_bytes)
    except TiergateError as error:
        return [Structure(name, address, Standing.DAMAGED, f"{Problem.UNREADABLE}: {error}")]
    told = []
    for index in range(label.table_bytes // SECTOR_BYTES):
        at = address + index * SECTOR_BYTES
        sector = raw[index * SECTOR_BYTES :][:SECTOR_BYTES]
        stamp = found.table.stamps.get(index)

        def counts(raw: bytes, address: int, index: int = index, stamp: tables.Stamp | None = stamp) -> bool:
            return tables.parse_sector(raw, address, index, label)[0] == stamp

        if sector != ZERO_SECTOR:
            structure = _told(f"{name}, sector {index}", at, sector, TableSector, counts)
            if structure.fields:
                entries = [fields_of(entry) for entry in _entries(TableSector(sector))]
                values = {key: value for key, value in structure.fields.items() if key != TableSector.entries.name}
                structure = Structure(structure.name, at, structure.standing, structure.detail, values, entries)
            told.append(structure)
        elif stamp is not None:
            told.append(Structure(f"{name}, sector {index}", at, Standing.DAMAGED, "it is zero, other copies are not"))
    return told or [Structure(name, address, Standing.EMPTY)]


def _entries(sector: TableSector) -> list[EntryFormat]:
    step = EntryFormat.SIZE
    entries = [EntryFormat(sector.entries[at : at + step]) for at in range(0, len(sector.entries), step)]
    return [entry for entry in entries if entry.state != EntryState.FREE]


def _region(letter: str, extent: Extent, found: Inspection, number: int) -> Reads[list[Structure]]:
    """Tell a region's base and log, up to the zeros that end it or the first part that is not good."""
    state = found.state
    live = state is not None and state.live == number
    told: list[Structure] = []
    kind: type[RegionSector | ChangeSector] = RegionSector
    at, generation = 0, 0
    while at + 2 * IO_UNIT <= extent.length_bytes:
        name = f"object region {letter}" if kind is RegionSector else f"object region {letter}, change"
        address = extent.start_bytes + at

        def counts(raw: bytes, address: int, kind: type[RegionSector | ChangeSector] = kind) -> bool:
            sector = unseal(kind, raw, address)
            return live and state is not None and sector.generation <= state.generation

        structure = yield from _sector(name, address, kind, counts)
        if structure.standing is Standing.EMPTY and kind is ChangeSector:
            break
        body_bytes = structure.fields.get("body_bytes")
        room = extent.length_bytes - at - BODY_OFFSET
        if structure.standing in (Standing.EMPTY, Standing.DAMAGED) or not isinstance(body_bytes, int):
            told.append(structure)
            break
        if kind is ChangeSector and structure.fields["generation"] != generation + 1:
            detail = f"it does not follow generation {generation}"
            told.append(Structure(name, address, Standing.DAMAGED, detail, structure.fields))
            break
        structure = yield from _with_body(structure, room)
        told.append(structure)
        if structure.standing is Standing.DAMAGED or found.version == version_1.VERSION:
            break
        generation = int(str(structure.fields["generation"]))
        at += BODY_OFFSET + units(body_bytes)
        kind = ChangeSector
    return told


def _with_body(structure: Structure, room: int) -> Reads[Structure]:
    """Add what the body of a base or a change says."""
    length, crc = int(str(structure.fields["body_bytes"])), structure.fields["body_crc"]
    try:
        if length > room:
            raise CorruptError(f"a body of {length} bytes where {room} have room")
        raw = (yield Span(structure.address + BODY_OFFSET, units(length)))[:length] if length else b""
        if crc32c(raw) != crc:
            raise CorruptError("the body does not match its header")
        change = structure.fields["magic"] == (ChangeSector.magic.value or b"").decode()
        body = records.decode_change(raw) if change else records.Body(records.decode(raw))
    except TiergateError as error:
        return Structure(structure.name, structure.address, Standing.DAMAGED, str(error), structure.fields)
    return Structure(
        structure.name, structure.address, structure.standing, "", structure.fields, msgspec.to_builtins(body)
    )


def _gs_boot(alu: Wwn) -> Reads[list[Structure]]:
    """Tell the pointers of the GS boot region, and what they lead to."""
    try:
        raw = yield Span(POINTERS.start_bytes, POINTERS.length_bytes)
    except TiergateError as error:
        return [Structure("GS boot region", POINTERS.start_bytes, Standing.DAMAGED, f"{Problem.UNREADABLE}: {error}")]
    pointers = gscopy.parse_pointers(raw, alu)
    told = [_pointer(slot, raw, pointers) for slot in range(len(GS_POINTER_ADDRESSES))]
    seen: set[int] = set()
    for slot in sorted((0, 1), key=lambda slot: slot != pointers.live):
        sector = pointers.sectors[slot]
        if sector is None:
            continue
        standing = Standing.LIVE if slot == pointers.live else Standing.OLDER
        for part in (
            _Part("GS active list", sector.list_address, sector.list_bytes, sector.list_crc, _active),
            _Part(
                "GS reserved region",
                sector.reserved_address,
                sector.reserved_bytes,
                sector.reserved_crc,
                _reserved,
            ),
        ):
            if part.address not in seen:
                seen.add(part.address)
                told.append((yield from _part(part, standing)))
    return told


def _pointer(slot: int, raw: bytes, pointers: Pointers) -> Structure:
    """Tell a pointer sector; why it is bad is what ``gscopy`` has found."""
    address = GS_POINTER_ADDRESSES[slot]
    name = f"GS pointer {LETTERS[slot]}"
    part = raw[address - POINTERS.start_bytes :][:SECTOR_BYTES]
    if slot in pointers.bad:
        where = f"at byte {address}"
        detail = "; ".join(f"{f.problem}: {f.detail}" for f in pointers.findings if f.where.endswith(where))
        ours = part[: GsPointer.magic.end] == GsPointer.magic.value
        values = fields_of(GsPointer(part)) if ours else {}
        return Structure(name, address, Standing.DAMAGED, detail or "both claim one generation", values)
    if pointers.sectors[slot] is None:
        return Structure(name, address, Standing.EMPTY)
    standing = Standing.LIVE if slot == pointers.live else Standing.OLDER
    return Structure(name, address, standing, "", fields_of(GsPointer(part)))


@dataclass(frozen=True, slots=True)
class _Part:
    """What a pointer leads to."""

    name: str
    address: int
    length: int
    crc: int
    content: Callable[[bytes], object]


def _part(part: _Part, standing: Standing) -> Reads[Structure]:
    values: dict[str, object] = {"bytes": part.length, "crc": part.crc}
    try:
        raw = (yield Span(part.address, units(part.length)))[: part.length] if part.length else b""
        if crc32c(raw) != part.crc:
            if standing is Standing.OLDER:  # a change that was cut short has begun to write here
                return Structure(part.name, part.address, standing, "overwritten since", values)
            raise CorruptError("it does not match its pointer")
        content = part.content(raw)
    except TiergateError as error:
        return Structure(part.name, part.address, Standing.DAMAGED, str(error), values)
    return Structure(part.name, part.address, standing, "", values, content)


def _active(raw: bytes) -> object:
    return msgspec.to_builtins(gsformat.decode(raw, ActiveList))


def _reserved(raw: bytes) -> object:
    """Give the records of legacy ALUs, taken apart."""
    told: list[object] = []
    for record in gsformat.decode(raw, ReservedRegion).records:
        try:
            told.append(msgspec.to_builtins(legacy.decode(record.body)))
        except TiergateError as error:
            told.append({"alu": record.alu, "damaged": str(error)})
    return {"records": told}


def _bitmaps(found: Inspection) -> Reads[list[Structure]]:
    """Tell the dirty-region bitmaps; which count, the mirrors say whose objects are here, too."""
    objects = found.state.objects if found.state is not None else ()
    by_partition = {leg.partition.wwn: leg for leg in bitmaps.legs(objects)}
    raw = yield from bitmaps.look(objects, found.findings)
    told: list[Structure] = []
    for item in objects:
        if item.wwn in raw and isinstance(item, PartitionObject):
            told += _bitmap(raw[item.wwn], Place.of(item), by_partition.get(item.wwn))
    return told


def _bitmap(raw: bytes, place: Place, leg: bitmaps.Leg | None) -> Iterator[Structure]:
    """Tell the sectors of a bitmap; of one that no mirror has, the first."""
    try:
        geometry = Geometry.of(leg.mirror) if leg is not None else None
    except UsageError as error:
        yield Structure(f"bitmap of {place.leg}", place.start_bytes, Standing.DAMAGED, str(error))
        return
    used = leg is not None and leg.used

    def counts(sector: bytes, address: int) -> bool:
        if geometry is None:
            unseal(BitmapSector, sector, address)
        else:
            parse_sector(raw, geometry, place, (address - place.start_bytes) // SECTOR_BYTES)
        return used

    for index in range(geometry.sectors if geometry is not None else 1):
        sector = raw[index * SECTOR_BYTES :][:SECTOR_BYTES]
        name = f"bitmap of {place.leg}, sector {index}"
        one = _told(name, place.start_bytes + index * SECTOR_BYTES, sector, BitmapSector, counts)
        if one.fields:
            values = {key: value for key, value in one.fields.items() if key != BitmapSector.bits.name}
            one = replace(one, fields=values, content=bitmaps.told(BitmapSector(sector)))
        yield one
