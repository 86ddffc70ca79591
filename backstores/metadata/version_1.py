"""Version 1 of the format, as far as it must be read for a migration: a label that says all, two object regions.

It had no MDR directory, no partition table and no log: each commit wrote all objects into the region that was
not live. Nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstores.metadata.findings import Problem
from backstores.metadata.layout import ALLOCATION_UNIT, KIB, MOST_ALU_BYTES
from backstores.metadata.sector import Sector, SectorError, stored_susid, stored_wwn, unseal
from backstores.metadata.steps import IO_UNIT
from backstores.objects import MIB, Extent
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn

VERSION: Final = 1
LABELS_END: Final = 12 * KIB
DATA_START: Final = 8 * MIB


class Label1Sector(Sector, size=512, order="little"):
    """The label of an ALU in version 1."""

    VERSIONS = frozenset({VERSION})

    magic = Bytes(byte=0, length=8, value=b"TGLABEL\0")
    susid = Bytes(byte=64, length=64, doc="SUSID of the appliance that owns the ALU: printable ASCII")
    size_bytes = Bits(byte=128, width=64, doc="size of the ALU when it was claimed")
    data_start = Bits(byte=136, width=64, doc="first byte of the data area")
    data_end = Bits(byte=144, width=64, doc="first byte behind the data area")
    region_a = Bits(byte=152, width=64, doc="first byte of object region A")
    region_b = Bits(byte=160, width=64, doc="first byte of object region B")
    region_bytes = Bits(byte=168, width=64, doc="length of each object region, header included")


@dataclass(frozen=True, slots=True)
class Label1:
    """What a label of version 1 says."""

    susid: str
    alu: Wwn
    size_bytes: int
    data: Extent
    regions: tuple[int, int]
    region_bytes: int
    generation: int
    time_ns: int
    epoch: int


def parse(raw: bytes, address: int) -> Label1:
    """Read a label of version 1.

    Raises:
        SectorError: it is not one, or its layout makes no sense.
    """
    sector = unseal(Label1Sector, raw, address)
    label = Label1(
        susid=stored_susid(sector.susid),
        alu=stored_wwn(sector.alu),
        size_bytes=sector.size_bytes,
        data=Extent(sector.data_start, sector.data_end - sector.data_start),
        regions=(sector.region_a, sector.region_b),
        region_bytes=sector.region_bytes,
        generation=sector.generation,
        time_ns=sector.time_ns,
        epoch=sector.epoch,
    )
    _check_layout(label)
    return label


def _check_layout(label: Label1) -> None:
    """Trust no address that would send a write onto something else."""
    first, second = sorted(label.regions)
    data = label.data
    aligned = not any(at % IO_UNIT for at in (first, second, label.region_bytes))
    in_units = not any(at % ALLOCATION_UNIT for at in (data.start_bytes, data.length_bytes))
    in_order = (
        first >= LABELS_END
        and 2 * IO_UNIT <= label.region_bytes <= DATA_START
        and first + label.region_bytes <= second
        and second + label.region_bytes <= data.start_bytes
        and data.length_bytes > 0
        and data.end_bytes <= label.size_bytes <= MOST_ALU_BYTES
    )
    if not (aligned and in_units and in_order):
        raise SectorError(Problem.DAMAGED, "its areas overlap, are misaligned, or leave the alu")
