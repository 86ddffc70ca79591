"""The system image: what all ALUs together say about the volumes (R3).

A second-tier object is stored on every ALU below it; a crash between two ALUs leaves copies of
different age. Of the copies of one object the highest generation counts; two copies of one generation
that differ contradict each other, and neither counts. From each volume object the tree below is
followed. A tree that is not whole is told with what is missing, and holds up no other (C3): whether it
can serve without (a mirror can) is for others to decide. Nothing is mended here: see ``mends``. A tombstone
counts like any volume object and leads to no tree: what is left of its volume are orphans.

There may be hundreds of thousands of copies, most of which agree: these take the short way in each loop.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from backstores.metadata.findings import Finding, Problem
from backstores.metadata.records import described, shown
from backstores.objects import AnyObject, Deletion, PartitionObject, VolumeObject
from backstores.transforms.tree import MAX_DEPTH
from backstores.wwn import Wwn


@dataclass(frozen=True, slots=True)
class AluRecord:
    """What one ALU holds: its objects, and what was found wrong with them when they were read."""

    alu: Wwn
    objects: tuple[AnyObject, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeTree:
    """A volume and all that was found below it, parents before children, the volume object first."""

    objects: tuple[AnyObject, ...]
    missing: tuple[Wwn, ...] = ()  # named by an object of the tree, usable nowhere
    problems: tuple[Finding, ...] = ()  # why it is not whole; a missing object is among them

    @property
    def volume(self) -> VolumeObject:
        """The root."""
        root = self.objects[0]
        assert isinstance(root, VolumeObject)
        return root

    @property
    def complete(self) -> bool:
        """Whether nothing keeps it from going on line."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class SystemImage:
    """All volumes, in the order of their names' bytes; objects that no volume leads to; what else is wrong."""

    volumes: tuple[VolumeTree, ...]
    orphans: tuple[AnyObject, ...]
    findings: tuple[Finding, ...]
    tombstones: tuple[VolumeObject, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """The copy of each object that counts, all copies with their ALUs, and what is known of those that don't count."""

    objects: Mapping[Wwn, AnyObject]
    copies: Mapping[Wwn, Sequence[tuple[Wwn, AnyObject]]]
    rejected: Mapping[Wwn, Finding]


def system_image(records: Iterable[AluRecord]) -> SystemImage:
    """Merge what the ALUs hold."""
    read = list(records)
    known, findings = _known(read)
    findings += [
        Finding(Problem.DUPLICATE, f"alu {alu}", f"{times} attached alus have its label: all but one are copies")
        for alu, times in Counter(record.alu for record in read).items()
        if times > 1
    ]
    heads = [item for item in known.objects.values() if isinstance(item, VolumeObject)]
    trees = [_tree(head, known) for head in heads if not head.deleted]
    trees.sort(key=lambda tree: (tree.volume.name, tree.volume.wwn))
    reached = {item.wwn for tree in trees for item in tree.objects} | {head.wwn for head in heads}
    orphans = tuple(item for wwn, item in sorted(known.objects.items()) if wwn not in reached)
    for tree in trees:
        findings += _absent_copies(tree, known)
    findings += _shared_names(trees)
    findings += [Finding(Problem.ORPHAN, described(item), "no volume leads to it", item.wwn) for item in orphans]
    return SystemImage(tuple(trees), orphans, tuple(findings), tuple(head for head in heads if head.deleted))


def stored_on(tree: VolumeTree) -> Iterator[tuple[AnyObject, frozenset[Wwn]]]:
    """Yield the second-tier objects of a tree, children first, and the ALUs below each, as far as known (R3)."""
    below: dict[Wwn, frozenset[Wwn]] = {}
    for item in reversed(tree.objects):
        if isinstance(item, PartitionObject):
            below[item.wwn] = frozenset((item.alu,))
        else:
            alus = below[item.wwn] = frozenset().union(*(below.get(child, frozenset()) for child in item.children))
            yield item, alus


def _known(records: Iterable[AluRecord]) -> tuple[_Known, list[Finding]]:
    """Choose among the copies of every object."""
    copies: defaultdict[Wwn, list[tuple[Wwn, AnyObject]]] = defaultdict(list)
    rejected: dict[Wwn, Finding] = {}
    findings: list[Finding] = []
    for record in records:
        wrong = {finding.wwn: finding for finding in record.findings if finding.wwn is not None}
        for item in record.objects:
            finding = wrong.get(item.wwn)
            if isinstance(item, PartitionObject) and item.alu != record.alu:
                finding = Finding(Problem.FOREIGN, described(item), f"found on alu {record.alu}, not its own", item.wwn)
            if finding is None:
                copies[item.wwn].append((record.alu, item))
            else:
                rejected[item.wwn] = finding
                findings.append(finding)
    objects: dict[Wwn, AnyObject] = {}
    for wwn, held in copies.items():
        newest = held[0][1]
        if len(held) > 1 and any(item != newest for _, item in held):
            newest = _newest([item for _, item in held])
            verdicts = list(_disagreement(newest, held))
            findings += verdicts
            if any(verdict.problem is Problem.CONTRADICTION for verdict in verdicts):
                rejected[wwn] = verdicts[0]
                continue
        objects[wwn] = newest
    return _Known(objects, copies, rejected), findings


def _newest(copies: Sequence[AnyObject]) -> AnyObject:
    """Choose the copy of the highest generation. Of several, a tombstone: who deletes does not care what he deletes.

    Two tombstones may wait for different things, if the first deletion seemed to fail: then for both.
    """
    newest = max(copies, key=lambda item: item.generation)
    tombstones = [
        item
        for item in copies
        if item.generation == newest.generation and isinstance(item, VolumeObject) and item.deleted
    ]
    if not tombstones:
        return newest
    reasons = [item.deletion for item in tombstones if item.deletion is not msgspec.UNSET]
    if not reasons:
        return tombstones[0]
    both = Deletion(
        alus=tuple(sorted({alu for reason in reasons for alu in reason.alus})),
        missing=tuple(sorted({part for reason in reasons for part in reason.missing})),
    )
    return msgspec.structs.replace(tombstones[0], deletion=both)


def _disagreement(newest: AnyObject, held: Sequence[tuple[Wwn, AnyObject]]) -> Iterator[Finding]:
    """Say how the copies of an object differ: if they contradict each other, that alone."""
    dead = isinstance(newest, VolumeObject) and newest.deleted
    if not dead and any(item != newest for _, item in held if item.generation == newest.generation):
        text = f"generation {newest.generation} of it differs from alu to alu"
        yield Finding(Problem.CONTRADICTION, described(newest), text, newest.wwn)
        return
    for alu, item in held:
        if item.generation < newest.generation:
            text = f"generation {item.generation} on alu {alu}, the newest is {newest.generation}"
            yield Finding(Problem.STALE, described(item), text, item.wwn)


def _tree(volume: VolumeObject, known: _Known) -> VolumeTree:
    """Follow a volume's tree; a loop ends where it would begin again, a chain where no tree of ours is as deep."""
    objects: list[AnyObject] = [volume]
    missing: list[Wwn] = []
    problems: list[Finding] = []
    seen = {volume.wwn}
    waiting: list[tuple[AnyObject, Wwn, int]] = [(volume, volume.root, 1)]
    while waiting:
        parent, wwn, depth = waiting.pop()
        child = known.objects.get(wwn)
        problem = _problem(volume, parent, wwn, child, known)
        if problem is None and wwn in seen:
            problem = Finding(Problem.CONTRADICTION, described(parent), f"{shown(wwn)} is in the tree twice", wwn)
        if problem is None and depth > MAX_DEPTH:
            text = f"{shown(wwn)} lies deeper than {MAX_DEPTH} levels"
            problem = Finding(Problem.CONTRADICTION, described(parent), text, wwn)
        seen.add(wwn)
        if problem is not None:
            problems.append(problem)
        if child is None:
            missing.append(wwn)
        elif problem is None:
            objects.append(child)
            waiting += [(child, below, depth + 1) for below in reversed(child.children)]
    return VolumeTree(tuple(objects), tuple(dict.fromkeys(missing)), tuple(problems))


def _problem(
    volume: VolumeObject, parent: AnyObject, wwn: Wwn, child: AnyObject | None, known: _Known
) -> Finding | None:
    """Say what keeps an object from being a part of a volume's tree."""
    if child is None:
        reason = known.rejected.get(wwn)
        text = f"object {shown(wwn)} is unusable: {reason}" if reason else f"object {shown(wwn)} is on no attached alu"
        return Finding(Problem.MISSING, described(parent), text, wwn)
    if isinstance(child, VolumeObject) or child.volume != volume.wwn:
        text = f"{described(child)} below it belongs to another volume"
        return Finding(Problem.CONTRADICTION, described(parent), text, wwn)
    return None


def _absent_copies(tree: VolumeTree, known: _Known) -> Iterator[Finding]:
    """Name second-tier objects that lack a copy on an ALU below them: a change that a crash cut short."""
    for item, alus in stored_on(tree):
        copies = known.copies[item.wwn]
        if len(copies) < len(alus) or not alus.issubset([alu for alu, _ in copies]):
            for alu in sorted(alus.difference(alu for alu, _ in copies)):
                yield Finding(Problem.MISSING, described(item), f"alu {alu} has no copy of it", item.wwn)


def _shared_names(trees: Iterable[VolumeTree]) -> list[Finding]:
    by_name: defaultdict[str, list[VolumeObject]] = defaultdict(list)
    for tree in trees:
        by_name[tree.volume.name].append(tree.volume)
    return [
        Finding(Problem.DUPLICATE, described(volume), f"{len(volumes)} volumes have its name", volume.wwn)
        for volumes in by_name.values()
        if len(volumes) > 1
        for volume in volumes
    ]
