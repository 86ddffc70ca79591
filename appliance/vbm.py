"""The Virtualization Block Manager: turns what a person asks for into a volume tree (R11).

It decides and does nothing else: a request and the inventory of ALUs in, objects out. It does not
know on which storage processor any of them will live. What it builds is

    volume - [concat] - stripe - mirror - partition

with the levels that the layout needs. Every object below the volume uses the whole of its extents;
only the volume object may be smaller, because extents come in allocation units. A volume grows by
one more such subtree behind the first: that makes its root a concatenation, or a longer one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from appliance.messages import AluStatus
from appliance.mic.values import exact_size, parse_name, shown
from appliance.placement import Candidates, Place
from backstores.block import leaves
from backstores.errors import UsageError
from backstores.metadata.bitmap import bitmap_bytes, region_blocks_for
from backstores.metadata.layout import ALLOCATION_UNIT
from backstores.objects import (
    AnyObject,
    ConcatObject,
    Extent,
    Leg,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.transforms.tree import BLOCK_BYTES, MAX_VOLUME_BYTES, build
from backstores.wwn import RandomBits, Wwn, new_object_wwn

LEGS: Final = range(2, 9)
WIDTH: Final = range(2, 65)
CONCAT_WIDTH: Final = range(1, 65)
MAX_CHUNK_BYTES: Final = 16 << 20
PAGE_BYTES: Final = 4096  # what sizes are rounded down to where there are no chunks


class Layout(StrEnum):
    """The kinds of volumes that can be asked for (R7)."""

    LINEAR = "linear"
    CONCAT = "concat"
    STRIPE = "stripe"
    MIRROR = "mirror"
    STRIPE_MIRROR = "stripe-mirror"


STRIPED: Final = frozenset({Layout.STRIPE, Layout.STRIPE_MIRROR})
MIRRORED: Final = frozenset({Layout.MIRROR, Layout.STRIPE_MIRROR})


class VolumeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for. ``alus`` are taken as they are named; empty, the VBM chooses from the inventory.

    ``width``: stripe columns, or members of a concatenation; ``legs``: copies in a mirror. Each is looked
    at only where the layout has such a thing. ``created`` is the present time, UTC in ISO 8601.
    """

    name: str
    size_bytes: int
    layout: str
    alus: tuple[Wwn, ...] = ()
    chunk_bytes: int = 64 << 10
    legs: int = 2
    width: int = 2
    block_bytes: int = 512
    max_alus: int | None = None
    created: str = ""


