"""The label: whose ALU this is, and where its parts lie (R1, R2).

Invariants. Two copies, each a sector of its own in an I/O unit of its own, say the same except for
their address. They are written one after the other with a flush between, the older first (M3), so
that one whole copy exists at every moment. Which one counts is decided by ``choose`` alone: the
highest generation among the good ones (M2). A copy of a newer format version forbids all use of the
ALU, for its writer may have moved anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from backstores.errors import CorruptError, UsageError
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.layout import (
    ALLOCATION_UNIT,
    DATA_START,
    LABEL_ADDRESSES,
    MOST_ALU_BYTES,
    REGION_ADDRESSES,
    REGION_BYTES,
    data_area,
)
from backstores.metadata.sector import Sector, SectorError, following, seal, stamped, stored_wwn, unseal
from backstores.metadata.steps import IO_UNIT, Flush, Step, Write, padded
from backstores.objects import Extent
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn, to_bytes


class LabelSector(Sector, size=512, order="little"):
    """The label of an ALU."""

    magic = Bytes(byte=0, length=8, value=b"TGLABEL\0")
    susid = Bytes(byte=64, length=64, doc="SUSID of the appliance that owns the ALU: printable ASCII")
    size_bytes = Bits(byte=128, width=64, doc="size of the ALU when it was claimed")
    data_start = Bits(byte=136, width=64, doc="first byte of the data area")
    data_end = Bits(byte=144, width=64, doc="first byte behind the data area")
    region_a = Bits(byte=152, width=64, doc="first byte of object region A")
    region_b = Bits(byte=160, width=64, doc="first byte of object region B")
    region_bytes = Bits(byte=168, width=64, doc="length of each object region, header included")


SUSID_BYTES: Final = LabelSector.susid.end - LabelSector.susid.byte


@dataclass(frozen=True, slots=True)
class Label:
    """What the label of an ALU says."""

    susid: str
    alu: Wwn
    size_bytes: int
    data: Extent
    regions: tuple[int, int]
    region_bytes: int
    generation: int = 0
    time_ns: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Copy:
    """What could be read at one of the places of a label: bytes, or the error that came instead."""

    address: int
    raw: bytes
    error: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The label that counts, and what its next writer must know.

    ``newest`` is the good copy with the highest generation, even where none counts; ``order`` is that
    in which the copies may be overwritten.
    """

    label: Label | None
    newest: Label | None
    findings: tuple[Finding, ...]
    order: tuple[int, ...]


def new_label(susid: str, alu: Wwn, size_bytes: int) -> Label:
    """Lay an ALU out afresh.

    Raises:
        UsageError: the ALU is too small, or the SUSID or the name is none.
    """
    if not _is_susid(susid):
        raise UsageError(f"susid {susid!r} is not 1 to {SUSID_BYTES} printable ascii characters")
    if len(to_bytes(alu)) != LabelSector.alu.width // 8:
        raise UsageError(f"alu wwn {alu} is not of NAA type 5")
    return Label(susid, alu, size_bytes, data_area(size_bytes), REGION_ADDRESSES, REGION_BYTES)


def renewed(label: Label, previous: Label | None, now_ns: int) -> Label:
    """Give a label the generation and time stamp with which it supersedes ``previous``."""
    if previous is None:
        return replace(label, generation=1, time_ns=stamped(0, now_ns))
    return replace(label, generation=following(previous.generation), time_ns=stamped(previous.time_ns, now_ns))


def build(label: Label, address: int) -> bytes:
    """Make the copy of a label that lies at ``address``: one sector."""
    return seal(
        LabelSector,
        address=address,
        alu=to_bytes(label.alu),
        generation=label.generation,
        time_ns=label.time_ns,
        epoch=label.epoch,
        susid=label.susid.encode("ascii"),
        size_bytes=label.size_bytes,
        data_start=label.data.start_bytes,
        data_end=label.data.end_bytes,
        region_a=label.regions[0],
        region_b=label.regions[1],
        region_bytes=label.region_bytes,
    )


