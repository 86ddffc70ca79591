"""What the object regions of an ALU hold, by what can be read of them: which one is live, and all that was logged.

The newest base that is whole counts, with the changes behind it as far as they are whole. Anything that is not
as ``backstores.metadata.region`` says it must be is named; what was committed and can't be read any more is LOST,
for a crash never leaves that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from backstores.errors import CorruptError, TiergateError
from backstores.metadata import records, version_1
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.layout import FORMAT_VERSION, KIB
from backstores.metadata.mdr import Directory
from backstores.metadata.region import (
    BODY_OFFSET,
    END_BYTES,
    ChangeSector,
    RegionSector,
    RegionState,
    applied,
    capacity,
)
from backstores.metadata.sector import SECTOR_BYTES, Sector, SectorError, crc32c, stored_wwn, unseal
from backstores.metadata.steps import IO_UNIT, Reads, Span, units
from backstores.objects import AnyObject, Extent
from backstores.wwn import Wwn, to_bytes

S = TypeVar("S", bound=Sector)

CHUNK: Final = 64 * KIB  # read at once: a log is many small parts, one behind the other
ZERO_SECTOR: Final = bytes(SECTOR_BYTES)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an ALU's object regions hold; no state at all if neither has a base that is whole."""

    state: RegionState | None
    findings: tuple[Finding, ...]


class _Window:
    """Reads one region in chunks, or piece by piece where a chunk can't be read."""

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self._start = 0
        self._chunk = b""

    def take(self, at: int, length: int) -> Reads[bytes]:
        """Give bytes of the region. Raises what the ALU answers for them, or CorruptError past the end."""
        if not self._start <= at or at + length > self._start + len(self._chunk):
            if at + length > self.extent.length_bytes:
                raise CorruptError(f"{length} bytes at {at} of a region of {self.extent.length_bytes}")
            wanted = min(max(length, CHUNK), self.extent.length_bytes - at)
            try:
                self._chunk = yield Span(self.extent.start_bytes + at, wanted)
            except TiergateError:
                if wanted == length:
                    raise
                self._chunk = yield Span(self.extent.start_bytes + at, length)
            self._start = at
        return self._chunk[at - self._start : at - self._start + length]


def recover(directory: Directory, data: Extent, version: int = FORMAT_VERSION) -> Reads[Recovered]:
    """Decide which region is live, and check what it holds. The one function that decides."""
    windows = [_Window(extent) for extent in directory.region_extents]
    headers: dict[int, RegionSector] = {}
    findings: list[Finding] = []
    for number, window in enumerate(windows):
        try:
            raw = yield from window.take(0, IO_UNIT)
            headers[number] = _region_header(raw, directory, number, version)
        except TiergateError as error:
            findings.append(_told(error, region_at(directory.regions[number])))
    if len({header.generation for header in headers.values()}) < len(headers):
        text = "both regions claim one generation"
        return Recovered(None, (*findings, Finding(Problem.CONTRADICTION, "object regions", text)))
    state = None
    for number in sorted(headers, key=lambda n: headers[n].generation, reverse=True):
        try:
            objects = yield from _base(windows[number], headers[number])
        except TiergateError as error:
            findings.append(_told(error, region_at(directory.regions[number])))
            continue
        header = headers[number]
        state = RegionState(objects, header.generation, header.time_ns, header.epoch, number, None)
        if version != version_1.VERSION:
            state, found = yield from _walk(windows[number], directory, header, state)
            findings += found
        break
    if state is None:
        return Recovered(None, tuple(findings))
    for number in {0, 1} - {state.live}:
        if number not in headers or headers[number].generation > state.generation:
            findings += yield from _later(windows[number], directory, 0, state.generation)
    if lost(findings) or len(headers) < len(windows):
        state = replace(state, end=None)
    wrong = records.check(state.objects, directory.alu, data)
    return Recovered(replace(state, sound=not wrong), (*findings, *wrong))


def owner(address: int, length: int) -> Reads[Wwn | None]:
    """Say whose objects lie in a region at ``address``, if any do: for ALUs whose labels are gone.

    A region without objects is nobody's loss; the claim of a blank ALU, cut short, leaves one.
    """
    window = _Window(Extent(address, length))
    try:
        header = unseal(RegionSector, (yield from window.take(0, IO_UNIT)), address)
        found = header.objects > 0
        slot = BODY_OFFSET + units(header.body_bytes)
        if not found and slot + IO_UNIT <= length:
            raw = yield from window.take(slot, IO_UNIT)
            found = unseal(ChangeSector, raw, address + slot).alu == header.alu
        return stored_wwn(header.alu) if found else None
    except SectorError:
        return None


def _region_header(raw: bytes, directory: Directory, number: int, version: int) -> RegionSector:
    try:
        sector = _own(RegionSector, raw, directory, directory.regions[number])
    except SectorError as error:
        if error.problem is Problem.ABSENT and version != version_1.VERSION:  # a claim writes both
            raise SectorError(Problem.DAMAGED, "it has no header") from error
        raise
    if sector.version != version:
        raise SectorError(Problem.UNFINISHED, f"it is of format version {sector.version}, its label of {version}")
    if sector.body_bytes > capacity(directory):
        text = f"a body of {sector.body_bytes} bytes where {capacity(directory)} have room"
        raise SectorError(Problem.DAMAGED, text)
    return sector


