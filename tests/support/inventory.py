"""Inventories of ALUs for tests of placement, and what building a volume does to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from appliance.messages import AluState, AluStatus
from backstores.metadata.free import free_extents
from backstores.objects import MIB, AnyObject, Extent, PartitionObject
from backstores.wwn import Wwn

GIB = 1 << 30
DATA_START = 8 * MIB


def alu_wwn(number: int) -> Wwn:
    """Name the ALU of this number."""
    return Wwn(f"5{number:015x}")


def make_alu(number: int, *free_bytes: int, state: AluState = AluState.OWNED, sector_bytes: int = 512) -> AluStatus:
    """Make ``/disks/<number>`` with free extents of these lengths, 1 MiB apart."""
    free: list[Extent] = []
    at = DATA_START
    for length_bytes in free_bytes:
        free.append(Extent(at, length_bytes))
        at += length_bytes + MIB
    return AluStatus(
        wwn=alu_wwn(number),
        path=f"/disks/{number}",
        kind="file",
        state=state,
        size_bytes=at,
        free=tuple(free),
        sector_bytes=sector_bytes,
    )


def alus(count: int, free_bytes: int = 10 * GIB) -> list[AluStatus]:
    """Make ALUs with equal room."""
    return [make_alu(number, free_bytes) for number in range(count)]


def taken(objects: Iterable[AnyObject]) -> list[tuple[Wwn, Extent]]:
    """List what partitions and their bitmaps take, by ALU and address."""
    parts = [item for item in objects if isinstance(item, PartitionObject)]
    return sorted((part.alu, extent) for part in parts for extent in (part.extent, part.bitmap) if extent is not None)


def after(inventory: Sequence[AluStatus], objects: Sequence[AnyObject]) -> list[AluStatus]:
    """Give the inventory as it is once these objects are stored."""

    def left(alu: AluStatus) -> tuple[Extent, ...]:
        parts = [item for item in objects if isinstance(item, PartitionObject) and item.alu == alu.wwn]
        return tuple(rest for extent in alu.free for rest in free_extents(extent, parts))

    return [msgspec.structs.replace(alu, free=left(alu)) for alu in inventory]
