"""What was found on the ALUs, judged: which volumes can serve, which wait for what, and what is left over.

A volume can serve when all of it is there but what lies below failed legs. One that lacks a leg in sync
waits, because what is left could be old (D3).

There is no I/O in here. What can be mended has been before: see ``backstores.metadata.mends``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backstores.metadata.findings import Problem
from backstores.metadata.merge import VolumeTree
from backstores.objects import AnyObject, Extent, LegState, MirrorObject, PartitionObject
from backstores.wwn import Wwn


@dataclass(frozen=True, slots=True)
class Judged:
    """A volume that was found. ``reason`` says why it can't serve, and is empty if it can."""

    objects: tuple[AnyObject, ...]
    reason: str = ""
    whole: bool = True  # every part of it is on an attached ALU


def judge(tree: VolumeTree, suspects: Sequence[str]) -> Judged:
    """Decide whether a volume can serve. ``suspects`` names the ALUs that may hold what is missing."""
    by_wwn = {obj.wwn: obj for obj in tree.objects}
    missing = {finding.wwn for finding in tree.problems}

    def broken(wwn: Wwn) -> bool:
        return wwn in missing or wwn not in by_wwn or any(broken(child) for child in by_wwn[wwn].children)

    spared: set[Wwn] = set()  # below failed legs: what is missing there keeps nothing off line
    objects: list[AnyObject] = []
    for obj in tree.objects:
        if obj.wwn in spared:
            spared |= set(obj.children)
            continue
        objects.append(obj)
        if isinstance(obj, MirrorObject):
            gone = [leg.child for leg in obj.legs if leg.state is not LegState.IN_SYNC and broken(leg.child)]
            spared |= set(gone)
            objects += [_stand_in(child, obj, tree.volume.block_bytes) for child in gone]
    problems = [finding for finding in tree.problems if finding.wwn not in spared]
    reason = "; ".join(map(str, problems))
    if any(finding.problem is Problem.MISSING for finding in problems):
        reason += f"; {_advice(suspects)}"
    return Judged(tuple(objects), reason, whole=tree.complete)


def _advice(suspects: Sequence[str]) -> str:
    """Say what to do about parts that are missing. Only the ALU itself knows which partitions it has (R3)."""
    if suspects:
        return f"bring back {', '.join(suspects)}; or delete the volume"
    return "attach the alu that holds it, or delete the volume"


def _stand_in(child: Wwn, mirror: MirrorObject, block_bytes: int) -> PartitionObject:
    """Stand for a failed leg that is not there, on an ALU that is not there: it is never read or written."""
    absent = Wwn(f"5{child[-15:]}")
    return PartitionObject(
        wwn=child, volume=mirror.volume, alu=absent, extent=Extent(0, mirror.blocks * block_bytes), generation=0
    )


def first_partition(wwn: Wwn, by_wwn: Mapping[Wwn, AnyObject]) -> PartitionObject:
    """Give the first partition of a leg: the one with its bitmap."""
    obj = by_wwn[wwn]
    while not isinstance(obj, PartitionObject):
        obj = by_wwn[obj.children[0]]
    return obj


def spared_alus(objects: Sequence[AnyObject]) -> frozenset[Wwn]:
    """Name the ALUs that only failed legs stand on: changes of the volume go on without them."""
    needed = {partition.alu for partition in _live_partitions(objects)}
    return frozenset(obj.alu for obj in objects if isinstance(obj, PartitionObject)) - needed


def _live_partitions(objects: Sequence[AnyObject]) -> Iterator[PartitionObject]:
    by_wwn = {obj.wwn: obj for obj in objects}
    pending = [objects[0]]
    while pending:
        obj = pending.pop()
        if isinstance(obj, PartitionObject):
            yield obj
        elif isinstance(obj, MirrorObject):
            pending += [by_wwn[leg.child] for leg in obj.legs if leg.state is LegState.IN_SYNC]
        else:
            pending += [by_wwn[child] for child in obj.children]
