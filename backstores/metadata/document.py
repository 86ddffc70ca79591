"""The description of the format, made from its declarations.

python -m backstores.metadata.document > docs/metadata-format.md
"""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from backstores.metadata.bitmap import LEAST_REGION_BYTES, MOST_REGIONS, REGIONS_OF_A_SECTOR, BitmapSector
from backstores.metadata.gsformat import (
    MOST_MEMBERS,
    ActiveList,
    GsPointer,
    LegacyRecord,
    ReservedRegion,
    RosterEntry,
)
from backstores.metadata.label import LabelSector
from backstores.metadata.layout import (
    AREAS,
    FORMAT_VERSION,
    LARGE,
    LARGE_ALU_BYTES,
    LEAST_ALU_BYTES,
    MOST_TABLE_BYTES,
    PAGE,
    TABLE_BYTES,
    TAIL_AREAS,
    TAIL_BYTES,
    label_addresses,
    table_addresses,
)
from backstores.metadata.mdr import DirectorySector
from backstores.metadata.region import ChangeSector, RegionSector
from backstores.metadata.sector import Sector
from backstores.metadata.signatures import SIGNATURES
from backstores.metadata.steps import IO_UNIT
from backstores.metadata.table import ENTRIES_OF_A_SECTOR, MOST_ENTRIES, EntryFormat, TableSector, entries_of
from backstores.metadata.version_1 import Label1Sector
from backstores.objects import DELETED_LAYOUT, AnyObject, Deletion, Extent, Leg
from backstores.wire import Wire

MOST_MIGRATED: Final = entries_of(MOST_TABLE_BYTES)

INTRODUCTION: Final = f"""\
# What lies on an ALU: format version {FORMAT_VERSION}

Made from the declarations in `backstores/metadata` by `python -m backstores.metadata.document`; don't edit it.

All numbers are little-endian; names (WWNs) are stored as the bytes that a host sees. Only the write of one sector
of 512 bytes is taken to be atomic. All reads and writes are whole units of {IO_UNIT} bytes, so that disks with
4096-byte sectors need no other format; what a unit has behind its sector is written as zeros and not read.

## Map

An ALU has {LEAST_ALU_BYTES >> 20} MiB or more.

| from | to | what | meaning |
|---|---|---|---|
"""

LARGE_MAP: Final = f"""
On an ALU of {LARGE_ALU_BYTES >> 30} GiB or more that this version has claimed, the object regions lie at
{LARGE.regions[0] >> 20} MiB and {LARGE.regions[1] >> 20} MiB, {LARGE.region_bytes >> 20} MiB each, and the data
begins at {LARGE.data_start >> 20} MiB. Label and MDR directory say which it is. The data ends at least
{TAIL_BYTES >> 20} MiB before the end of the ALU, on a multiple of 1 MiB; the end itself is rounded down to
{PAGE >> 10} KiB.
"""

SECTORS: Final = """
## Sectors

Every structure begins with the same fields. Bytes 0 to 15 keep their place and meaning in all versions: a reader first
looks at the magic number, then at the checksum, then at the version, and refuses a newer one with its number. A sector
found at another address than its own, or on another ALU, does not count.
"""

LABEL: Final = """
### Label

Label and partition table are the label directory: four copies, two in front, two at the end. The label's say the same;
the good one with the highest generation counts. A change writes the oldest one in front, flushes, writes the others,
flushes. Two good copies of one generation that differ: none counts. A copy of a newer version: the ALU is not touched.
"""

MDR: Final = """
### MDR directory

Two copies, as of the label, but one counts only under a label that names the same ALU. So a claim writes one of them
with the ALU's new name, then the label, which makes the difference, then the other.

Its epoch is the fence: a writer reads it before each change, with all others locked out, and makes none if it is above
its own. Each start of the appliance takes a higher epoch, and writes it here first; so does a running one every half
hour, where nobody else has been here since.
"""

TABLE: Final = f"""
### Sector of the partition table

{TABLE_BYTES // 1024} KiB, {MOST_ENTRIES} entries, {ENTRIES_OF_A_SECTOR} a sector;
{MOST_TABLE_BYTES // 1024} KiB, {MOST_MIGRATED} entries, on an ALU that was migrated with more than these.
Each sector stands for itself: of its four copies the good one with the highest generation counts, and one that none of
them has holds free entries. A change writes the copies A and C, flushes, then B and D. All sectors that it changes get
one generation, above any in the table.

The table is a second witness of the objects. An entry is reserved before the partition is committed, is in use when it
is, and goes when it is gone. Where they differ the objects count, and the next change mends the table; but if objects
were lost to damage, entries without objects are kept as lost, and their room stays taken.
"""

ENTRY: Final = """
### Entry of the partition table
"""

REGION: Final = """
### Header of an object region

A region holds a base and a log: this header; the body with all objects from +4 KiB on; then one change behind the
other, each on a unit of its own. The region whose good header has the highest generation is live.

A new base goes into the region that is not live, when the log is full or something is damaged: body and two units of
zeros, flush, header, flush. A base that leaves no room for the zeros has no log.
"""

CHANGE: Final = """
### Header of a change

A change is appended: the body from +4 KiB on and two units of zeros behind it, flush, header, flush. Its generation is
one above that of what it follows. Where a header can lie there are zeros, which end the log, or a good header with a
good body; anything else is damage, and what lies behind it is lost.
"""

