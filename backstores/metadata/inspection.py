"""What an ALU is to this appliance: owned, foreign, blank, or something that needs a person (R2).

The decision is pure: ``classify`` takes what was read. Labels come first; only where none counts do
other traces matter, so that an owned ALU is recognized by reading two sectors.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from backstores.errors import CorruptError
from backstores.metadata import label as labels
from backstores.metadata import region, signatures
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.label import Choice, Label
from backstores.metadata.layout import REGION_ADDRESSES
from backstores.metadata.region import RegionState


class Ownership(enum.StrEnum):
    """What an ALU is. Only an owned one is used; a blank one can be claimed without force."""

    OWNED = "owned"
    FOREIGN = "foreign"  # another appliance's SUSID
    BLANK = "blank"  # zeros where one looks
    DATA = "data"  # no metadata of ours, but not blank either
    DAMAGED = "damaged"  # was ours or another appliance's, but can't be read whole
    NEWER = "newer"  # a later release wrote it


@dataclass(frozen=True, slots=True)
class Traces:
    """What else was read of an ALU without a label that counts; empty bytes where a read failed."""

    front: bytes
    tail: bytes
    region_headers: tuple[bytes, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an ALU is, why, and what it holds. ``state`` is None unless its object region is readable."""

    ownership: Ownership
    detail: str
    choice: Choice
    state: RegionState | None = None
    findings: tuple[Finding, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def label(self) -> Label | None:
        """The label that counts, if one does."""
        return self.choice.label


def with_label(
    choice: Choice, label: Label, images: Sequence[region.CopyImage], susid: str, size_bytes: int
) -> Inspection:
    """Classify an ALU whose label counts: its object region decides whether it is whole."""
    recovered = region.recover(images, label)
    findings = choice.findings + recovered.findings
    try:
        labels.check_size(label, size_bytes)
    except CorruptError as error:
        return Inspection(Ownership.DAMAGED, str(error), choice, recovered.state, findings)
    if label.susid != susid:
        text = f"claimed by appliance {label.susid}"
        return Inspection(Ownership.FOREIGN, text, choice, recovered.state, findings)
    if recovered.state is None:
        text = "neither copy of its object region can be read: " + "; ".join(map(str, recovered.findings))
        return Inspection(Ownership.DAMAGED, text, choice, None, findings)
    return Inspection(Ownership.OWNED, "", choice, recovered.state, findings)


def without_label(choice: Choice, traces: Traces) -> Inspection:
    """Classify an ALU without a label that counts, by the traces on it."""
    found = signatures.names(traces.front, traces.tail)
    findings = choice.findings + traces.findings
    problems = {finding.problem for finding in findings}
    owners = {
        region.owner(raw, address) for raw, address in zip(traces.region_headers, REGION_ADDRESSES, strict=True)
    } - {None}
    if Problem.NEWER in problems:
        newer = next(str(finding) for finding in findings if finding.problem is Problem.NEWER)
        return Inspection(Ownership.NEWER, newer, choice, None, findings, found)
    if problems - {Problem.ABSENT}:
        text = "; ".join(str(finding) for finding in findings if finding.problem is not Problem.ABSENT)
        return Inspection(Ownership.DAMAGED, text, choice, None, findings, found)
    if owners:
        text = f"its labels are gone, but it has an object region of alu {', '.join(sorted(filter(None, owners)))}"
        return Inspection(Ownership.DAMAGED, text, choice, None, findings, found)
    if signatures.is_blank(traces.front, traces.tail):
        return Inspection(Ownership.BLANK, "", choice, None, findings)
    text = f"holds data: {', '.join(found) or 'of an unknown kind'}"
    return Inspection(Ownership.DATA, text, choice, None, findings, found)
