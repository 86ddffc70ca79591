"""Small volumes on ALUs in memory: two mirrors under a stripe, and what a storage processor would do for them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from backstores.alu.memory import MemoryDriver
from backstores.engine.engine import Engine
from backstores.metadata.bitmap import Geometry, Place
from backstores.objects import (
    MIB,
    AnyObject,
    Extent,
    Leg,
    LegState,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.volume.dirty import DirtyLog, LegLog
from backstores.volume.volume import Volume
from backstores.wwn import Wwn

DATA = 2 * MIB  # of each partition: where it starts, and how long it is
CHUNK_BLOCKS = 16
REGION_BLOCKS = 512
BLOCK_BYTES = 512


def object_wwn(number: int) -> Wwn:
    """Name the object of a number."""
    return Wwn(f"{0x6 << 124 | number:032x}")


def alu_wwn(number: int) -> Wwn:
    """Name the ALU of a number."""
    return Wwn(f"{0x5 << 60 | number:016x}")


def stripe_over_mirrors(
    width: int = 2,
    legs: int = 2,
    *,
    leg_bytes: int = DATA,
    chunk_blocks: int = CHUNK_BLOCKS,
    region_blocks: int = REGION_BLOCKS,
) -> tuple[AnyObject, ...]:
    """Define a volume: one ALU for each leg, its bitmap at 1 MiB, its data from 2 MiB on."""
    numbers = itertools.count(1)
    volume = object_wwn(next(numbers))
    blocks = leg_bytes // BLOCK_BYTES
    mirrors: list[AnyObject] = []
    partitions: list[AnyObject] = []
    alus = itertools.count(1)
    for _ in range(width):
        own = [
            PartitionObject(
                wwn=object_wwn(next(numbers)),
                volume=volume,
                alu=alu_wwn(next(alus)),
                extent=Extent(DATA, leg_bytes),
                bitmap=Extent(MIB, MIB),
            )
            for _ in range(legs)
        ]
        partitions += own
        mirrors.append(
            MirrorObject(
                wwn=object_wwn(next(numbers)),
                volume=volume,
                legs=tuple(Leg(partition.wwn) for partition in own),
                region_blocks=region_blocks,
                blocks=blocks,
            )
        )
    stripe = StripeObject(
        wwn=object_wwn(next(numbers)),
        volume=volume,
        children=tuple(mirror.wwn for mirror in mirrors),
        chunk_blocks=chunk_blocks,
        blocks=blocks * width,
    )
    head = VolumeObject(
        wwn=volume,
        name="v",
        root=stripe.wwn,
        layout="stripe-mirror",
        block_bytes=BLOCK_BYTES,
        blocks=stripe.blocks,
        created="2026-11-23T00:00:00Z",
    )
    return (head, stripe, *mirrors, *partitions)


@dataclass
class Machine:
    """ALUs that outlive the volumes on them, and the objects as last made durable."""

    objects: tuple[AnyObject, ...] = field(default_factory=stripe_over_mirrors)
    immediate: bool = True
    alus: dict[Wwn, MemoryDriver] = field(default_factory=dict)
    persisted: list[Sequence[AnyObject]] = field(default_factory=list)
    logs: dict[Wwn, DirtyLog] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for obj in self.objects:
            if isinstance(obj, PartitionObject):
                self.alus[obj.alu] = MemoryDriver(DATA * 2, path=obj.alu, immediate=self.immediate)

    def leg(self, mirror: int, leg: int, legs: int = 2) -> MemoryDriver:
        """Give the ALU of a leg."""
        return self.alus[alu_wwn(1 + mirror * legs + leg)]

    def data(self, mirror: int, leg: int) -> bytes:
        """Give what a leg's partition holds."""
        return bytes(self.leg(mirror, leg).content[DATA:])

    @property
    def leg_states(self) -> list[LegState]:
        """Give the durable state of all legs, mirror by mirror."""
        return [leg.state for obj in self.objects if isinstance(obj, MirrorObject) for leg in obj.legs]

    async def persist(self, changed: Sequence[AnyObject]) -> None:
        """Take changed objects as durable."""
        newer = {obj.wwn: obj for obj in changed}
        self.objects = tuple(newer.get(obj.wwn, obj) for obj in self.objects)
        self.persisted.append(changed)

    @asynccontextmanager
    async def volume(self, fresh: bool = True) -> AsyncIterator[Volume]:
        """Open the volume; ``fresh``: with clean bitmaps, as one just created. It is not closed: that is a crash."""
        for alu in self.alus.values():
            alu.closed = False  # the engine of the volume before closed it
        async with Engine() as engine:
            self.logs = {}
            make = DirtyLog.create if fresh else DirtyLog.load
            for obj in self.objects:
                if isinstance(obj, MirrorObject):
                    legs = [self._leg_log(leg.child) for leg in obj.legs if leg.state is LegState.IN_SYNC]
                    self.logs[obj.wwn] = await make(engine, Geometry.of(obj), legs)
            yield Volume(self.objects, self.alus, engine, self.logs, self.persist)

    def _leg_log(self, wwn: Wwn) -> LegLog:
        partition = next(obj for obj in self.objects if obj.wwn == wwn)
        assert isinstance(partition, PartitionObject)
        return LegLog(partition.wwn, self.alus[partition.alu], Place.of(partition))
