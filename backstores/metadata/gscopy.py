"""The copy of the GS image on one member: which pointer counts, and how a new image gets there (R4).

Invariants. Of two pointer sectors the good one with the higher (epoch, generation) is *live*; what it
points to is never overwritten. A write puts the new list, and the reserved region where it differs,
into the places the live pointer does not name, flushes, then puts the new pointer into the other
slot, flushes (M3). So a crash leaves the old image or the new one (M6).

A member's word counts in a vote only if nothing on it could hide a newer image. A slot that holds
neither zeros nor a good pointer could: such a member is *in doubt*, until a write has mended it. The
write goes into the bad slot, so that member is in doubt up to the very sector that makes it current. No
crash makes a slot bad, for a sector is atomic; a disk that rots does, and what lay there before a claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from backstores.errors import CorruptError
from backstores.metadata import gsformat
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.gsformat import ActiveList, GsImage, GsPointer, ReservedRegion
from backstores.metadata.layout import GS_LISTS, GS_POINTER_ADDRESSES, GS_RESERVED
from backstores.metadata.sector import SECTOR_BYTES, SectorError, crc32c, seal_on, stored_wwn, unseal
from backstores.metadata.steps import IO_UNIT, Flush, Reads, Span, Step, Write, padded, units
from backstores.objects import Extent
from backstores.wwn import Wwn, to_bytes

POINTERS: Final = Extent(GS_POINTER_ADDRESSES[0], len(GS_POINTER_ADDRESSES) * IO_UNIT)
"""Both pointer sectors: what is read first."""


@dataclass(frozen=True, slots=True)
class Pointers:
    """What the pointer sectors of one ALU say. ``live`` is the number of the slot that counts."""

    sectors: tuple[GsPointer | None, GsPointer | None] = (None, None)
    live: int | None = None
    bad: tuple[int, ...] = ()  # slots that could hide a newer pointer
    findings: tuple[Finding, ...] = ()

    @property
    def sector(self) -> GsPointer | None:
        """The pointer that counts."""
        return None if self.live is None else self.sectors[self.live]

    @property
    def extents(self) -> tuple[Extent, ...]:
        """What is to be read next: the active list and the reserved region, if there are any."""
        if self.sector is None:
            return ()
        return (
            Extent(self.sector.list_address, self.sector.list_bytes),
            Extent(self.sector.reserved_address, self.sector.reserved_bytes),
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """What one ALU holds of the GS set: an image, nothing yet, or (``doubt``) something whose word can't be taken."""

    alu: Wwn
    pointers: Pointers = Pointers()
    image: GsImage | None = None
    doubt: str = ""
    findings: tuple[Finding, ...] = ()


def unreadable(alu: Wwn, error: str) -> Copy:
    """Stand for an ALU that answered with an error."""
    return Copy(alu, doubt=error, findings=(Finding(Problem.UNREADABLE, "GS boot region", error),))


def parse_pointers(raw: bytes, alu: Wwn) -> Pointers:
    """Decide which of both pointer sectors counts; ``raw`` is what lies in ``POINTERS``."""
    sectors: list[GsPointer | None] = []
    findings: list[Finding] = []
    bad: list[int] = []
    for slot, address in enumerate(GS_POINTER_ADDRESSES):
        part = raw[address - POINTERS.start_bytes :][:SECTOR_BYTES]
        try:
            sectors.append(_pointer(part, address, alu))
        except SectorError as error:
            sectors.append(None)
            if part != bytes(SECTOR_BYTES):
                bad.append(slot)
                findings.append(error.finding(f"GS pointer at byte {address}"))
    first, second = sectors
    if first is not None and second is not None and _order(first) == _order(second):
        text = f"both pointers claim epoch {first.epoch}, generation {first.generation}"
        finding = Finding(Problem.CONTRADICTION, "GS boot region", text)
        return Pointers((first, second), None, (0, 1), (*findings, finding))
    good = [slot for slot in (0, 1) if sectors[slot] is not None]
    live = max(good, key=lambda slot: _order(sectors[slot]), default=None)
    return Pointers((first, second), live, tuple(bad), tuple(findings))


def recover(alu: Wwn, pointers: Pointers, bodies: Sequence[bytes]) -> Copy:
    """Say what the ALU holds; ``bodies`` lie at ``pointers.extents`` and may be longer than the bodies."""
    findings = pointers.findings
    image = None
    if pointers.sector is not None:
        try:
            image = _image(pointers.sector, bodies)
        except CorruptError as error:
            findings = (*findings, Finding(Problem.LOST, f"GS image of {_text(pointers.sector)}", str(error)))
    return Copy(alu, pointers, image, "; ".join(map(str, findings)), findings)


