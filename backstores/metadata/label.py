"""The label: which ALU this is, how large, and where data and partition tables lie on it (R1).

Together with the partition table it is the label directory, of which there are four copies: two in front, two
at the end. Which copy counts is decided by ``backstores.metadata.copies``; the first copy of a new label is
what makes a claim or a migration true. A copy of a newer format version forbids all use of the ALU, for its
writer may have moved anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backstores.errors import CorruptError, UsageError
from backstores.metadata import copies, version_1
from backstores.metadata.copies import Choice, Copy
from backstores.metadata.findings import Problem
from backstores.metadata.layout import (
    ALLOCATION_UNIT,
    FRONT_LABELS,
    LEAST_ALU_BYTES,
    MOST_ALU_BYTES,
    MOST_TABLE_BYTES,
    TABLE_BYTES,
    data_area,
    disjoint,
    label_addresses,
    table_addresses,
)
from backstores.metadata.mdr import Directory
from backstores.metadata.sector import Sector, SectorError, following, seal_on, stamped, stored_wwn, unseal, version_of
from backstores.metadata.steps import Step
from backstores.objects import Extent
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn, to_bytes


class LabelSector(Sector, size=512, order="little"):
    """The label of an ALU."""

    magic = Bytes(byte=0, length=8, value=b"TGLABEL\0")
    size_bytes = Bits(byte=64, width=64, doc="size of the ALU when it was claimed or migrated; the tail is at its end")
    data_start = Bits(byte=72, width=64, doc="first byte of the data area")
    data_end = Bits(byte=80, width=64, doc="first byte behind the data area")
    table_a = Bits(byte=88, width=64, doc="first byte of partition table A, in front")
    table_b = Bits(byte=96, width=64, doc="first byte of partition table B, in front")
    table_c = Bits(byte=104, width=64, doc="first byte of partition table C, at the end")
    table_d = Bits(byte=112, width=64, doc="first byte of partition table D, at the end")
    table_bytes = Bits(byte=120, width=64, doc="length of each partition table")


@dataclass(frozen=True, slots=True)
class Label:
    """What the label of an ALU says. One of version 1 brings its ``directory`` along, and knows no tables."""

    alu: Wwn
    size_bytes: int
    data: Extent
    tables: tuple[int, ...]
    table_bytes: int
    generation: int = 0
    time_ns: int = 0
    epoch: int = 0
    directory: Directory | None = None

    @property
    def version(self) -> int:
        """The version of the format in which the ALU is laid out."""
        return 1 if self.directory is not None else 2

    @property
    def areas(self) -> tuple[Extent, ...]:
        """What it says is taken: the data area and the tables."""
        return (self.data, *(Extent(start, self.table_bytes) for start in self.tables))


def new_label(alu: Wwn, size_bytes: int) -> Label:
    """Lay an ALU out afresh.

    Raises:
        UsageError: the ALU is too small, or the name is none.
    """
    if len(to_bytes(alu)) != LabelSector.alu.width // 8:
        raise UsageError(f"alu wwn {alu} is not of NAA type 5")
    return Label(alu, size_bytes, data_area(size_bytes), table_addresses(size_bytes), TABLE_BYTES)


def renewed(label: Label, previous: Label | None, now_ns: int) -> Label:
    """Give a label the generation and time stamp with which it supersedes ``previous``."""
    if previous is None:
        return replace(label, generation=1, time_ns=stamped(0, now_ns))
    return replace(label, generation=following(previous.generation), time_ns=stamped(previous.time_ns, now_ns))


def build(label: Label, address: int) -> bytes:
    """Make the copy of a label that lies at ``address``: one sector, of the version that this release writes."""
    table_a, table_b, table_c, table_d = label.tables
    return seal_on(
        label.alu,
        address,
        LabelSector,
        label,
        size_bytes=label.size_bytes,
        data_start=label.data.start_bytes,
        data_end=label.data.end_bytes,
        table_a=table_a,
        table_b=table_b,
        table_c=table_c,
        table_d=table_d,
        table_bytes=label.table_bytes,
    )


def parse(raw: bytes, address: int) -> Label:
    """Read the copy of a label that lies at ``address``, of whichever version.

    Raises:
        SectorError: it is not one, or its layout makes no sense.
    """
    if version_of(raw) == version_1.VERSION:
        old = version_1.parse(raw, address)
        directory = Directory(old.susid, old.alu, old.regions, old.region_bytes, epoch=old.epoch)
        return Label(old.alu, old.size_bytes, old.data, (), 0, old.generation, old.time_ns, old.epoch, directory)
    sector = unseal(LabelSector, raw, address)
    label = Label(
        alu=stored_wwn(sector.alu),
        size_bytes=sector.size_bytes,
        data=Extent(sector.data_start, sector.data_end - sector.data_start),
        tables=(sector.table_a, sector.table_b, sector.table_c, sector.table_d),
        table_bytes=sector.table_bytes,
        generation=sector.generation,
        time_ns=sector.time_ns,
        epoch=sector.epoch,
    )
    _check_layout(label)
    return label


def choose(read: Sequence[Copy]) -> Choice[Label]:
    """Decide which copy counts; none does if one is of a newer version."""
    choice = copies.choose("label", read, parse)
    if any(finding.problem is Problem.NEWER for finding in choice.findings):
        return replace(choice, winner=None)
    return choice


def commit(label: Label, order: Sequence[int]) -> list[Step]:
    """Say how a renewed label gets onto the ALU; ``order`` is that of the choice.

    Those in front go first: who looks at an ALU without knowing its size looks there.
    """
    places = label_addresses(label.size_bytes)
    known = {address: number for number, address in enumerate(order)}
    by_age = sorted(places, key=lambda address: (address not in FRONT_LABELS, known.get(address, -1)))
    return copies.commit(lambda address: build(label, address), by_age)


def check_size(label: Label, size_bytes: int) -> None:
    """Refuse an ALU that has shrunk since it was claimed: what lay behind its end is gone.

    Raises:
        CorruptError: it is smaller than its label says.
    """
    if size_bytes < label.size_bytes:
        raise CorruptError(f"the alu has {size_bytes} bytes, but had {label.size_bytes} when it was claimed")


def _check_layout(label: Label) -> None:
    """Trust no address that would send a write onto something else."""
    data = label.data
    if (
        not LEAST_ALU_BYTES <= label.size_bytes <= MOST_ALU_BYTES
        or data.start_bytes % ALLOCATION_UNIT
        or data.length_bytes % ALLOCATION_UNIT
        or not 0 < label.table_bytes <= MOST_TABLE_BYTES
        or not disjoint(label.areas, label.size_bytes)
    ):
        raise SectorError(Problem.DAMAGED, "its areas overlap, are misaligned, or leave the alu")
