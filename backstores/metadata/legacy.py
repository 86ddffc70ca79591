"""What is stored about a legacy ALU: elsewhere, for its own bytes are not ours to write (R5).

An owned ALU says itself what it is. Of a legacy ALU the *record* says so: its name, what it was recognized by when it
was attached, and the objects of the one volume that may lie on it. Records are kept in the reserved region of the GS
set, by the ALU's name; they are bytes to it.

Nothing on a legacy ALU can be relied upon to tell it from another: hosts write there as they please, a partition table
included, so a digest of any part of it would turn against its owner. What does not change is what it was made as:

- a disk by the serial number or world wide name that it reports, which it keeps when the kernel finds it under
  another path;
- a file by its inode number and the inode's generation, for a number is used again once its file is gone. These hold
  for one file system alone, so the path must be the same as well.

Where neither is to be had (some loop devices, network file systems), path and size have to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from backstores.errors import CorruptError, UsageError
from backstores.objects import AnyObject, Extent, PartitionObject, VolumeObject
from backstores.transforms.tree import build
from backstores.wwn import Wwn

LEGACY_LAYOUT: Final = "legacy"
DIRECT_LAYOUT: Final = "direct"
WHOLE_LAYOUTS: Final = frozenset({LEGACY_LAYOUT, DIRECT_LAYOUT})
"""The layouts of volumes that are a legacy ALU as it is; the second lets hosts speak to it themselves."""

MOST_MARK_CHARACTERS: Final = 200


class Mark(msgspec.Struct, frozen=True):
    """What a file or disk is recognized by. ``text`` is empty where it tells nothing; ``anywhere``: by any path."""

    size_bytes: int
    text: str = ""
    anywhere: bool = False


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is known of a legacy ALU; ``objects`` is empty, or a whole volume, its volume object first."""

    alu: Wwn
    path: str
    mark: Mark
    objects: tuple[AnyObject, ...] = ()

    @property
    def volume(self) -> VolumeObject | None:
        """The volume on it, if there is one."""
        head = self.objects[0] if self.objects else None
        assert head is None or isinstance(head, VolumeObject)
        return head


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Make the bytes to be kept."""
    return _encoder.encode(record)


def decode(raw: bytes) -> Record:
    """Read a record.

    Raises:
        CorruptError: it is none, or what it says can't be meant.
    """
    try:
        record = _decoder.decode(raw)
    except (ValueError, RecursionError) as error:  # msgspec's own errors, and those of text, are ValueErrors
        raise CorruptError(f"the record of a legacy alu does not decode ({type(error).__name__})") from error
    if record.objects:
        _check(record)
    return record


def _check(record: Record) -> None:
    """Make sure that the objects are one volume which is the ALU as it is, block for block."""
    root = build(record.objects)
    whole = [PartitionObject, Extent(0, record.mark.size_bytes), record.alu]
    found = [[type(item), item.extent, item.alu] for item in record.objects if isinstance(item, PartitionObject)]
    head = record.volume
    assert head is not None
    if (
        head.layout not in WHOLE_LAYOUTS
        or len(record.objects) != 2
        or found != [whole]
        or root.blocks * head.block_bytes != record.mark.size_bytes
    ):
        raise CorruptError(f"the volume on legacy alu {record.alu} is not the whole of it")


def recognize(records: Iterable[Record], path: str, mark: Mark, force: bool = False) -> Record | None:
    """Say which legacy ALU is found at a path; None: one that was never here. The answer has this path and this mark.

    ``force``: what stands at the path takes the place of what stood there, though it is something else.

    Raises:
        UsageError: something else than what was attached there stands at the path, and hosts may want that back.
    """
    known = [record for record in records if record.objects or record.mark == mark]  # else there is nothing to lose
    for record in known:
        if mark.text and record.mark.text == mark.text and (mark.anywhere or record.path == path):
            return msgspec.structs.replace(_sized(record, path, mark.size_bytes), path=path, mark=mark)
    there = [record for record in known if record.path == path]
    if not there:
        return None
    if there[0].mark != mark and not force:
        raise UsageError(
            f"{path} is {_shown(mark)}; {_described(there[0])} was {_shown(there[0].mark)}: bring that back, or if this"
            " has the same data, detach the alu and attach it with legacy=yes force=yes"
        )
    return msgspec.structs.replace(_sized(there[0], path, mark.size_bytes), mark=mark)


def _sized(record: Record, path: str, size_bytes: int) -> Record:
    """Let a volume grow with its ALU, which it is the whole of.

    Raises:
        UsageError: the ALU has become smaller, or is no longer whole blocks.
    """
    had_bytes = record.mark.size_bytes
    if not record.objects or had_bytes == size_bytes:
        return record
    head, leaf = record.objects
    assert isinstance(head, VolumeObject)
    assert isinstance(leaf, PartitionObject)
    blocks, part = divmod(size_bytes, head.block_bytes)
    if part or size_bytes < had_bytes:
        raise UsageError(
            f"{path} has {size_bytes} bytes; {_described(record)} had {had_bytes}, and blocks of {head.block_bytes}:"
            " bring that back"
        )
    return msgspec.structs.replace(
        record,
        objects=(
            msgspec.structs.replace(head, blocks=blocks, generation=head.generation + 1),
            msgspec.structs.replace(leaf, extent=Extent(0, size_bytes), generation=leaf.generation + 1),
        ),
    )


def _described(record: Record) -> str:
    volume = record.volume
    return f"the legacy alu there, with volume {volume.name}," if volume else "the legacy alu there"


def _shown(mark: Mark) -> str:
    return mark.text or "something without a serial number"
