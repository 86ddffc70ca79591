"""The description of the format, made from its declarations.

python -m backstores.metadata.document > docs/metadata-format.md
"""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from backstores.metadata.bitmap import LEAST_REGION_BYTES, MOST_REGIONS, REGIONS_OF_A_SECTOR, BitmapSector
from backstores.metadata.label import LabelSector
from backstores.metadata.layout import AREAS, FORMAT_VERSION, LEAST_ALU_BYTES, TAIL_BYTES
from backstores.metadata.region import RegionSector
from backstores.metadata.sector import Sector
from backstores.metadata.signatures import SIGNATURES
from backstores.metadata.steps import IO_UNIT
from backstores.objects import DELETED_LAYOUT, AnyObject, Deletion, Extent, Leg
from backstores.wire import Wire

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

TAIL: Final = f"""\
| end − {TAIL_BYTES >> 20} MiB, rounded down to 1 MiB | end | reserved | label copies of a later version |
"""

SECTORS: Final = """
## Sectors

Every structure begins with the same fields. Bytes 0 to 15 keep their place and meaning in all versions: a reader first
looks at the magic number, then at the checksum, then at the version, and refuses a newer one with its number. A sector
found at another address than its own, or on another ALU, does not count.
"""

LABEL: Final = """
### Label

Two copies say the same. The good copy with the highest generation counts. A change writes the older copy, flushes,
writes the other, flushes. Two good copies of one generation that differ: none counts. A copy of a newer version: the
ALU is not touched.
"""

REGION: Final = """
### Header of an object region

Two copies take turns; the good one with the highest generation is live, and is never overwritten. A commit writes the
body of the other one, flushes, writes its header, flushes. A header whose body does not match is of a write that a
crash cut short if it is older than the live one, and of a damaged copy if it is newer.
"""

BITMAP: Final = f"""
### Sector of a dirty-region bitmap

A mirror has at most {MOST_REGIONS} regions of at least {LEAST_REGION_BYTES >> 20} MiB each, a power of two of blocks; a
sector holds {REGIONS_OF_A_SECTOR}. The bitmap lies in the extent `bitmap` of the partition object. A sector that can't
be read, or that names another mirror, leg, place or size, counts as all dirty. Of several legs the union counts.
"""

BODY: Final = f"""
## Body of an object region

MessagePack: a map with the one entry `objects`, an array of maps. Each has the entry `type`, and those of its type; an
entry with a default value may be absent. Extents start and end on multiples of 1 MiB, lie in the data area and don't
overlap. Free room is what they leave; it is stored nowhere else.

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


def document() -> str:
    """Make the whole text."""
    areas = "".join(
        f"| {_size(a.start)} | {'the tail' if a.end is None else _size(a.end)} | {a.name} | {a.meaning} |\n"
        for a in AREAS
    )
    signatures = "".join(f"| {s.offset} | `{s.magic.hex(' ')}` | {s.name} |\n" for s in SIGNATURES)
    return "".join(
        (
            INTRODUCTION,
            areas,
            TAIL,
            SECTORS,
            _wire(Sector),
            LABEL,
            _wire(LabelSector),
            REGION,
            _wire(RegionSector),
            BITMAP,
            _wire(BitmapSector),
            BODY,
            *(_struct(kind) for kind in (*get_args(AnyObject), Extent, Leg, Deletion)),
            SIGNATURE_TEXT,
            signatures,
        )
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