def _own(kind: type[S], raw: bytes, directory: Directory, address: int) -> S:
    sector = unseal(kind, raw, address)
    if sector.alu != to_bytes(directory.alu):
        raise SectorError(Problem.FOREIGN, f"it was written for alu {stored_wwn(sector.alu)}")
    return sector


def _body(window: _Window, at: int, header: RegionSector | ChangeSector) -> Reads[bytes]:
    body = (yield from window.take(at + BODY_OFFSET, units(header.body_bytes)))[: header.body_bytes]
    if crc32c(body) != header.body_crc:
        raise SectorError(Problem.LOST, f"the body does not match the header of generation {header.generation}")
    return body


def _base(window: _Window, header: RegionSector) -> Reads[tuple[AnyObject, ...]]:
    objects = records.decode((yield from _body(window, 0, header)))
    _check_count(len(objects), header)
    return objects


def _check_count(count: int, header: RegionSector | ChangeSector) -> None:
    if count != header.objects:
        raise SectorError(Problem.LOST, f"{count} objects, the header of generation {header.generation} has others")


def _walk(
    window: _Window, directory: Directory, header: RegionSector, state: RegionState
) -> Reads[tuple[RegionState, list[Finding]]]:
    """Follow the log to its end, or to the first part that is damaged."""
    start, length = window.extent.start_bytes, window.extent.length_bytes
    at = BODY_OFFSET + units(header.body_bytes)
    objects = {item.wwn: item for item in state.objects}
    if at + END_BYTES > length:
        return replace(state, end=at), []  # the base leaves no room for a log
    while True:  # a change that leaves no room for zeros behind it is refused
        try:
            raw = yield from window.take(at, IO_UNIT)
            if raw[:SECTOR_BYTES] == ZERO_SECTOR:
                begun = yield from _begun(window, at, state.generation)
                return replace(state, objects=tuple(objects.values()), end=at), begun
            change = _own(ChangeSector, raw, directory, start + at)
            if change.generation != state.generation + 1:
                text = f"generation {change.generation} follows generation {state.generation}"
                raise SectorError(Problem.DAMAGED, text)
            if change.body_bytes > length - at - BODY_OFFSET - END_BYTES:
                raise SectorError(Problem.DAMAGED, f"a body of {change.body_bytes} bytes leaves the region")
            content = records.decode_change((yield from _body(window, at, change)))
            after = applied(objects, content.put, content.drop)
            _check_count(len(after), change)
        except TiergateError as error:
            text = f"the log breaks off behind generation {state.generation}: {error}"
            later = yield from _later(window, directory, at + IO_UNIT, state.generation)
            broken = Finding(Problem.LOST, f"object log at byte {start + at}", text)
            return replace(state, objects=tuple(objects.values())), [broken, *later]
        objects = after
        state = replace(state, generation=change.generation, time_ns=change.time_ns, epoch=change.epoch)
        at += BODY_OFFSET + units(change.body_bytes)


def _begun(window: _Window, at: int, generation: int) -> Reads[list[Finding]]:
    """Look behind the end of a log for the body of a change without its header.

    That is what a crash leaves. What a disk leaves that has lost the header looks the same: so it is told.
    """
    raw = yield from window.take(at + BODY_OFFSET, IO_UNIT)
    if raw[:SECTOR_BYTES] == ZERO_SECTOR:
        return []
    text = f"a change behind generation {generation} was begun, and has no header"
    return [Finding(Problem.UNFINISHED, f"object log at byte {window.extent.start_bytes + at}", text)]


def _later(window: _Window, directory: Directory, at: int, generation: int) -> Reads[list[Finding]]:
    """Look behind a place that is damaged for changes above a generation: they were committed, and are lost."""
    start = window.extent.start_bytes
    found: list[int] = []
    for place in range(at, window.extent.length_bytes - IO_UNIT + 1, IO_UNIT):
        try:
            change = _own(ChangeSector, (yield from window.take(place, IO_UNIT)), directory, start + place)
        except TiergateError:  # what lies here is no header of ours, which says nothing
            continue
        if change.generation > generation:
            found.append(change.generation)
    if not found:
        return []
    text = f"{len(found)} changes up to generation {max(found)} lie behind it, and can't be used"
    return [Finding(Problem.LOST, region_at(start), text)]


def _told(error: TiergateError, where: str) -> Finding:
    """Make a finding of what came instead of a part: an error of the ALU, or what is wrong with the bytes."""
    match error:
        case SectorError():
            return error.finding(where)
        case CorruptError():
            return Finding(Problem.LOST, where, str(error))
        case _:
            return Finding(Problem.UNREADABLE, where, str(error))


def region_at(address: int) -> str:
    """Name the object region at an address, as findings do."""
    return f"object region at byte {address}"


def lost(findings: Iterable[Finding]) -> bool:
    """Say whether something may have been committed that is not among the objects."""
    return any(finding.problem is not Problem.UNFINISHED for finding in findings)
