"""The sector: what all metadata on an ALU is made of, and the one way to write and to check it.

Invariants. A sector is 512 bytes, the only thing a disk writes in one piece (M1). It carries what it
is (magic), where it belongs (its own address, the ALU's name), when it was written (generation for
order, time stamp for people; M2), and a CRC32C over all of it. Bytes 0 to 15 (magic, version,
checksum) lie in the same place in every version of the format, so that an older release can tell a
newer format from damage.
"""

from __future__ import annotations

from typing import ClassVar, Final, Protocol, TypeVar

import google_crc32c

from backstores.errors import CorruptError, UsageError
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.layout import FORMAT_VERSION
from backstores.wire import Bits, Bytes, Wire
from backstores.wwn import Wwn, parse_wwn, to_bytes

SECTOR_BYTES: Final = 512
SUSID_BYTES: Final = 64
COUNTER_LIMIT: Final = (1 << 63) - 1  # of generations, epochs and time stamps: far above any real one


class Sector(Wire, size=SECTOR_BYTES, order="little"):
    """The fields that all sectors share."""

    VERSIONS: ClassVar[frozenset[int]] = frozenset({FORMAT_VERSION})  # of the format, that have it in this form

    magic = Bytes(byte=0, length=8, doc="what the sector is")
    version = Bits(byte=8, width=16, doc=f"version of the format, now {FORMAT_VERSION}")
    crc = Bits(byte=12, width=32, doc="CRC32C of all 512 bytes, this field taken as zero")
    address = Bits(byte=16, width=64, doc="byte address of this sector on the ALU")
    alu = Bytes(byte=24, length=8, doc="NAA 5 name of the ALU")
    generation = Bits(byte=32, width=64, doc="one more at every write; of two copies the higher is the newer")
    time_ns = Bits(byte=40, width=64, doc="when it was written: ns since 1970 UTC, never running backwards")
    epoch = Bits(byte=48, width=64, doc="epoch of the writer (M5)")


class SectorError(CorruptError):
    """A sector that is not what is looked for. ``problem`` says in which way."""

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem

    def finding(self, where: str) -> Finding:
        """Tell it instead of raising it."""
        return Finding(self.problem, where, str(self))


S = TypeVar("S", bound=Sector)


def crc32c(data: bytes) -> int:
    """Compute the checksum of RFC 3720 (Castagnoli), hardware-assisted."""
    checksum: int = google_crc32c.value(data)
    return checksum


def seal(kind: type[Sector], **values: object) -> bytes:
    """Build a sector of this kind; version and checksum are filled in."""
    raw = bytearray(kind.build(version=FORMAT_VERSION, **values))
    kind.crc.write(raw, crc32c(bytes(raw)))
    return bytes(raw)


class Written(Protocol):
    """What says when something was written, and by whom."""

    @property
    def generation(self) -> int:
        """One more at every write."""

    @property
    def time_ns(self) -> int:
        """For people."""

    @property
    def epoch(self) -> int:
        """Of the writer (M5)."""


def seal_on(alu: Wwn, address: int, kind: type[Sector], written: Written, **values: object) -> bytes:
    """Build a sector for a place on an ALU, dated as what it holds is."""
    return seal(
        kind,
        address=address,
        alu=to_bytes(alu),
        generation=written.generation,
        time_ns=written.time_ns,
        epoch=written.epoch,
        **values,
    )


def unseal(kind: type[S], raw: bytes, address: int) -> S:
    """Check a sector that was read at ``address``, in the order in which trust grows.

    Raises:
        SectorError: absent, damaged, of a newer version, or misplaced.
    """
    sector = kind(raw[:SECTOR_BYTES])
    if len(sector.raw) < SECTOR_BYTES:
        raise SectorError(Problem.DAMAGED, f"{len(raw)} bytes could be read of {SECTOR_BYTES}")
    if sector.magic != kind.magic.value:
        raise SectorError(Problem.ABSENT, "no magic number")
    cleared = sector.raw[: kind.crc.byte] + bytes(kind.crc.end - kind.crc.byte) + sector.raw[kind.crc.end :]
    if crc32c(cleared) != sector.crc:
        raise SectorError(Problem.DAMAGED, f"checksum {crc32c(cleared):08x}, written was {sector.crc:08x}")
    if sector.version > FORMAT_VERSION:
        raise SectorError(Problem.NEWER, f"format version {sector.version}, this release knows {FORMAT_VERSION}")
    if sector.version not in kind.VERSIONS:
        raise SectorError(Problem.DAMAGED, f"format version {sector.version} has no such sector")
    if sector.address != address:
        raise SectorError(Problem.MISPLACED, f"it belongs at byte {sector.address}, not at {address}")
    if max(sector.generation, sector.time_ns, sector.epoch) > COUNTER_LIMIT:
        raise SectorError(Problem.DAMAGED, f"generation, time stamp or epoch is past {COUNTER_LIMIT}")
    return sector


def version_of(raw: bytes) -> int:
    """Say which version of the format a sector claims; it is yet to be checked."""
    return Sector.version.read(raw.ljust(SECTOR_BYTES, b"\0"))


def stored_wwn(raw: bytes) -> Wwn:
    """Take a name out of a sector.

    Raises:
        SectorError: it is none.
    """
    try:
        return parse_wwn(raw.hex())
    except UsageError as error:
        raise SectorError(Problem.DAMAGED, str(error)) from error


def stored_susid(raw: bytes) -> str:
    """Take a SUSID out of a sector.

    Raises:
        SectorError: it is none.
    """
    susid = raw.rstrip(b"\0").decode("ascii", "replace")
    if not is_susid(susid):
        raise SectorError(Problem.DAMAGED, "the susid is not printable ascii")
    return susid


def is_susid(text: str) -> bool:
    """Say whether a text can be a SUSID."""
    return 0 < len(text) <= SUSID_BYTES and text.isascii() and text.isprintable()


def following(generation: int) -> int:
    """Give the next generation.

    Raises:
        UsageError: there is none; only a forged image gets there.
    """
    if generation >= COUNTER_LIMIT:
        raise UsageError(f"generation {generation} is the last one: overwrite the alu with zeros, then claim it")
    return generation + 1


def stamped(previous_ns: int, now_ns: int) -> int:
    """Give the time stamp of the next write: the clock's, unless that would run backwards (M2)."""
    return min(max(previous_ns + 1, now_ns), COUNTER_LIMIT)
