"""What is wrong with the metadata of ALUs, each by itself and all together, and what of that can be repaired.

Nothing is decided anew: each ALU is judged by ``inspection``, the GS set by ``gsquorum``, the objects by ``merge``. A
repair is what a start of the appliance would do, too: copies are written again from those that count, objects are
mended as ``mends`` allows, the bitmaps of a mirror are made alike, the GS set is taken up by a majority. What one of
these could not prove stays as it is.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backstores.errors import CorruptError, TiergateError
from backstores.metadata import bitmaps, gscopy, gsquorum, legacy, recovery, version_1
from backstores.metadata.bitmaps import Renewal
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.gsformat import GsImage, Usage
from backstores.metadata.gsquorum import Choice, Look
from backstores.metadata.inspection import Inspection, Ownership, inspect
from backstores.metadata.mends import Mend, mends, summary
from backstores.metadata.merge import AluRecord, SystemImage, system_image
from backstores.metadata.steps import Reads
from backstores.wwn import Wwn

ADVICE: Final[Mapping[Problem, str]] = {
    Problem.UNREADABLE: "copy what can be read to a sound disk, and check that",
    Problem.ABSENT: "where another copy is good repair writes it again",
    Problem.DAMAGED: "where another copy is good repair writes it again, so does the next change an object region",
    Problem.NEWER: "use the release that wrote it",
    Problem.MISPLACED: "where another copy is good repair writes it again; look for what moves sectors on this disk",
    Problem.FOREIGN: "give the alus of one appliance, or say which one with --susid",
    Problem.UNFINISHED: "harmless: a change was cut short, and the state before it is whole",
    Problem.LOST: "it can't be brought back from this alu; keep it attached, its room is not given to others",
    Problem.STALE: "what is newer counts; repair brings it up to date, where that is safe",
    Problem.DUPLICATE: "give one of them alone, the original",
    Problem.OUTSIDE: "what it belongs to can't be used; restore the volume",
    Problem.OVERLAP: "look which of the two volumes has good data, and delete the other",
    Problem.INVALID: "what it belongs to can't be used; restore the volume",
    Problem.MISSING: "give all alus of the appliance; with all of them there, repair puts what it can",
    Problem.ORPHAN: "with all alus there, repair drops an object; a bitmap stays, and does no harm",
    Problem.CONTRADICTION: "neither counts; find out which alu is a copy, and leave that one out",
}
"""What a person does about a finding."""

LOSSES: Final = frozenset({Problem.LOST, Problem.UNREADABLE, Problem.DAMAGED})
"""By these the objects of an ALU may be older than they were, without it being a copy."""

HARMLESS: Final = frozenset({Problem.UNFINISHED, Problem.ORPHAN})
"""What is no trouble with a bitmap: what power failures leave, and what nothing reads."""

NO_TROUBLE: Final = frozenset({Ownership.BLANK, Ownership.DATA, Ownership.FOREIGN})
"""What is no ALU of this appliance: named, and left."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An ALU that was looked at, its copy of the GS image, and the dirty-region bitmaps on it."""

    path: str
    inspection: Inspection
    copy: gscopy.Copy | None = None
    bitmaps: bitmaps.Raw = field(default_factory=dict)

    @property
    def alu(self) -> Wwn:
        """Its name, if it is owned."""
        assert self.inspection.label is not None
        return self.inspection.label.alu

    @property
    def look(self) -> Look:
        """What decisions about the GS set go by."""
        found = self.inspection
        assert found.directory is not None
        assert found.state is not None
        sound = not any(finding.problem in LOSSES for finding in found.findings)
        copy = self.copy or gscopy.Copy(self.alu)
        return Look(copy, found.directory.epoch, found.state.generation if sound else None)

    @property
    def current(self) -> bool:
        """Whether it is in the format that this release writes."""
        return self.inspection.version != version_1.VERSION


