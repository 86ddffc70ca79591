"""The object region: the objects on one ALU, in two copies that take turns (R3).

Invariants. A copy is a header sector and a body behind it. The *live* copy is the good one with the
highest generation; it is never overwritten. A commit writes the body of the other copy, flushes,
writes its header, flushes (M3): until the header is there, its old header does not match the new
body, so that the copy is invalid and the live one counts; from then on it is the live one. So every
crash leaves the old state or the new one (M6).

After a commit that failed, nothing is known of the other copy, and nothing needs to be: the next
commit writes the very same copy again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from backstores.errors import CorruptError, UsageError
from backstores.metadata import records
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.label import Label
from backstores.metadata.sector import Sector, SectorError, crc32c, following, seal, stamped, stored_wwn, unseal
from backstores.metadata.steps import IO_UNIT, Flush, Step, Write, padded
from backstores.objects import AnyObject
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn, to_bytes

BODY_OFFSET: Final = IO_UNIT  # from the header


class RegionSector(Sector, size=512, order="little"):
    """The header of a copy of the object region."""

    magic = Bytes(byte=0, length=8, value=b"TGREGION")
    body_bytes = Bits(byte=64, width=64, doc="length of the body, which starts 4096 bytes behind this sector")
    body_crc = Bits(byte=72, width=32, doc="CRC32C of the body")
    objects = Bits(byte=76, width=32, doc="how many objects the body holds")


@dataclass(frozen=True, slots=True)
class CopyImage:
    """What could be read of one copy. ``body`` may be longer than the body; ``error`` stands for a failed read."""

    header: bytes
    body: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class RegionState:
    """What the live copy says. ``live`` is its number, 0 or 1."""

    objects: tuple[AnyObject, ...]
    generation: int
    time_ns: int
    epoch: int
    live: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an ALU's object region holds; no state at all if neither copy is good."""

    state: RegionState | None
    findings: tuple[Finding, ...]


def capacity(label: Label) -> int:
    """How many bytes of body a copy has room for."""
    return label.region_bytes - BODY_OFFSET


def body_length(header: bytes, label: Label, copy: int) -> int:
    """How much of a copy's body is worth reading: nothing if its header is not good."""
    try:
        return _header(header, label, copy).body_bytes
    except SectorError:
        return 0  # ``recover`` looks at the same header, and reports it


def recover(copies: Sequence[CopyImage], label: Label) -> Recovered:
    """Decide which copy is live, and check what it holds. The one function that decides."""
    states: list[RegionState] = []
    findings: list[Finding] = []
    broken: list[tuple[int, RegionSector, str]] = []
    for number, copy in enumerate(copies):
        where = _where(label, number)
        if copy.error:
            findings.append(Finding(Problem.UNREADABLE, where, copy.error))
            continue
        try:
            header = _header(copy.header, label, number)
        except SectorError as error:
            findings.append(error.finding(where))
            continue
        try:
            states.append(_state(header, copy.body, number))
        except CorruptError as error:
            broken.append((number, header, str(error)))
    state = max(states, key=lambda s: s.generation, default=None)
    if len(states) == 2 and states[0].generation == states[1].generation:
        text = f"both copies claim generation {states[0].generation}"
        return Recovered(None, (*findings, Finding(Problem.CONTRADICTION, "object region", text)))
    for number, header, text in broken:
        findings.append(_broken(_where(label, number), header, text, state))
    if state is not None:
        findings += records.check(state.objects, label.alu, label.data)
    return Recovered(state, tuple(findings))


def commit(
    previous: RegionState | None, objects: Sequence[AnyObject], label: Label, now_ns: int, epoch: int = 0
) -> tuple[list[Step], RegionState]:
    """Say how ``objects`` become the new state: the steps, and the state once all of them have ended well.

    Raises:
        UsageError: they don't fit, or contradict each other.
    """
    wrong = records.check(objects, label.alu, label.data)
    if wrong:
        raise UsageError(f"alu {label.alu} can't store these objects: {wrong[0]}")
    body = records.encode(objects)
    if len(body) > capacity(label):
        raise UsageError(
            f"the {len(objects)} objects of alu {label.alu} take {len(body)} bytes, its object region has room for"
            f" {capacity(label)}: use another alu, or delete volumes"
        )
    after = RegionState(
        tuple(objects),
        generation=following(previous.generation) if previous else 1,
        time_ns=stamped(previous.time_ns if previous else 0, now_ns),
        epoch=epoch,
        live=1 - previous.live if previous else 0,
    )
    address = label.regions[after.live]
    header = seal(
        RegionSector,
        address=address,
        alu=to_bytes(label.alu),
        generation=after.generation,
        time_ns=after.time_ns,
        epoch=after.epoch,
        body_bytes=len(body),
        body_crc=crc32c(body),
        objects=len(after.objects),
    )
    steps: list[Step] = [Write(address + BODY_OFFSET, padded(body)), Flush(), Write(address, padded(header)), Flush()]
    return steps, after


def owner(header: bytes, address: int) -> Wwn | None:
    """Say whose objects lie at ``address``, if any do: for ALUs whose labels are gone.

    A copy without objects is nobody's loss; the claim of a blank ALU, cut short, leaves one.
    """
    try:
        sector = unseal(RegionSector, header, address)
        return stored_wwn(sector.alu) if sector.objects else None
    except SectorError:
        return None


def _header(raw: bytes, label: Label, copy: int) -> RegionSector:
    sector = unseal(RegionSector, raw, label.regions[copy])
    if sector.alu != to_bytes(label.alu):
        raise SectorError(Problem.FOREIGN, f"it was written for alu {stored_wwn(sector.alu)}")
    if sector.body_bytes > capacity(label):
        raise SectorError(Problem.DAMAGED, f"a body of {sector.body_bytes} bytes where {capacity(label)} have room")
    return sector


def _state(header: RegionSector, body: bytes, copy: int) -> RegionState:
    body = body[: header.body_bytes]
    if len(body) < header.body_bytes or crc32c(body) != header.body_crc:
        raise CorruptError(f"the body does not match the header of generation {header.generation}")
    objects = records.decode(body)
    if len(objects) != header.objects:
        raise CorruptError(f"{len(objects)} objects, its header says {header.objects}")
    return RegionState(objects, header.generation, header.time_ns, header.epoch, copy)


def _broken(where: str, header: RegionSector, text: str, state: RegionState | None) -> Finding:
    """Tell a write that a crash cut short from a loss: the header is written last, so only the older may not match."""
    if state is None or header.generation > state.generation:
        return Finding(Problem.LOST, where, text)
    return Finding(Problem.UNFINISHED, where, text)


def _where(label: Label, copy: int) -> str:
    return f"object region at byte {label.regions[copy]}"
