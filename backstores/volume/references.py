"""Remote reference nodes: first-tier objects that another storage processor has, as a volume's tree sees them (R12).

A partition on another storage processor is reached as a LUN, its *T1 unit*: its data from the first block on, and the
bitmap behind them. To the tree it is a partition like any other, only that its ALU bears its own name and begins where
the partition does: ``drivers`` has, under that name, the driver of the LUN. What the ALU really is called, and where on
it the bitmap lies, stays in the bitmap's sectors (M1): their bytes are the same by whatever way they are written.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from backstores.alu.base import AluDriver
from backstores.metadata.bitmap import Place
from backstores.objects import AnyObject, Extent, PartitionObject
from backstores.volume.dirty import LegLog
from backstores.wwn import Wwn


def extents_of(partition: PartitionObject) -> tuple[Extent, ...]:
    """Say what of its ALU is a partition's T1 unit."""
    return (partition.extent,) if partition.bitmap is None else (partition.extent, partition.bitmap)


def referenced(objects: Iterable[AnyObject], remote: Container[Wwn]) -> tuple[AnyObject, ...]:
    """Give a volume's objects as one storage processor sees them, which reaches those in ``remote`` as LUNs."""
    return tuple(
        _reference(item) if isinstance(item, PartitionObject) and item.wwn in remote else item for item in objects
    )


def leg_log(child: Wwn, partition: PartitionObject, driver: AluDriver, remote: Container[Wwn]) -> LegLog:
    """Say where a leg's bitmap is found; ``partition`` is the leg's first, as it is stored, ``driver`` leads to it.

    Raises:
        UsageError: the partition has no room for a bitmap.
    """
    place = Place.of(partition)
    moved_bytes = partition.extent.length_bytes - place.start_bytes if partition.wwn in remote else 0
    return LegLog(child, driver, place, moved_bytes)


def _reference(partition: PartitionObject) -> PartitionObject:
    length_bytes, bitmap = partition.extent.length_bytes, partition.bitmap
    return msgspec.structs.replace(
        partition,
        alu=partition.wwn,
        extent=Extent(0, length_bytes),
        bitmap=None if bitmap is None else Extent(length_bytes, bitmap.length_bytes),
    )
