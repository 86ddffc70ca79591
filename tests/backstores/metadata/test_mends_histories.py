"""Random histories of a few ALUs: volumes come, grow and go, ALUs are away, power fails between any two commits.

Written against a model that is too dumb to be wrong: it knows for each volume which trees may be found, and that a
deleted one may never be found again. The order of commits among the ALUs is that of ``appliance.objectstore``; which
of those made side by side are there after a crash, is up to chance. ``tests.appliance.test_histories`` does the like
with the real store.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from backstores.metadata.free import allocate, free_extents
from backstores.metadata.mends import mended, mends
from backstores.metadata.merge import AluRecord, SystemImage, stored_on, system_image
from backstores.metadata.records import check
from backstores.objects import (
    DELETED_LAYOUT,
    MIB,
    AnyObject,
    ConcatObject,
    Deletion,
    Extent,
    Leg,
    MirrorObject,
    PartitionObject,
    VolumeObject,
)
from backstores.wwn import Wwn, new_object_wwn
from tests.support.fuzzing import TIMES, first_seed, named
from tests.support.params import cases

HISTORIES = 4000 * TIMES
PARTS = 4  # of all histories, each a test of its own
STEPS = 14
MOST_ROUNDS = 4
ALUS = tuple(Wwn(f"502544700000000{number}") for number in range(1, 6))
MAJORITY = 3
DATA = Extent(8 * MIB, 60 * MIB)

Tree = tuple[AnyObject, ...]
Batch = dict[Wwn, list[AnyObject]]


class PowerCut(Exception):
    """Everything ends here."""


@dataclass
class Expected:
    """What is known of a volume: the trees that may be found, and whether it may be gone."""

    trees: set[frozenset[AnyObject]]
    may_be_gone: bool = False


@dataclass
class World:
    """The ALUs, those that are there, and what must be found on them."""

    dice: random.Random
    disks: dict[Wwn, tuple[AnyObject, ...]]
    there: set[Wwn]
    volumes: dict[Wwn, Expected] = field(default_factory=dict)
    deleted: set[Wwn] = field(default_factory=set)
    loose: set[Wwn] = field(default_factory=set)  # deleted while nobody knew what had come of a change
    unsure: set[Wwn] = field(default_factory=set)  # nobody knew, and then an ALU was struck off
    leaves_tombstones: bool = (
        False  # an ALU was struck off, or a deletion was cut short and repeated: it may wait for ever
    )
    running: dict[Wwn, Tree] = field(default_factory=dict)
    names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def name(self) -> Wwn:
        """Make a name."""
        number = next(self.names)
        return new_object_wwn(lambda bits: number)

    def commit(self, batch: Mapping[Wwn, Sequence[AnyObject]]) -> None:
        """Commit on several ALUs at once; power may fail, and then some of them have, and some have not."""
        cut = self.dice.random() < 0.12
        for alu, objects in sorted(batch.items(), key=lambda pair: pair[0]):
            assert not check(objects, alu, DATA), "it would not be stored"
            if not cut or self.dice.random() < 0.5:
                self.disks[alu] = tuple(objects)
        if cut:
            raise PowerCut

    def merged(self) -> tuple[list[AluRecord], SystemImage]:
        """Merge what those ALUs hold that are there."""
        records = [AluRecord(alu, self.disks[alu]) for alu in sorted(self.there)]
        self.dice.shuffle(records)
        return records, system_image(records)


def place(world: World, volume: Wwn, count: int) -> list[PartitionObject]:
    """Make partitions on different ALUs that are there."""
    alus = world.dice.sample(sorted(world.there), count)
    return [
        PartitionObject(
            wwn=world.name(),
            volume=volume,
            alu=alu,
            extent=allocate(free_extents(DATA, world.disks[alu]), MIB)[0],
        )
        for alu in alus
    ]


def member(world: World, volume: Wwn) -> Tree:
    """Make a partition, or a mirror of two."""
    legs = place(world, volume, world.dice.randint(1, 2))
    if len(legs) == 1:
        return tuple(legs)
    pair = tuple(Leg(leg.wwn) for leg in legs)
    return (MirrorObject(wwn=world.name(), volume=volume, legs=pair, region_blocks=8192, blocks=2048), *legs)


def head_of(tree: Tree) -> VolumeObject:
    head = tree[0]
    assert isinstance(head, VolumeObject)
    return head


def with_tree(world: World, tree: Tree, old: Tree = ()) -> tuple[Batch, Batch]:
    """Give what the ALUs hold with what is new below the volume, and with all of the tree in place of the old one."""
    volume, known = tree[0].wwn, {item.wwn for item in old}
    image = system_image([AluRecord(item.alu, tree) for item in tree if isinstance(item, PartitionObject)])
    placed: Batch = {}
    for item, alus in stored_on(image.volumes[0]):
        for alu in alus:
            placed.setdefault(alu, []).append(item)
    for item in tree:
        if isinstance(item, PartitionObject):
            placed[item.alu].append(item)
    new = {
        alu: [*world.disks[alu], *(item for item in items if item.wwn not in known and item is not tree[0])]
        for alu, items in placed.items()
    }
    whole = {
        alu: [*(item for item in world.disks[alu] if item.volume != volume), *items] for alu, items in placed.items()
    }
    return new, whole


def create(world: World) -> None:
    wwn = world.name()
    below = member(world, wwn)
    tree: Tree = (
        VolumeObject(
            wwn=wwn, name="v", root=below[0].wwn, layout="any", block_bytes=512, blocks=2048, created="2026-01-01"
        ),
        *below,
    )
    world.volumes[wwn] = Expected({frozenset(tree)}, may_be_gone=True)
    new, whole = with_tree(world, tree)
    world.commit(new)
    world.commit(whole)
    world.volumes[wwn] = Expected({frozenset(tree)})
    world.running[wwn] = tree


def grow(world: World) -> None:
    tree = world.running[world.dice.choice(sorted(world.running))]
    head, root, below = head_of(tree), tree[1], member(world, tree[0].wwn)
    if isinstance(root, ConcatObject):
        children = (*root.children, below[0].wwn)
        longer = msgspec.structs.replace(root, generation=root.generation + 1, children=children)
        rest = tree[2:]
    else:
        longer = ConcatObject(wwn=world.name(), volume=head.wwn, children=(root.wwn, below[0].wwn), blocks=4096)
        rest = tree[1:]
    grown: Tree = (
        msgspec.structs.replace(head, generation=head.generation + 1, root=longer.wwn),
        longer,
        *rest,
        *below,
    )
    world.volumes[head.wwn].trees.add(frozenset(grown))
    new, whole = with_tree(world, grown, tree)
    had = {item.alu for item in tree if isinstance(item, PartitionObject)}
    world.commit(new)
    world.commit({alu: items for alu, items in whole.items() if alu in had})
    world.commit({alu: items for alu, items in whole.items() if alu not in had})
    world.volumes[head.wwn] = Expected({frozenset(grown)})
    world.running[head.wwn] = grown


def delete(world: World) -> None:
    """Delete a volume, whether or not all of it is there."""
    _, image = world.merged()
    if not image.volumes:
        return
    tree = world.dice.choice(image.volumes)
    head = tree.volume
    parts = {alu: world.disks[alu] for alu in world.there if any(i.volume == head.wwn for i in world.disks[alu])}
    waits = Deletion(alus=tuple(sorted(parts)), missing=tree.missing)
    tombstone = msgspec.structs.replace(head, generation=head.generation + 1, layout=DELETED_LAYOUT, deletion=waits)
    world.running.pop(head.wwn, None)
    if world.volumes[head.wwn].may_be_gone:
        world.leaves_tombstones = True
    world.volumes[head.wwn].may_be_gone = True
    rest = {alu: [item for item in items if item.volume != head.wwn] for alu, items in parts.items()}
    world.commit({alu: [*items, tombstone] for alu, items in rest.items()})
    if waits.missing:
        world.commit({alu: [*world.disks[alu], tombstone] for alu in world.there - parts.keys()})
    if len(world.volumes.pop(head.wwn).trees) > 1:
        world.loose.add(head.wwn)
    world.deleted.add(head.wwn)
    if not waits.missing:
        world.commit(rest)


def strike_off(world: World) -> set[Wwn]:
    """Let a start expect only those that are there. Changes that were cut short may lose what made them true."""
    world.leaves_tombstones = True
    world.unsure |= world.loose
    world.unsure |= {wwn for wwn, expected in world.volumes.items() if len(expected.trees) > 1 or expected.may_be_gone}
    return set(world.there)


def start(world: World) -> None:
    """Start: mend, and compare what there is with what must be."""
    world.running.clear()
    expected = set(world.disks)
    if world.dice.random() < 0.15:
        expected = strike_off(world)
    for number in itertools.count():
        records, image = world.merged()
        todo = mends(records, image, complete=expected <= world.there)
        if not todo:
            break
        assert number < MOST_ROUNDS, "mending does not come to rest"
        by_alu = {mend.alu for mend in todo}
        world.commit({alu: mended(world.disks[alu], [m for m in todo if m.alu == alu]) for alu in by_alu})
    judge(world, image)


def judge(world: World, image: SystemImage) -> None:
    """Hold what was found against what must be."""
    found = {tree.volume.wwn: tree for tree in image.volumes}
    assert not found.keys() & world.deleted - world.unsure, "a deleted volume is back"
    assert found.keys() <= world.volumes.keys() | world.deleted
    everything = world.there == world.disks.keys()
    for wwn, expected in list(world.volumes.items()):
        tree = found.get(wwn)
        if wwn in world.unsure:
            continue
        if tree is None:
            assert expected.may_be_gone or not everything
            if everything:
                del world.volumes[wwn]
                world.deleted.add(wwn)
        elif tree.complete:
            assert frozenset(tree.objects) in expected.trees, "a tree that nobody made"
            world.running[wwn] = tree.objects
            if everything:
                world.volumes[wwn] = Expected({frozenset(tree.objects)})
        else:
            assert tree.missing, "it says what it waits for"
            assert not everything, "all of it is there"
    if everything and not world.unsure:
        stored = {item for objects in world.disks.values() for item in objects}
        if world.leaves_tombstones:
            stored -= set(image.tombstones)
        assert stored == {item for tree in image.volumes for item in tree.objects}, "something is left over"


def attach_and_detach(world: World) -> None:
    """Let any minority be away: without a majority of the GS set nothing is decided (M4)."""
    world.there = set(world.dice.sample(ALUS, world.dice.randint(MAJORITY, len(ALUS))))
    start(world)


def come_back(world: World) -> None:
    world.there = set(world.disks)
    start(world)


def come_back_for_good(world: World) -> None:
    while True:
        try:
            come_back(world)
        except PowerCut:
            continue
        return


def live(world: World) -> None:
    """Let things happen, and all ALUs be there in the end."""
    steps = (create, create, grow, grow, delete, attach_and_detach, come_back)
    for step in (world.dice.choice(steps) for _ in range(STEPS)):
        possible = {create: len(world.there) > 1, grow: len(world.there) > 1 and bool(world.running)}
        try:
            if possible.get(step, True):
                step(world)
        except PowerCut:
            restart(world)
    come_back_for_good(world)


def restart(world: World) -> None:
    """Start again, however often power fails meanwhile; not all ALUs need come back."""
    while True:
        try:
            world.dice.choice((start, attach_and_detach, come_back))(world)
        except PowerCut:
            continue
        return


@pytest.mark.parametrize("part", cases({str(part): part for part in range(PARTS)}, slow="123"))
def test_no_history_loses_a_volume_or_brings_one_back(part: int) -> None:
    """R3, R30, M6: thousands of them. Of what came of an unfinished change, the old and the new are allowed."""
    first = first_seed(40 + part)
    found = 0
    for seed in range(first, first + HISTORIES // PARTS):
        with named(seed):
            world = World(random.Random(seed), dict.fromkeys(ALUS, ()), set(ALUS))
            live(world)
            found += len(world.volumes)
    assert found > HISTORIES // PARTS, "too few volumes are left to prove anything"
