"""The bodies in an object region: the objects on one ALU, and what must hold among them (R3).

The body of a base is a MessagePack map of one entry, ``objects``: an array of maps, one an object, whose
``type`` says which of ``backstores.objects`` it is. The body of a change has the entries ``put``, such an
array, and ``drop``, an array of names. Decoding is strict: a type that does not fit, or
an entry that this version does not know, makes the whole body invalid, never a guess. What decodes
can still be nonsense (an extent past the end); ``check`` names it, object by object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from backstores.errors import CorruptError
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.layout import ALLOCATION_UNIT
from backstores.metadata.sector import COUNTER_LIMIT
from backstores.objects import AnyObject, Extent, MirrorObject, PartitionObject, StripeObject, VolumeObject
from backstores.wwn import Wwn

T = TypeVar("T")

BLOCK_SIZES: Final = (512, 4096)
MOST_NAME_CHARACTERS: Final = 63


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is encoded of a base. A later version may add entries; then the format version rises."""

    objects: tuple[AnyObject, ...]


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is encoded of a change: objects that are new or have changed, and the names of those that are gone."""

    put: tuple[AnyObject, ...]
    drop: tuple[Wwn, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)
_change_decoder = msgspec.msgpack.Decoder(Change)


def encode(objects: Iterable[AnyObject]) -> bytes:
    """Make the body of a base."""
    return _encoder.encode(Body(tuple(objects)))


def encode_change(put: Iterable[AnyObject], drop: Iterable[Wwn]) -> bytes:
    """Make the body of a change."""
    return _encoder.encode(Change(tuple(put), tuple(drop)))


def decode(raw: bytes) -> tuple[AnyObject, ...]:
    """Read the body of a base.

    Raises:
        CorruptError: it does not decode.
    """
    return _decoded(_decoder, raw).objects


def decode_change(raw: bytes) -> Change:
    """Read the body of a change.

    Raises:
        CorruptError: it does not decode.
    """
    return _decoded(_change_decoder, raw)


def _decoded(decoder: msgspec.msgpack.Decoder[T], raw: bytes) -> T:
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError) as error:  # msgspec's own errors, and those of text, are ValueErrors
        raise CorruptError(f"the objects do not decode ({type(error).__name__})") from error


def check(objects: Sequence[AnyObject], alu: Wwn, data: Extent) -> tuple[Finding, ...]:
    """Name every object that can't be meant as it stands."""
    return (*_each(objects, set(), alu, data), *_overlaps(objects))


def check_new(new: Sequence[AnyObject], others: Sequence[AnyObject], alu: Wwn, data: Extent) -> tuple[Finding, ...]:
    """Name what is wrong with new objects, by themselves and beside others that nothing is wrong with.

    It finds all that ``check`` would of both together, in a time that hardly depends on how many others there are.
    """
    taken = {item.wwn for item in others}
    if len(taken) < len(others):
        return check((*others, *new), alu, data)
    findings = (*_each(new, taken, alu, data), *_overlaps(new))
    added = list(extents(new))
    if not added:
        return findings
    between = (
        finding
        for extent, item in extents(others)
        for mine, it in added
        if mine.start_bytes < extent.end_bytes and extent.start_bytes < mine.end_bytes
        for finding in _collision(it, item, max(mine, extent))
    )
    return (*findings, *between)


def _each(objects: Iterable[AnyObject], seen: set[Wwn], alu: Wwn, data: Extent) -> Iterator[Finding]:
    """Look at each object by itself; ``seen`` has the names that are taken."""
    for item in objects:
        if item.wwn in seen:
            yield Finding(Problem.DUPLICATE, described(item), "its name is there twice", item.wwn)
        seen.add(item.wwn)
        for problem, detail in _problems(item, alu, data):
            yield Finding(problem, described(item), detail, item.wwn)


def extents(objects: Iterable[AnyObject]) -> Iterator[tuple[Extent, PartitionObject]]:
    """Yield every run of bytes that partitions claim, bitmaps included."""
    for item in objects:
        if isinstance(item, PartitionObject):
            yield item.extent, item
            if item.bitmap is not None:
                yield item.bitmap, item