LABEL_1: Final = """
### Label of version 1

Two copies in front; no MDR directory, no partition table, no log: each commit wrote a base into the region that was
not live. An ALU of version 1 is brought to version 2 when it is attached: MDR directory and partition table are
written, then a base of version 2 into the region that is not live, then the label, which makes the difference.
"""

BITMAP: Final = f"""
### Sector of a dirty-region bitmap

A mirror has at most {MOST_REGIONS} regions of at least {LEAST_REGION_BYTES >> 20} MiB each, a power of two of blocks; a
sector holds {REGIONS_OF_A_SECTOR}. The bitmap lies in the extent `bitmap` of the partition object. A sector that can't
be read, or that names another mirror, leg, place or size, counts as all dirty. Of several legs the union counts.
"""

GS: Final = f"""
### Pointer of the GS boot region

On up to {MOST_MEMBERS} ALUs, the members of the GS set. Of both pointers the good one with the higher epoch, then
generation, counts; it leads to one of the active lists and to one of the reserved regions. A change writes the other
list, and the other reserved region if that changes, flushes, writes the other pointer, flushes. A member with a pointer
that is neither zeros nor good has no vote until it is written again. A change is true once a majority has it.
"""

GS_BODY: Final = """
## Bodies of the GS boot region

MessagePack: an active list is one `ActiveList`, a reserved region one `ReservedRegion`; no other entry is allowed.
While `before` is not empty the members are changing, and a majority of these must have the image, too.
"""

BODY: Final = f"""
## Bodies

MessagePack. The body of a base is a map with the one entry `objects`, an array of objects. That of a change has `put`,
objects that are new or replace those of the same name, and `drop`, an array of the names of those that are gone. An
object is a map: it has the entry `type`, and those of its type; an entry with a default value may be absent. Extents
start and end on multiples of 1 MiB, lie in the data area and don't overlap.

A volume object with the layout `{DELETED_LAYOUT}` is a tombstone: its volume is being deleted, or was while an ALU with
parts of it was away. No other object of that volume counts. Its entry `deletion` says what it waits for: it goes when
the ALUs named there are attached without parts of the volume, and no part is missing.
"""

SIGNATURE_TEXT: Final = """
## What a claim looks for

An ALU without metadata that is not zero in its first MiB and its last 64 KiB holds data, whether or not it is known;
so does one in which `blkid` finds something. Where `blkid` is not installed, what it is is told by this table:

| at byte | bytes | taken for |
|---|---|---|
"""


FORMATS: Final = (
    (LABEL, LabelSector),
    (MDR, DirectorySector),
    (TABLE, TableSector),
    (ENTRY, EntryFormat),
    (REGION, RegionSector),
    (CHANGE, ChangeSector),
    (GS, GsPointer),
    (BITMAP, BitmapSector),
    (LABEL_1, Label1Sector),
)


def document() -> str:
    """Make the whole text."""
    areas = "".join(
        f"| {_size(a.start)} | {'its end' if a.end is None else _size(a.end)} | {a.name} | {a.meaning or 'zero'} |\n"
        for a in AREAS
    )
    signatures = "".join(f"| {s.offset} | `{s.magic.hex(' ')}` | {s.name} |\n" for s in SIGNATURES)
    return "".join(
        (
            INTRODUCTION,
            areas,
            _tail(),
            LARGE_MAP,
            SECTORS,
            _wire(Sector),
            *(text + _wire(kind) for text, kind in FORMATS),
            BODY,
            *(_struct(kind) for kind in (*get_args(AnyObject), Extent, Leg, Deletion)),
            GS_BODY,
            *(_struct(kind) for kind in (ActiveList, RosterEntry, ReservedRegion, LegacyRecord)),
            SIGNATURE_TEXT,
            signatures,
        )
    )


def _tail() -> str:
    """List what lies at the end, in the order of its addresses."""
    starts = (*table_addresses(0)[2:], *label_addresses(0)[2:])
    return "".join(
        f"| end − {_size(-start)} | {f'end − {_size(-end)}' if end else 'end'} | {name} | |\n"
        for name, start, end in zip(TAIL_AREAS, starts, (*starts[1:], 0), strict=True)
    )


def _wire(kind: type[Wire]) -> str:
    return f"\n{kind.table()}\n"


def _struct(kind: type[msgspec.Struct]) -> str:
    """Give a stored structure as a table."""
    tag = kind.__struct_config__.tag
    rows = [f"\n### {kind.__name__}\n", "| entry | type | default |", "|---|---|---|"]
    if tag is not None:
        rows.append(f'| `type` | `"{tag}"` | |')
    for entry in msgspec.structs.fields(kind):
        default = "" if entry.default in (msgspec.NODEFAULT, msgspec.UNSET) else f"`{_plain(entry.default)!r}`"
        rows.append(f"| `{entry.encode_name}` | {_type(entry.type)} | {default} |")
    return "\n".join(rows) + "\n"


def _plain(value: object) -> object:
    return msgspec.to_builtins(value)


def _type(kind: Any) -> str:  # types of fields are whatever an annotation can be
    if kind in (type(None), msgspec.UnsetType):
        return "nil" if kind is type(None) else "absent"
    arguments = [a for a in get_args(kind) if a is not Ellipsis]
    if not arguments:
        return str(kind.__name__)
    if isinstance(kind, type(int | None)):
        return " or ".join(_type(argument) for argument in arguments)
    return f"array of {_type(arguments[0])}"


def _size(length: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if length and length % unit == 0:
            return f"{length // unit} {name}"
    return str(length)


if __name__ == "__main__":
    print(document(), end="")