def parse(raw: bytes, address: int) -> Label:
    """Read the copy of a label that lies at ``address``.

    Raises:
        SectorError: it is not one, or its layout makes no sense.
    """
    sector = unseal(LabelSector, raw, address)
    text = sector.susid.rstrip(b"\0")
    susid = text.decode("ascii", "replace")
    if not _is_susid(susid):
        raise SectorError(Problem.DAMAGED, "the susid is not printable ascii")
    label = Label(
        susid=susid,
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


def choose(copies: Sequence[Copy]) -> Choice:
    """Decide which copy counts: the good one with the highest generation.

    Two good copies of one generation that differ were never written by us: then none counts.
    """
    good: dict[int, Label] = {}
    findings: list[Finding] = []
    for copy in copies:
        where = f"label at byte {copy.address}"
        if copy.error:
            findings.append(Finding(Problem.UNREADABLE, where, copy.error))
            continue
        try:
            good[copy.address] = parse(copy.raw, copy.address)
        except SectorError as error:
            findings.append(error.finding(where))
    order = tuple(sorted((c.address for c in copies), key=lambda a: good[a].generation if a in good else -1))
    winner = max(good.values(), key=lambda one: one.generation, default=None)
    if winner is None or any(finding.problem is Problem.NEWER for finding in findings):
        return Choice(None, winner, tuple(findings), order)
    for address, label in good.items():
        if label.generation < winner.generation:
            findings.append(_superseded(address, label, winner))
        elif label != winner:
            text = f"generation {label.generation} is there twice, and the two differ"
            findings.append(Finding(Problem.CONTRADICTION, f"label at byte {address}", text))
            return Choice(None, winner, tuple(findings), order)
    return Choice(winner, winner, tuple(findings), order)


def commit(label: Label, order: Sequence[int]) -> list[Step]:
    """Say how a renewed label gets onto the ALU; ``order`` is that of the choice."""
    steps: list[Step] = []
    for address in order:
        steps += [Write(address, padded(build(label, address))), Flush()]
    return steps


def check_size(label: Label, size_bytes: int) -> None:
    """Refuse an ALU that has shrunk since it was claimed: what lay behind its end is gone.

    Raises:
        CorruptError: it is smaller than its label says.
    """
    if size_bytes < label.size_bytes:
        raise CorruptError(f"the alu has {size_bytes} bytes, but had {label.size_bytes} when it was claimed")


def _superseded(address: int, label: Label, winner: Label) -> Finding:
    problem = Problem.UNFINISHED if label.alu == winner.alu else Problem.FOREIGN
    text = f"generation {label.generation} of alu {label.alu}, superseded by generation {winner.generation}"
    return Finding(problem, f"label at byte {address}", text)


def _is_susid(text: str) -> bool:
    return 0 < len(text) <= SUSID_BYTES and text.isascii() and text.isprintable()


def _check_layout(label: Label) -> None:
    """Trust no address that would send a write onto something else."""
    first, second = sorted(label.regions)
    data = label.data
    labels_end = max(LABEL_ADDRESSES) + IO_UNIT
    aligned = not any(at % IO_UNIT for at in (first, second, label.region_bytes))
    in_units = not any(at % ALLOCATION_UNIT for at in (data.start_bytes, data.length_bytes))
    in_order = (
        labels_end <= first
        and 2 * IO_UNIT <= label.region_bytes <= DATA_START
        and first + label.region_bytes <= second
        and second + label.region_bytes <= data.start_bytes
        and data.length_bytes > 0
        and data.end_bytes <= label.size_bytes <= MOST_ALU_BYTES
    )
    if not (aligned and in_units and in_order):
        raise SectorError(Problem.DAMAGED, "its areas overlap, are misaligned, or leave the alu")
