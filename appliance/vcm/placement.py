"""Who runs what of a volume (step 520): a pure function of its tree and of what there is (R12).

First-tier objects run where their ALU is open, so that all objects of one ALU are at one storage processor. The second
tier runs at the storage processors that face the volume's hosts, each with a tree of its own; a volume without hosts
runs where its first partition is. What lies at the same storage processor is referred to locally (LRN), all else
remotely (RRN). Where several write to a mirror, one of them orders overlapping writes (D4): the lead, which is where
the mirror's first leg lies, so that asking it costs one way of a write that goes there anyway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.control.orders import Reference
from appliance.control.values import Role, likeness
from backstores.objects import AnyObject, LegState, MirrorObject, PartitionObject
from backstores.wwn import Wwn, short


@dataclass(frozen=True, slots=True)
class Part:
    """A volume's second tier at one storage processor. ``likeness`` tells whether what runs there is this."""

    role: Role
    references: tuple[Reference, ...]
    likeness: str
    lead: str | None = None  # of a follower
    followers: tuple[str, ...] = ()  # of a lead


@dataclass(frozen=True, slots=True)
class Placement:
    """A volume's two tiers."""

    t1: Mapping[str, tuple[PartitionObject, ...]]
    t2: Mapping[str, Part]

    def referrers(self, sp: str) -> tuple[str, ...]:
        """Name those that reach first-tier objects of this storage processor from outside."""
        return tuple(name for name, part in self.t2.items() if any(reference.sp == sp for reference in part.references))


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Why a volume can't be placed now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Plant:
    """What there is: who has an ALU open, and which process a storage processor is at present."""

    opener: Callable[[Wwn], str | None]
    incarnation: Callable[[str], int]


def place(objects: Sequence[AnyObject], facing: Sequence[str], plant: Plant) -> Placement | Unplaced:
    """Place a volume. ``facing`` are the storage processors that are to serve it to hosts, in their order."""
    partitions = serving(objects)
    t1: dict[str, list[PartitionObject]] = defaultdict(list)
    for partition in partitions:
        opener = plant.opener(partition.alu)
        if opener is None:
            return Unplaced(f"no storage processor has alu {partition.alu} open")
        t1[opener].append(partition)
    if not partitions:
        return Unplaced(f"volume {short(objects[0].wwn)} has no partition")
    placed = {sp: tuple(parts) for sp, parts in t1.items()}
    home = {partition.wwn: sp for sp, parts in placed.items() for partition in parts}
    return Placement(placed, _second_tier(objects, list(facing) or [home[partitions[0].wwn]], home, plant))


def serving(objects: Sequence[AnyObject]) -> list[PartitionObject]:
    """List the partitions that serve, in the order of the tree: those below failed legs do not."""
    by_wwn = {obj.wwn: obj for obj in objects}
    found: list[PartitionObject] = []
    pending = [objects[0].wwn]
    while pending:
        obj = by_wwn.get(pending.pop(0))
        if isinstance(obj, PartitionObject):
            found.append(obj)
        elif isinstance(obj, MirrorObject):
            pending[:0] = [leg.child for leg in obj.legs if leg.state is not LegState.FAILED]
        elif obj is not None:
            pending[:0] = obj.children
    return found


def _second_tier(
    objects: Sequence[AnyObject], facing: Sequence[str], home: Mapping[Wwn, str], plant: Plant
) -> dict[str, Part]:
    lead = _lead(objects, facing, home)
    names = list(facing) if lead is None or lead in facing else [lead, *facing]
    parts: dict[str, Part] = {}
    for name in names:
        references = tuple(Reference(wwn, sp) for wwn, sp in home.items() if sp != name)
        followers = tuple(sorted(set(names) - {name})) if name == lead else ()
        role = _role(objects, name, names, lead)
        mine = lead if role is Role.FOLLOWER else None
        others = sorted({reference.sp for reference in references} | set(followers) | ({mine} if mine else set()))
        processes = [(sp, plant.incarnation(sp)) for sp in others]  # what its sessions lead to
        like = likeness(objects, role, references, mine, followers, processes)
        parts[name] = Part(role, references, like, mine, followers)
    return parts


def _lead(objects: Sequence[AnyObject], facing: Sequence[str], home: Mapping[Wwn, str]) -> str | None:
    """Say who orders overlapping writes; nobody, if there is one writer or nothing to keep equal."""
    mirrors = [obj for obj in objects if isinstance(obj, MirrorObject)]
    if len(facing) < 2 or not mirrors:
        return None
    below = serving(objects)
    first = serving([mirrors[0], *(obj for obj in objects if obj is not mirrors[0])])
    return home[(first or below)[0].wwn]


def _role(objects: Sequence[AnyObject], name: str, names: Sequence[str], lead: str | None) -> Role:
    if not any(isinstance(obj, MirrorObject) for obj in objects):
        return Role.FREE
    if len(names) == 1:
        return Role.ALONE
    return Role.LEAD if name == lead else Role.FOLLOWER