def look(path: str, susid: str, size_bytes: int) -> Reads[Subject]:
    """Look at an ALU for the appliance ``susid``."""
    found = yield from inspect(susid, size_bytes)
    if found.ownership is not Ownership.OWNED or found.label is None or found.state is None:
        return Subject(path, found)
    raw = yield from bitmaps.look(found.state.objects, found.findings)
    if found.version == version_1.VERSION:
        return Subject(path, found, bitmaps=raw)
    try:
        copy = yield from gscopy.look(found.label.alu)
    except TiergateError as error:
        copy = gscopy.unreadable(found.label.alu, str(error))
    return Subject(path, found, copy, raw)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong on an ALU; without a path it is wrong between ALUs. Only what is ``serious`` counts."""

    path: str
    finding: Finding
    serious: bool = True

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.finding}; {ADVICE[self.finding.problem]}"


class Means(enum.StrEnum):
    """How something is repaired."""

    COPIES = "copies"
    OBJECTS = "objects"
    REGION = "object region"
    BITMAPS = "bitmaps"
    GS_SET = "GS set"


@dataclass(frozen=True, slots=True)
class Repair:
    """What can be done, to one ALU or (without a path) to all."""

    path: str
    means: Means
    text: str
    mends: tuple[Mend, ...] = ()
    renewals: tuple[Renewal, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found about the ALUs of one appliance."""

    susid: str
    troubles: tuple[Trouble, ...]
    repairs: tuple[Repair, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing serious is wrong."""
        return not any(trouble.serious for trouble in self.troubles)


def main_susid(found: Iterable[Inspection]) -> str:
    """Give the SUSID that most of some ALUs have: whose they are, unless a person says so."""
    counts = Counter(sorted(one.susid for one in found if one.susid))
    return counts.most_common(1)[0][0] if counts else ""


def check_up(subjects: Sequence[Subject], susid: str) -> Checkup:
    """Look for all that is wrong; the ALUs were inspected for this SUSID."""
    owned = [one for one in subjects if one.inspection.ownership is Ownership.OWNED]
    choice = gsquorum.choose([one.look for one in owned])
    used = [one for one in owned if one.alu not in choice.stale]
    records = [_record(one) for one in used]
    image = system_image(records)
    examined = bitmaps.examine(image, {name: raw for one in used for name, raw in one.bitmaps.items()})
    troubles = [trouble for one in subjects for trouble in _of_one(one)]
    paths = {one.alu: one.path for one in used}
    troubles += [Trouble(paths[alu], finding, finding.problem not in HARMLESS) for alu, finding in examined.findings]
    told = {trouble.finding for trouble in troubles}
    together = [*_of_the_set(choice, used), *(finding for finding in image.findings if finding not in told)]
    troubles += [Trouble("", finding, finding.problem is not Problem.UNFINISHED) for finding in together]
    return Checkup(susid, tuple(troubles), tuple(_repairs(used, records, image, examined.renewals, choice)))


def _record(one: Subject) -> AluRecord:
    assert one.inspection.state is not None
    return AluRecord(one.alu, one.inspection.state.objects, one.inspection.findings)


def _of_one(one: Subject) -> Iterator[Trouble]:
    """Name what is wrong on an ALU by itself."""
    found = one.inspection
    if found.ownership in NO_TROUBLE:
        detail = found.detail or "it holds nothing"
        yield Trouble(one.path, Finding(Problem.FOREIGN, "alu", f"{found.ownership}: {detail}"), serious=False)
        return
    if found.ownership is not Ownership.OWNED:
        problem = Problem.NEWER if found.ownership is Ownership.NEWER else Problem.DAMAGED
        yield Trouble(one.path, Finding(problem, "alu", found.detail))
    for finding in (*found.findings, *(one.copy.findings if one.copy else ())):
        yield Trouble(one.path, finding, finding.problem is not Problem.UNFINISHED)


def _of_the_set(choice: Choice, used: Sequence[Subject]) -> Iterator[Finding]:
    """Name what is wrong with the GS set."""
    for alu, why in choice.stale.items():
        yield Finding(Problem.STALE, f"alu {alu}", f"it is {why}")
    for alu, why in choice.missing.items():
        yield Finding(
            Problem.MISSING, f"GS set, member {alu}", f"too few members can be read: {why}: bring it, or `/gs reform`"
        )
    if choice.contradiction:
        yield Finding(Problem.CONTRADICTION, "GS set", choice.contradiction)
    if choice.image is None:
        return
    for alu in _late(choice.image, used):
        text = f"it has not reached epoch {choice.image.epoch}, generation {choice.image.generation}"
        yield Finding(Problem.STALE, f"GS set, member {alu}", text)
    for entry in _absent(choice.image, used):
        if entry not in choice.stale and entry not in choice.missing:
            yield Finding(Problem.MISSING, f"alu {entry}", "the appliance has it, and it was not given")
    for record in choice.image.legacy:
        try:
            legacy.decode(record.body)
        except CorruptError as error:
            yield Finding(Problem.LOST, f"GS set, legacy alu {record.alu}", str(error))


def _late(image: GsImage, used: Sequence[Subject]) -> list[Wwn]:
    """Name the members whose word counts, and that hold another image."""
    copies = {one.alu: one.copy for one in used if one.copy is not None and not one.copy.doubt}
    return [alu for alu in gsquorum.holders(image) if alu in copies and copies[alu].image != image]


def _absent(image: GsImage, used: Sequence[Subject]) -> list[Wwn]:
    there = {one.alu for one in used}
    return [entry.alu for entry in image.roster if entry.usage is Usage.OWNED and entry.alu not in there]


def _repairs(
    used: Sequence[Subject],
    records: Sequence[AluRecord],
    image: SystemImage,
    renewals: Sequence[Renewal],
    choice: Choice,
) -> Iterator[Repair]:
    for one in used:
        if one.current and _newer(one):
            continue
        parts = list(_uneven(one)) if one.current else []
        if parts:
            yield Repair(one.path, Means.COPIES, f"write {' and '.join(parts)} again")
    if not choice.usable or choice.image is None or len({one.alu for one in used}) < len(used):
        return  # without the set nobody can say whether one of them is an older copy
    todo = mends(records, image, complete=not _absent(choice.image, used) and all(map(_mendable, used)))
    for one in used:
        mine = tuple(mend for mend in todo if mend.alu == one.alu)
        if mine and _mendable(one):
            yield Repair(one.path, Means.OBJECTS, f"mend objects: {summary(mine)}", mine)
        if _mendable(one) and (address := _worn(one, choice.image)) is not None:
            yield Repair(one.path, Means.REGION, f"write the object region at byte {address} again")
    yield from _of_bitmaps(used, renewals)
    members = [one for one in used if one.alu in gsquorum.holders(choice.image)]
    bad = any(one.copy is not None and one.copy.findings for one in members)
    if (bad or choice.image.before or _late(choice.image, used)) and all(map(_mendable, used)):
        yield Repair("", Means.GS_SET, "write the GS set again to its members, in a new epoch")


def _of_bitmaps(used: Iterable[Subject], renewals: Sequence[Renewal]) -> Iterator[Repair]:
    """Make the bitmaps of those mirrors alike whose legs may all be written, ALU by ALU."""
    mendable = {one.alu: one.path for one in used if _mendable(one)}
    barred = {renewal.geometry.mirror for renewal in renewals if renewal.place.alu not in mendable}
    for alu, path in mendable.items():
        mine = tuple(one for one in renewals if one.place.alu == alu and one.geometry.mirror not in barred)
        if mine:
            number = f"{len(mine)} dirty-region bitmap{'s' if len(mine) > 1 else ''}"
            yield Repair(path, Means.BITMAPS, f"write {number} again, with all that any leg has", renewals=mine)


def _newer(one: Subject) -> bool:
    """Whether a later release has written anything on it: then this one writes nothing."""
    return any(finding.problem is Problem.NEWER for finding in (*one.inspection.findings, *_gs_findings(one)))


def _gs_findings(one: Subject) -> tuple[Finding, ...]:
    return one.copy.findings if one.copy is not None else ()


def _mendable(one: Subject) -> bool:
    return one.current and not _newer(one)


def _worn(one: Subject, image: GsImage) -> int | None:
    """Give the address of an object region that is damaged, and that held nothing newer than the live one.

    Damage by itself can't say that. But the partition table would tell of partitions that came or went, and the
    GS set of a later generation.
    """
    found = one.inspection
    assert found.directory is not None
    assert found.state is not None
    entry = image.entry(one.alu)
    address = found.directory.regions[1 - found.state.live]
    damaged = any(finding.where == recovery.region_at(address) for finding in found.findings)
    lost = any(finding.problem is Problem.LOST for finding in found.findings) or bool(found.agreement.findings)
    later = entry is not None and entry.generation > found.state.generation
    return address if damaged and not lost and not later else None


def _uneven(one: Subject) -> Iterator[str]:
    """Name what of an ALU there is a good copy of, and a bad one."""
    found = one.inspection
    if found.choice.findings:
        yield "labels"
    if any(finding.where.startswith("MDR directory") for finding in found.findings):
        yield "MDR directory"
    if found.table.uneven or any(
        finding.problem not in (Problem.LOST, Problem.OVERLAP) for finding in found.agreement.findings
    ):
        yield "partition table"
