"""The MDR directory: whose ALU this is, who may write it, and where its objects lie (R2, M5).

Invariants. Two copies (``backstores.metadata.copies``). They carry the name of the ALU, and count only under a
label with the same name: so a claim writes one of them first, and the label, which then makes the difference.
The epoch is the *fence*: each start of the one writer takes a higher one and writes it here before anything
else; a commit looks here first, and is refused if the epoch is above its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backstores.errors import TiergateError, UsageError
from backstores.metadata import copies
from backstores.metadata.copies import Choice, Copy
from backstores.metadata.findings import Problem
from backstores.metadata.layout import GS_BOOT, disjoint
from backstores.metadata.sector import (
    COUNTER_LIMIT,
    SUSID_BYTES,
    Sector,
    SectorError,
    following,
    is_susid,
    seal_on,
    stamped,
    stored_susid,
    stored_wwn,
    unseal,
)
from backstores.metadata.steps import IO_UNIT, Step
from backstores.objects import Extent
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn


class DirectorySector(Sector, size=512, order="little"):
    """The MDR directory of an ALU. Its epoch is the highest that has taken the ALU over."""

    magic = Bytes(byte=0, length=8, value=b"TGMDRDIR")
    susid = Bytes(byte=64, length=SUSID_BYTES, doc="SUSID of the appliance that owns the ALU: printable ASCII")
    region_a = Bits(byte=128, width=64, doc="first byte of object region A")
    region_b = Bits(byte=136, width=64, doc="first byte of object region B")
    region_bytes = Bits(byte=144, width=64, doc="length of each object region")
    gs_start = Bits(byte=152, width=64, doc="first byte of the GS boot region")
    gs_bytes = Bits(byte=160, width=64, doc="length of the GS boot region")
    flags = Bits(byte=168, width=32, doc="zero; an ALU with a flag that a release does not know is not touched by it")


class FencedError(TiergateError):
    """A writer with a later epoch has taken the ALU over. Nothing was written."""

    def __init__(self, alu: Wwn, epoch: int, seen: int) -> None:
        super().__init__(f"alu {alu} was taken over by epoch {seen}, this is epoch {epoch}: start this appliance anew")
        self.epoch = seen


@dataclass(frozen=True, slots=True)
class Directory:
    """What the MDR directory says."""

    susid: str
    alu: Wwn
    regions: tuple[int, int]
    region_bytes: int
    epoch: int = 0
    generation: int = 0
    time_ns: int = 0

    @property
    def region_extents(self) -> tuple[Extent, ...]:
        """Where the object regions lie."""
        return tuple(Extent(start, self.region_bytes) for start in self.regions)

    def admit(self, epoch: int) -> None:
        """Let a writer pass, or not (M5).

        Raises:
            FencedError: it is of an older epoch.
        """
        if epoch < self.epoch:
            raise FencedError(self.alu, epoch, self.epoch)


def check_susid(susid: str) -> None:
    """Refuse a SUSID that could not be read back.

    Raises:
        UsageError: it is none.
    """
    if not is_susid(susid):
        raise UsageError(f"susid {susid!r} is not 1 to {SUSID_BYTES} printable ascii characters")


def renewed(directory: Directory, previous: Directory | None, now_ns: int) -> Directory:
    """Give a directory the generation and time stamp with which it supersedes ``previous``."""
    if previous is None:
        return replace(directory, generation=1, time_ns=stamped(0, now_ns))
    return replace(directory, generation=following(previous.generation), time_ns=stamped(previous.time_ns, now_ns))


def build(directory: Directory, address: int) -> bytes:
    """Make the copy that lies at ``address``: one sector.

    Raises:
        UsageError: the epoch is past what can be stored.
    """
    if not 0 <= directory.epoch <= COUNTER_LIMIT:
        raise UsageError(f"epoch {directory.epoch} is not 0 to {COUNTER_LIMIT}")
    return seal_on(
        directory.alu,
        address,
        DirectorySector,
        directory,
        susid=directory.susid.encode("ascii"),
        region_a=directory.regions[0],
        region_b=directory.regions[1],
        region_bytes=directory.region_bytes,
        gs_start=GS_BOOT.start_bytes,
        gs_bytes=GS_BOOT.length_bytes,
    )


def parse(raw: bytes, address: int) -> Directory:
    """Read the copy that lies at ``address``.

    Raises:
        SectorError: it is not one, or makes no sense.
    """
    sector = unseal(DirectorySector, raw, address)
    if sector.flags:
        raise SectorError(Problem.NEWER, f"flags {sector.flags:#x}, which this release does not know")
    if (sector.gs_start, sector.gs_bytes) != (GS_BOOT.start_bytes, GS_BOOT.length_bytes):
        raise SectorError(Problem.DAMAGED, f"a GS boot region at {sector.gs_start} + {sector.gs_bytes}")
    return Directory(
        susid=stored_susid(sector.susid),
        alu=stored_wwn(sector.alu),
        regions=(sector.region_a, sector.region_b),
        region_bytes=sector.region_bytes,
        epoch=sector.epoch,
        generation=sector.generation,
        time_ns=sector.time_ns,
    )


def choose(read: Sequence[Copy], alu: Wwn, others: Sequence[Extent], size_bytes: int) -> Choice[Directory]:
    """Decide which copy counts on the ALU of this name, whose label directory takes the areas ``others``."""

    def good(raw: bytes, address: int) -> Directory:
        directory = parse(raw, address)
        if directory.alu != alu:
            raise SectorError(Problem.UNFINISHED, f"it is of alu {directory.alu}: of a claim that was cut short")
        check_regions(directory, others, size_bytes)
        return directory

    return copies.choose("MDR directory", read, good)


def check_regions(directory: Directory, others: Sequence[Extent], size_bytes: int) -> None:
    """Trust no address that would send a write onto something else.

    Raises:
        SectorError: the object regions are too small, or not where nothing else is.
    """
    if directory.region_bytes < 4 * IO_UNIT or not disjoint((*directory.region_extents, *others), size_bytes):
        raise SectorError(Problem.DAMAGED, "its object regions overlap, are misaligned, or leave the alu")


def commit(directory: Directory, order: Sequence[int]) -> list[Step]:
    """Say how a renewed directory gets onto the ALU."""
    return copies.commit(lambda address: build(directory, address), order)
