"""What an ALU is to this appliance: owned, foreign, blank, or something that needs a person (R2).

The decision is pure: a generator asks for what must be read. Labels come first; only where none counts do
other traces matter, so that an owned ALU is recognized by reading a few sectors.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from backstores.errors import CorruptError, TiergateError
from backstores.metadata import label as labels
from backstores.metadata import mdr, recovery, signatures, witness
from backstores.metadata.copies import Choice, Copy
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.label import Label
from backstores.metadata.layout import FORMAT_VERSION, LARGE, MDR_ADDRESSES, SMALL, label_addresses
from backstores.metadata.mdr import Directory
from backstores.metadata.region import RegionState
from backstores.metadata.sector import SectorError
from backstores.metadata.steps import IO_UNIT, ZERO_UNIT, Reads, Span
from backstores.metadata.table import Table
from backstores.metadata.witness import Agreement


class Ownership(enum.StrEnum):
    """What an ALU is. Only an owned one is used; a blank one can be claimed without force."""

    OWNED = "owned"
    FOREIGN = "foreign"  # another appliance's SUSID
    BLANK = "blank"  # zeros where one looks
    DATA = "data"  # no metadata of ours, but not blank either
    DAMAGED = "damaged"  # was ours or another appliance's, but can't be read whole
    NEWER = "newer"  # a later release wrote it


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an ALU is, why, and what it holds. ``state`` is None unless its object region is readable."""

    ownership: Ownership
    detail: str
    choice: Choice[Label]
    directory: Directory | None = None
    directory_order: tuple[int, ...] = MDR_ADDRESSES
    state: RegionState | None = None
    table: Table = field(default_factory=Table)
    agreement: Agreement = field(default_factory=Agreement)
    findings: tuple[Finding, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def label(self) -> Label | None:
        """The label that counts, if one does."""
        return self.choice.winner

    @property
    def susid(self) -> str:
        """Whose it is; empty if it is nobody's, or can't be told."""
        return self.directory.susid if self.directory is not None else ""

    @property
    def version(self) -> int:
        """The version of the format in which it is laid out."""
        return self.label.version if self.label is not None else FORMAT_VERSION


def inspect(susid: str, size_bytes: int) -> Reads[Inspection]:
    """Look at an ALU."""
    choice = labels.choose((yield from copies_at(label_addresses(size_bytes))))
    if choice.winner is not None and choice.winner.size_bytes < size_bytes:  # it has grown: its tail is elsewhere
        choice = labels.choose((yield from copies_at(label_addresses(choice.winner.size_bytes))))
    if choice.winner is None:
        return (yield from _without_label(choice, size_bytes))
    return (yield from _with_label(choice, choice.winner, susid, size_bytes))


def copies_at(addresses: Iterable[int]) -> Reads[list[Copy]]:
    """Read the copies of a sector."""
    found: list[Copy] = []
    for address in addresses:
        try:
            found.append(Copy(address, (yield Span(address, IO_UNIT))))
        except TiergateError as error:
            found.append(Copy(address, b"", str(error)))
    return found


def directory_of(label: Label) -> Reads[Choice[Directory]]:
    """Read the MDR directory that belongs to a label."""
    if label.directory is not None:
        return Choice(label.directory, label.directory, (), MDR_ADDRESSES)
    read = yield from copies_at(MDR_ADDRESSES)
    return mdr.choose(read, label.alu, label.areas, label.size_bytes)


def _with_label(choice: Choice[Label], label: Label, susid: str, size_bytes: int) -> Reads[Inspection]:
    """Classify an ALU whose label counts: its MDR directory and object region decide whether it is whole."""
    try:
        labels.check_size(label, size_bytes)
    except CorruptError as error:
        return Inspection(Ownership.DAMAGED, str(error), choice, findings=_of_labels(choice, label))
    chosen = yield from directory_of(label)
    directory = chosen.winner
    findings = (*_of_labels(choice, label), *chosen.findings)
    if directory is None:
        text = "its MDR directory can't be read: " + "; ".join(map(str, chosen.findings))
        return Inspection(Ownership.DAMAGED, text, choice, findings=findings)
    recovered = yield from recovery.recover(directory, label.data, label.version)
    table, uneven = yield from witness.recover(label)
    state = recovered.state
    agreement = Agreement()
    if state is not None and label.directory is None:
        agreement = witness.compare(table, state.objects, label.data, recovery.lost(recovered.findings))
    ownership, text = Ownership.OWNED, ""
    if directory.susid != susid:
        ownership, text = Ownership.FOREIGN, f"claimed by appliance {directory.susid}"
    elif state is None:
        text = "neither of its object regions can be read: " + "; ".join(map(str, recovered.findings))
        ownership = Ownership.DAMAGED
    return Inspection(
        ownership,
        text,
        choice,
        directory,
        chosen.order,
        state,
        table,
        agreement,
        (*findings, *recovered.findings, *uneven, *agreement.findings),
    )


def _of_labels(choice: Choice[Label], label: Label) -> tuple[Finding, ...]:
    """Leave out that a label of version 1 has no copies at the end."""
    if label.directory is None:
        return choice.findings
    return tuple(finding for finding in choice.findings if finding.problem is not Problem.ABSENT)


def _without_label(choice: Choice[Label], size_bytes: int) -> Reads[Inspection]:
    """Classify an ALU without a label that counts, by the traces on it."""
    front, tail, owners, unreadable = yield from _traces(size_bytes)
    found = signatures.names(front, tail)
    findings = (*choice.findings, *unreadable)

    def judged(ownership: Ownership, detail: str) -> Inspection:
        return Inspection(ownership, detail, choice, findings=findings, signatures=found)

    problems = {finding.problem for finding in findings}
    if Problem.NEWER in problems:
        return judged(Ownership.NEWER, _told(findings, {Problem.NEWER}))
    if problems - {Problem.ABSENT}:
        return judged(Ownership.DAMAGED, _told(findings, problems - {Problem.ABSENT}))
    if owners:
        text = f"its labels are gone, but it has an object region of alu {', '.join(sorted(owners))}"
        return judged(Ownership.DAMAGED, text)
    if signatures.is_blank(_without_claim(front), tail):
        return judged(Ownership.BLANK, "")
    return judged(Ownership.DATA, f"holds data: {', '.join(found) or 'of an unknown kind'}")


def _told(findings: Iterable[Finding], problems: set[Problem]) -> str:
    return "; ".join(str(finding) for finding in findings if finding.problem in problems)


def _without_claim(front: bytes) -> bytes:
    """Leave out what a claim that was cut short before its label wrote: the ALU is still blank."""
    for address in MDR_ADDRESSES:
        unit = front[address : address + IO_UNIT]
        try:
            mdr.parse(unit, address)
        except SectorError:
            continue
        front = front[:address] + ZERO_UNIT + front[address + IO_UNIT :]
    return front


def _traces(size_bytes: int) -> Reads[tuple[bytes, bytes, set[str], Sequence[Finding]]]:
    """Read what else tells of an ALU's past: its front and its end, and whose objects lie in its regions."""
    findings: list[Finding] = []
    parts: list[bytes] = []
    tail_bytes = min(signatures.TAIL_BYTES, size_bytes)
    for offset, length in ((0, min(signatures.FRONT_BYTES, size_bytes)), (size_bytes - tail_bytes, tail_bytes)):
        try:
            parts.append((yield Span(offset, length)))
        except TiergateError as error:
            parts.append(b"")
            findings.append(Finding(Problem.UNREADABLE, f"byte {offset}", str(error)))
    owners: set[str] = set()
    for plan in (SMALL, LARGE):
        for address in plan.regions:
            if address + plan.region_bytes > size_bytes:
                continue
            try:
                owner = yield from recovery.owner(address, plan.region_bytes)
            except TiergateError as error:
                findings.append(Finding(Problem.UNREADABLE, f"byte {address}", str(error)))
            else:
                owners |= {owner} if owner is not None else set()
    return parts[0], parts[1], owners, findings