def look(alu: Wwn) -> Reads[Copy]:
    """Read what an ALU holds. An error of the ALU is raised."""
    pointers = parse_pointers((yield Span(POINTERS.start_bytes, POINTERS.length_bytes)), alu)
    bodies: list[bytes] = []
    for extent in pointers.extents:
        bodies.append((yield Span(extent.start_bytes, units(extent.length_bytes))))
    return recover(alu, pointers, bodies)


def store(copy: Copy, image: GsImage) -> tuple[list[Step], Copy]:
    """Say how ``image`` becomes the one on the ALU: the steps, and the copy once all of them have ended well.

    Raises:
        UsageError: it is too large.
    """
    live = copy.pointers.sector
    body = gsformat.list_body(image)
    place = _other(GS_LISTS, None if live is None else live.list_address)
    steps: list[Step] = []
    slot = _slot(copy.pointers)
    if set(copy.pointers.bad) - {slot}:
        steps += [Write(GS_POINTER_ADDRESSES[1 - slot], bytes(IO_UNIT)), Flush()]
    steps.append(Write(place.start_bytes, padded(body)))
    if live is None or copy.image is None or copy.image.legacy != image.legacy:
        reserved = gsformat.reserved_body(image)
        where = _other(GS_RESERVED, None if live is None else live.reserved_address)
        steps.append(Write(where.start_bytes, padded(reserved)))
        kept = {
            "reserved_address": where.start_bytes,
            "reserved_bytes": len(reserved),
            "reserved_crc": crc32c(reserved),
        }
    else:
        kept = {name: getattr(live, name) for name in ("reserved_address", "reserved_bytes", "reserved_crc")}
    address = GS_POINTER_ADDRESSES[slot]
    sector = seal_on(
        copy.alu,
        address,
        GsPointer,
        image,
        list_address=place.start_bytes,
        list_bytes=len(body),
        list_crc=crc32c(body),
        **kept,
    )
    steps += [Flush(), Write(address, padded(sector)), Flush()]
    return steps, Copy(copy.alu, _with(copy.pointers, slot, GsPointer(sector)), image)


def _pointer(raw: bytes, address: int, alu: Wwn) -> GsPointer:
    sector = unseal(GsPointer, raw, address)
    if sector.alu != to_bytes(alu):
        raise SectorError(Problem.FOREIGN, f"it was written for alu {stored_wwn(sector.alu)}")
    for places, at, length in (
        (GS_LISTS, sector.list_address, sector.list_bytes),
        (GS_RESERVED, sector.reserved_address, sector.reserved_bytes),
    ):
        if not any(at == place.start_bytes and length <= place.length_bytes for place in places):
            raise SectorError(Problem.DAMAGED, f"{length} bytes at byte {at} are no place for what it points to")
    return sector


def _image(sector: GsPointer, bodies: Sequence[bytes]) -> GsImage:
    active, reserved = bodies
    active, reserved = active[: sector.list_bytes], reserved[: sector.reserved_bytes]
    for what, body, length, crc in (
        ("active list", active, sector.list_bytes, sector.list_crc),
        ("reserved region", reserved, sector.reserved_bytes, sector.reserved_crc),
    ):
        if len(body) < length or crc32c(body) != crc:
            raise CorruptError(f"its {what} does not match its pointer")
    listed = gsformat.decode(active, ActiveList)
    return GsImage(
        epoch=sector.epoch,
        generation=sector.generation,
        time_ns=sector.time_ns,
        members=listed.members,
        before=listed.before,
        roster=listed.roster,
        legacy=gsformat.decode(reserved, ReservedRegion).records,
    )


def _slot(pointers: Pointers) -> int:
    """Choose the slot for the next pointer: never the live one, and one that is bad before one that is not."""
    if pointers.live is not None:
        return 1 - pointers.live
    return pointers.bad[0] if pointers.bad else 0


def _with(pointers: Pointers, slot: int, sector: GsPointer) -> Pointers:
    """Give the pointers as they are once one has been written, and what was bad has been mended."""
    other = None if 1 - slot in pointers.bad else pointers.sectors[1 - slot]
    sectors = (sector, other) if slot == 0 else (other, sector)
    return replace(pointers, sectors=sectors, live=slot, bad=(), findings=())


def _other(places: Sequence[Extent], taken: int | None) -> Extent:
    return next(place for place in places if place.start_bytes != taken)


def _order(sector: GsPointer | None) -> tuple[int, int]:
    assert sector is not None
    return sector.epoch, sector.generation


def _text(sector: GsPointer) -> str:
    return f"epoch {sector.epoch}, generation {sector.generation}"
