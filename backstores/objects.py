"""What a volume is made of: the definitions that live on the ALUs (R3).

A definition is immutable; a change makes a new one with a higher generation. Objects name each other
by WWN. First-tier objects (partitions) lie on one ALU alone; second-tier objects (stripe, mirror,
concat, volume) are stored on every ALU below them, so that a volume of N members has N copies.

There are hundreds of thousands of them in a large system. They can't be part of a cycle, for nothing changes
after it was made; ``gc=False`` spares the garbage collector from following each of them again and again.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from backstores.wwn import Wwn

MIB = 1 << 20


class Extent(msgspec.Struct, frozen=True, order=True, gc=False):
    """A run of bytes on an ALU."""

    start_bytes: int
    length_bytes: int

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.start_bytes + self.length_bytes


class StoredObject(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    """What all objects have. Of two copies of one object the higher generation is the newer."""

    wwn: Wwn
    generation: int = 1


class PartitionObject(StoredObject, frozen=True, kw_only=True, gc=False, tag="partition"):
    """A part of one ALU (T1). A mirror leg's partition also has room for a dirty-region bitmap."""

    volume: Wwn
    alu: Wwn
    extent: Extent
    bitmap: Extent | None = None

    @property
    def children(self) -> tuple[Wwn, ...]:
        """None: it stands on its ALU."""
        return ()


class StripeObject(StoredObject, frozen=True, kw_only=True, gc=False, tag="stripe"):
    """Consecutive chunks, round robin over equal members (T2)."""

    volume: Wwn
    children: tuple[Wwn, ...]
    chunk_blocks: int
    blocks: int


class ConcatObject(StoredObject, frozen=True, kw_only=True, gc=False, tag="concat"):
    """Members one behind the other (T2)."""

    volume: Wwn
    children: tuple[Wwn, ...]
    blocks: int


class LegState(enum.StrEnum):
    """How much of a mirror a leg holds."""

    IN_SYNC = "in-sync"
    STALE = "stale"
    FAILED = "failed"


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One member of a mirror."""

    child: Wwn
    state: LegState = LegState.IN_SYNC


class MirrorObject(StoredObject, frozen=True, kw_only=True, gc=False, tag="mirror"):
    """The same blocks on every leg (T2). ``region_blocks`` is what one bit of the dirty bitmap stands for."""

    volume: Wwn
    legs: tuple[Leg, ...]
    region_blocks: int
    blocks: int
    fail_sequence: int = 0

    @property
    def children(self) -> tuple[Wwn, ...]:
        """The members, as in the other objects."""
        return tuple(leg.child for leg in self.legs)


DELETED_LAYOUT: Final = "deleted"
"""The layout of a volume object that only says that its volume is gone."""


class Deletion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a tombstone waits for: ALUs that had parts of the volume, and parts that were on no attached ALU."""

    alus: tuple[Wwn, ...] = ()
    missing: tuple[Wwn, ...] = ()


class VolumeObject(StoredObject, frozen=True, kw_only=True, gc=False, tag="volume"):
    """The root of a tree: what a host sees (T2). ``created`` is UTC in ISO 8601.

    One of ``DELETED_LAYOUT`` is a tombstone: it outvotes older copies on ALUs that were away when the volume was
    deleted, and goes when none can come back. Those of the first format version don't say what they wait for.
    """

    name: str
    root: Wwn
    layout: str
    block_bytes: int
    blocks: int
    created: str
    deletion: Deletion | msgspec.UnsetType = msgspec.UNSET

    @property
    def volume(self) -> Wwn:
        """Itself, as in the other objects."""
        return self.wwn

    @property
    def children(self) -> tuple[Wwn, ...]:
        """The one object below, as in the other objects."""
        return (self.root,)

    @property
    def deleted(self) -> bool:
        """Whether it is a tombstone."""
        return self.layout == DELETED_LAYOUT


AnyObject = PartitionObject | StripeObject | ConcatObject | MirrorObject | VolumeObject