class BuiltVolume(msgspec.Struct, frozen=True):
    """A volume tree, the volume object first, and what the person should know of it."""

    objects: tuple[AnyObject, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Geometry:
    """The checked numbers of a request: so many columns of so many legs, 1 where there is no such level.

    A concatenation's columns are the ALUs that it is spread over; with 1, it takes as few as will do.
    """

    layout: Layout
    columns: int
    legs: int
    chunk_bytes: int
    block_bytes: int

    @property
    def row_bytes(self) -> int:
        """What a volume's size is a multiple of."""
        return self.columns * self.chunk_bytes if self.layout in STRIPED else PAGE_BYTES

    def rounded(self, size_bytes: int) -> int:
        """Round a volume's size down to whole rows."""
        return size_bytes - size_bytes % self.row_bytes


@dataclass(frozen=True, slots=True)
class Subtree:
    """A part of a volume: its objects, the topmost first, and its capacity."""

    objects: tuple[AnyObject, ...]
    blocks: int

    @property
    def wwn(self) -> Wwn:
        """The topmost object's name."""
        return self.objects[0].wwn


def build_volume(
    request: VolumeRequest, inventory: Sequence[AluStatus], random_bits: RandomBits = secrets.randbits
) -> BuiltVolume:
    """Build the tree of a new volume on owned ALUs of the inventory.

    Raises:
        UsageError: the request can't be met; says which value, the limit, and what to do.
    """
    geometry = _checked(request)
    size_bytes = geometry.rounded(request.size_bytes)
    if size_bytes < 1:
        raise UsageError(
            f"size {request.size_bytes} is too small: the least of this layout is {exact_size(geometry.row_bytes)}"
        )
    candidates = Candidates(inventory, geometry.block_bytes, named=request.alus, max_alus=request.max_alus)
    maker = _Maker(geometry, new_object_wwn(random_bits), random_bits)
    members = maker.members(candidates, size_bytes)
    root = members[0] if len(members) == 1 else maker.concat(members)
    volume = VolumeObject(
        wwn=maker.volume,
        name=request.name,
        root=root.wwn,
        layout=geometry.layout,
        block_bytes=geometry.block_bytes,
        blocks=size_bytes // geometry.block_bytes,
        created=request.created,
    )
    return BuiltVolume((volume, *root.objects), _notes(geometry, request.size_bytes, size_bytes))


def grow_volume(
    objects: Sequence[AnyObject],
    add_bytes: int,
    inventory: Sequence[AluStatus],
    alus: tuple[Wwn, ...] = (),
    random_bits: RandomBits = secrets.randbits,
) -> BuiltVolume:
    """Append space of the same layout to a volume, on the ALUs it has where they have room, else on others.

    The answer is the whole new tree; what has changed in it has a higher generation.

    Raises:
        UsageError: the growth can't be met; says which value, the limit, and what to do.
        CorruptError: the objects are no proper tree.
    """
    tree = build(objects)
    volume = objects[0]
    assert isinstance(volume, VolumeObject)
    root = next(item for item in objects if item.wwn == volume.root)
    geometry = _geometry_of(volume, objects)
    block_bytes = volume.block_bytes
    old_bytes = volume.blocks * block_bytes
    size_bytes = geometry.rounded(old_bytes + add_bytes)
    if size_bytes <= old_bytes:
        raise UsageError(f"{add_bytes} bytes more are too few: the least step is {exact_size(geometry.row_bytes)}")
    _check_size(size_bytes)
    new: tuple[AnyObject, ...] = ()
    missing_bytes = size_bytes - _blocks(root, block_bytes) * block_bytes
    if missing_bytes > 0:
        had = tuple(dict.fromkeys(leaf.alu for leaf in leaves(tree)))
        candidates = Candidates(inventory, block_bytes, named=alus, preferred=had)
        maker = _Maker(geometry, volume.wwn, random_bits)
        members = maker.members(candidates, missing_bytes)
        new = maker.appended(root, members)
    changed = {item.wwn for item in new}
    grown = msgspec.structs.replace(
        volume,
        generation=volume.generation + 1,
        blocks=size_bytes // block_bytes,
        root=new[0].wwn if new else volume.root,
    )
    kept = [item for item in objects[1:] if item.wwn not in changed]
    return BuiltVolume((grown, *new, *kept), _notes(geometry, old_bytes + add_bytes, size_bytes))


class _Maker:
    """Makes the objects of one volume."""

    def __init__(self, geometry: Geometry, volume: Wwn, random_bits: RandomBits) -> None:
        self._geometry = geometry
        self._random_bits = random_bits
        self.volume = volume

    def members(self, candidates: Candidates, size_bytes: int) -> list[Subtree]:
        """Make subtrees which, one behind the other, have room for ``size_bytes``."""
        geometry = self._geometry
        if geometry.layout not in STRIPED | MIRRORED:
            if geometry.columns > 1:
                return [self._partition(place) for place in candidates.spread(geometry.columns, size_bytes)]
            return [self._partition(place) for place in candidates.fill(size_bytes)]
        # Whole rows in, so whole chunks out: those below an allocation unit divide it, the others are multiples of it.
        column_bytes = _up(-(-size_bytes // geometry.columns), ALLOCATION_UNIT)
        mirrored = geometry.layout in MIRRORED
        room_bytes = bitmap_bytes(column_bytes // geometry.block_bytes, geometry.block_bytes) if mirrored else 0
        places = candidates.equal_parts(geometry.columns * geometry.legs, column_bytes + room_bytes)
        partitions = [self._partition(place, room_bytes) for place in places]
        if mirrored:
            legs = geometry.legs
            partitions = [self._mirror(partitions[at : at + legs]) for at in range(0, len(partitions), legs)]
        return [self._stripe(partitions)] if geometry.layout in STRIPED else partitions

    def concat(self, members: Sequence[Subtree]) -> Subtree:
        """Join subtrees."""
        blocks = sum(member.blocks for member in members)
        joined = ConcatObject(
            wwn=self._wwn(), volume=self.volume, children=tuple(member.wwn for member in members), blocks=blocks
        )
        return _above(joined, members, blocks)

    def appended(self, root: AnyObject, members: Sequence[Subtree]) -> tuple[AnyObject, ...]:
        """Put subtrees behind a root: give the new root, and all that is new below it."""
        if not isinstance(root, ConcatObject):
            existing = Subtree((root,), _blocks(root, self._geometry.block_bytes))
            return self.concat([existing, *members]).objects
        longer = msgspec.structs.replace(
            root,
            generation=root.generation + 1,
            children=(*root.children, *(member.wwn for member in members)),
            blocks=root.blocks + sum(member.blocks for member in members),
        )
        return _above(longer, members, longer.blocks).objects

    def _stripe(self, columns: Sequence[Subtree]) -> Subtree:
        chunk_blocks = self._geometry.chunk_bytes // self._geometry.block_bytes
        blocks = sum(column.blocks for column in columns)
        stripe = StripeObject(
            wwn=self._wwn(),
            volume=self.volume,
            children=tuple(column.wwn for column in columns),
            chunk_blocks=chunk_blocks,
            blocks=blocks,
        )
        return _above(stripe, columns, blocks)

    def _mirror(self, legs: Sequence[Subtree]) -> Subtree:
        blocks = legs[0].blocks
        mirror = MirrorObject(
            wwn=self._wwn(),
            volume=self.volume,
            legs=tuple(Leg(leg.wwn) for leg in legs),
            region_blocks=region_blocks_for(blocks, self._geometry.block_bytes),
            blocks=blocks,
        )
        return _above(mirror, legs, blocks)

    def _partition(self, place: Place, room_bytes: int = 0) -> Subtree:
        """Make a partition, with the last ``room_bytes`` of the place for a mirror leg's bitmap."""
        data = Extent(place.extent.start_bytes, place.extent.length_bytes - room_bytes)
        partition = PartitionObject(
            wwn=self._wwn(),
            volume=self.volume,
            alu=place.alu,
            extent=data,
            bitmap=Extent(data.end_bytes, room_bytes) if room_bytes else None,
        )
        return Subtree((partition,), data.length_bytes // self._geometry.block_bytes)

    def _wwn(self) -> Wwn:
        return new_object_wwn(self._random_bits)


def _above(item: AnyObject, members: Sequence[Subtree], blocks: int) -> Subtree:
    return Subtree((item, *(below for member in members for below in member.objects)), blocks)


def _blocks(item: AnyObject, block_bytes: int) -> int:
    """Give the capacity of an object, which for a partition is its whole extent."""
    return item.extent.length_bytes // block_bytes if isinstance(item, PartitionObject) else item.blocks


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _checked(request: VolumeRequest) -> Geometry:
    """Check everything about a request that does not depend on the ALUs."""
    parse_name(request.name)
    layout = _layout(request.layout)
    if request.block_bytes not in BLOCK_BYTES:
        raise UsageError(f"blocks of {request.block_bytes} bytes are not known: take 512 or 4096")
    _check_size(request.size_bytes)
    columns = legs = 1
    if layout in STRIPED:
        _check_range("width", request.width, WIDTH)
        _check_chunk(request.chunk_bytes, request.block_bytes)
        columns = request.width
    if layout is Layout.CONCAT:
        columns = len(request.alus) or request.width
        _check_range("width", columns, CONCAT_WIDTH)
    if layout in MIRRORED:
        _check_range("legs", request.legs, LEGS)
        legs = request.legs
    return Geometry(layout, columns, legs, request.chunk_bytes, request.block_bytes)


def _geometry_of(volume: VolumeObject, objects: Sequence[AnyObject]) -> Geometry:
    """Read back what a volume was made with. New space has the form of the first: all of it is alike."""
    stripe = next((item for item in objects if isinstance(item, StripeObject)), None)
    mirror = next((item for item in objects if isinstance(item, MirrorObject)), None)
    return Geometry(
        layout=_layout(volume.layout),
        columns=len(stripe.children) if stripe else 1,
        legs=len(mirror.legs) if mirror else 1,
        chunk_bytes=stripe.chunk_blocks * volume.block_bytes if stripe else volume.block_bytes,
        block_bytes=volume.block_bytes,
    )


def _layout(text: str) -> Layout:
    try:
        return Layout(text)
    except ValueError:
        raise UsageError(f"layout {shown(text)} is not known: take {', '.join(Layout)}") from None


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_VOLUME_BYTES:
        raise UsageError(f"size {size_bytes} is above {MAX_VOLUME_BYTES} bytes, the most that a volume can have")


def _check_range(name: str, number: int, allowed: range) -> None:
    if number not in allowed:
        raise UsageError(f"{name} {number} is not {allowed[0]} to {allowed[-1]}")


def _check_chunk(chunk_bytes: int, block_bytes: int) -> None:
    if chunk_bytes < 1 or chunk_bytes & (chunk_bytes - 1) or not block_bytes <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise UsageError(f"chunk {chunk_bytes} is not a power of two from {block_bytes} to {MAX_CHUNK_BYTES} bytes")


def _notes(geometry: Geometry, asked_bytes: int, size_bytes: int) -> tuple[str, ...]:
    if asked_bytes == size_bytes:
        return ()
    step = exact_size(geometry.row_bytes)
    return (f"size is rounded down from {asked_bytes} to {size_bytes} bytes, a multiple of {step}",)
