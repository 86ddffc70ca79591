"""What all ALUs together say of the GS set: which image counts, and whether it may be changed (R4, M4).

Invariants. An image is committed when a majority of its members holds it, and, while the membership
changes (``before`` is not empty), a majority of the former members, too. The same majorities must be
readable for an image to be taken up. Any two such majorities have a member in common, hence:

- whoever can take up an image has seen every committed one, for the newest that is seen is taken;
- an image that reached a minority is superseded, or finished by being written again; which, nobody
  can have noticed, for its writer did not go on;
- its epoch is the writer's alone: a majority was fenced with it before the first image of that epoch
  was written, and whoever comes later sees one of these and takes a higher one (M5).

Only an ALU that is there, answers, is not in doubt (``gscopy``) and is no older copy of itself has a
vote. There is no I/O in here, and no other place where any of this is decided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from backstores.metadata.gscopy import Copy
from backstores.metadata.gsformat import MOST_MEMBERS, GsImage, RosterEntry, Usage
from backstores.wwn import Wwn

MOST_DETACHED: Final = 128  # of the roster's entries: then those of the lowest epochs are forgotten
REFORMED_EPOCHS: Final = 1 << 20
"""How far the epoch jumps when a set is formed anew without its majority: beyond all that the missing can have seen."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was read of one ALU: its copy of the GS image, the epoch it was fenced with, its objects' generation.

    ``generation`` is None where newer objects were lost: then it says nothing about age.
    """

    copy: Copy
    epoch: int = 0
    generation: int | None = None

    @property
    def alu(self) -> Wwn:
        """Its name."""
        return self.copy.alu


@dataclass(frozen=True, slots=True)
class Choice:
    """What a start goes by. ``image`` is the newest; it may be taken up, and changed, only if ``missing`` is empty.

    ``missing`` gives each member without a vote, and why, once there are too many of them; ``stale`` the ALUs
    that are older copies of themselves; ``epoch`` is the highest that was seen anywhere.
    """

    image: GsImage | None
    epoch: int
    stale: Mapping[Wwn, str] = field(default_factory=dict)
    missing: Mapping[Wwn, str] = field(default_factory=dict)
    contradiction: str = ""

    @property
    def usable(self) -> bool:
        """Whether the image can be taken up; without any, whether a set may be formed."""
        return not self.missing and not self.contradiction


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ALU that could be a member; ``disk`` tells it from others that would fail with it."""

    alu: Wwn
    disk: str


def is_majority(members: Sequence[Wwn], there: Collection[Wwn]) -> bool:
    """Whether more than half of the members are there."""
    return 2 * sum(member in there for member in members) > len(members)


def committed(image: GsImage, there: Collection[Wwn]) -> bool:
    """Whether an image that these ALUs hold is true from now on; also, whether these may take it up."""
    return is_majority(image.members, there) and (not image.before or is_majority(image.before, there))


def holders(image: GsImage) -> tuple[Wwn, ...]:
    """Name the ALUs that an image belongs on."""
    return tuple(dict.fromkeys((*image.members, *image.before)))


def choose(looks: Sequence[Look]) -> Choice:
    """Decide which image counts. The one function that decides.

    A first image says nothing but who shall be a member, and has no epoch of its writer's own: of several, left by
    attempts that were cut short, any will do.
    """
    images = [look.copy.image for look in looks if look.copy.image is not None]
    epoch = max([*(look.epoch for look in looks), *(one.epoch for one in images)], default=0)
    if not images:
        fenced = sorted(look.alu for look in looks if look.epoch)
        text = "no attached alu holds the list of the GS set that it was fenced for"
        return Choice(None, epoch, contradiction=f"{text}: alu {', '.join(fenced)}" if fenced else "")
    newest = max(one.order for one in images)
    tied = [one for one in images if one.order == newest]
    if tied[0].generation > 1 and any(one != tied[0] for one in tied):
        text = f"there are two different images of epoch {newest[0]}, generation {newest[1]}"
        return Choice(tied[0], epoch, contradiction=text)
    doubted = {look.alu: look.copy.doubt for look in looks if look.copy.doubt}
    image = max(tied, key=lambda one: (committed(one, {look.alu for look in looks} - doubted.keys()), one.members))
    stale = {look.alu: why for look in looks if (why := staleness(look, image))}
    silent = doubted | stale
    there = {look.alu for look in looks} - silent.keys()
    if committed(image, there):
        return Choice(image, epoch, stale)
    missing = {alu: silent.get(alu, "not attached") for alu in holders(image) if alu not in there}
    return Choice(image, epoch, stale, missing)


def staleness(look: Look, image: GsImage) -> str:
    """Say why an ALU is an older copy of itself; nothing if it is not, as far as can be told."""
    entry = image.entry(look.alu)
    if entry is None:
        return ""
    if look.epoch < entry.epoch:
        return f"an older copy: epoch {look.epoch}, while the appliance has fenced it with {entry.epoch} since"
    if look.generation is not None and look.generation < entry.generation:
        return f"an older copy: objects of generation {look.generation}, it had {entry.generation} when last seen"
    return ""


def next_members(current: Sequence[Wwn], candidates: Sequence[Candidate]) -> tuple[Wwn, ...]:
    """Choose the members from the ALUs that could be: on as many disks as there are, with as few changes as can be.

    Members that are not there are replaced. Without a replacement they are kept, for they may return and be what
    makes a majority with others; but one goes if the number would be even, since that costs no majority.
    """
    seats = {alu: seat for seat, alu in enumerate(current)}
    ordered = sorted(candidates, key=lambda candidate: seats.get(candidate.alu, len(seats)))
    on_disk: dict[str, int] = {}
    ranked = []
    for candidate in ordered:
        on_disk[candidate.disk] = on_disk.get(candidate.disk, 0) + 1
        ranked.append((on_disk[candidate.disk], candidate.alu))
    chosen = {alu for _, alu in sorted(ranked, key=lambda rank: rank[0])[:MOST_MEMBERS]}
    there = tuple(candidate.alu for candidate in ordered if candidate.alu in chosen)
    lost = [alu for alu in current if all(alu != candidate.alu for candidate in candidates)]
    kept = lost[: MOST_MEMBERS - len(there)]
    if kept and (len(there) + len(kept)) % 2 == 0:
        kept.pop()
    return (*there, *kept)


def with_entries(roster: Iterable[RosterEntry], seen: Iterable[RosterEntry]) -> tuple[RosterEntry, ...]:
    """Put what was seen of ALUs in the place of what was known of them; nothing ever goes back in one epoch.

    With a new epoch the generation starts where the ALU is found: it has been judged, and may have lost objects.
    """
    known = {entry.alu: entry for entry in roster}
    for entry in seen:
        old = known.get(entry.alu, entry)
        if entry.epoch <= old.epoch:
            newest = max(old.generation, entry.generation)
            entry = msgspec.structs.replace(entry, epoch=old.epoch, generation=newest)
        known[entry.alu] = entry
    detached = [entry for entry in known.values() if entry.usage is Usage.DETACHED]
    forgotten = sorted(detached, key=lambda entry: (-entry.epoch, entry.alu))[MOST_DETACHED:]
    return tuple(sorted(entry for entry in known.values() if entry not in forgotten))