def _problems(item: AnyObject, alu: Wwn, data: Extent) -> Iterator[tuple[Problem, str]]:
    if isinstance(item, PartitionObject):
        if item.alu != alu:
            yield Problem.FOREIGN, "it lies on another alu"
        for extent in (item.extent,) if item.bitmap is None else (item.extent, item.bitmap):
            if (
                extent.length_bytes <= 0
                or extent.start_bytes % ALLOCATION_UNIT
                or extent.length_bytes % ALLOCATION_UNIT
            ):
                yield Problem.INVALID, f"{_text(extent)} is not of whole units of {ALLOCATION_UNIT}"
            if extent.start_bytes < data.start_bytes or extent.end_bytes > data.end_bytes:
                yield Problem.OUTSIDE, f"{_text(extent)} leaves the data area, {_text(data)}"
    elif not item.children:
        yield Problem.INVALID, "it has no children"
    if not all(map(is_object_name, _names(item))):
        yield Problem.INVALID, "it, a child or its volume has no NAA 6 name"
    numbers = _numbers(item)
    if not (min(numbers) > 0 and max(numbers) <= COUNTER_LIMIT):
        yield Problem.INVALID, "its generation or a size is out of bounds"
    if isinstance(item, VolumeObject):
        if item.block_bytes not in BLOCK_SIZES:
            yield Problem.INVALID, f"blocks of {item.block_bytes} bytes, not of 512 or 4096"
        if not (0 < len(item.name) <= MOST_NAME_CHARACTERS and item.name.isprintable()):
            yield Problem.INVALID, f"its name is not 1 to {MOST_NAME_CHARACTERS} printable characters"
        if not all(len(text) <= MOST_NAME_CHARACTERS and text.isprintable() for text in (item.layout, item.created)):
            yield Problem.INVALID, f"its layout or date is not up to {MOST_NAME_CHARACTERS} printable characters"


def _names(item: AnyObject) -> tuple[Wwn, ...]:
    """Give all names of objects in it."""
    if isinstance(item, VolumeObject) and item.deletion is not msgspec.UNSET:
        return (item.wwn, item.root, *item.deletion.missing)
    return (item.wwn, item.volume, *item.children)


def _numbers(item: AnyObject) -> tuple[int, ...]:
    """Give its numbers, none of which may be zero."""
    if isinstance(item, PartitionObject):
        return (item.generation,)
    if isinstance(item, StripeObject):
        return (item.generation, item.blocks, item.chunk_blocks)
    if isinstance(item, MirrorObject):
        return (item.generation, item.blocks, item.region_blocks, item.fail_sequence + 1)  # that one may be zero
    return (item.generation, item.blocks)


def _overlaps(objects: Sequence[AnyObject]) -> Iterator[Finding]:
    """Compare each extent with the one that reaches farthest before it."""
    ordered = sorted(extents(objects), key=lambda pair: pair[0])
    farthest = None
    for extent, item in ordered:
        if farthest is not None and extent.start_bytes < farthest[0].end_bytes:
            yield from _collision(item, farthest[1], extent)
        if farthest is None or extent.end_bytes > farthest[0].end_bytes:
            farthest = (extent, item)


def _collision(one: PartitionObject, other: PartitionObject, extent: Extent) -> Iterator[Finding]:
    """Name both of two partitions that overlap; ``extent`` is the one that begins later."""
    for mine, its in ((one, other), (other, one)):
        text = f"it overlaps partition {shown(its.wwn)} at byte {extent.start_bytes}"
        yield Finding(Problem.OVERLAP, described(mine), text, mine.wwn)


is_object_name: Final = re.compile(r"6[0-9a-f]{31}").fullmatch
"""Say whether it is an NAA 6 name. All names on all ALUs are looked at: ``parse_wwn`` takes five times as long."""


def shown(name: Wwn) -> str:
    """Give a name for a message: what a disk holds in its place is not repeated if it is none (S3)."""
    return name if is_object_name(name) else "without a valid name"


def described(item: AnyObject) -> str:
    """Name an object in a message."""
    return f"{type(item).__name__.removesuffix('Object').lower()} {shown(item.wwn)}"


def _text(extent: Extent) -> str:
    return f"extent {extent.start_bytes} + {extent.length_bytes}"
