"""Definitions become trees; definitions that are damaged become one clear error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.block import Leaf, LeafOp, Op, leaves, plan
from backstores.errors import CorruptError, UsageError
from backstores.objects import (
    MIB,
    AnyObject,
    ConcatObject,
    Extent,
    Leg,
    LegState,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.transforms.concat import Concat
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition
from backstores.transforms.stripe import Stripe
from backstores.transforms.tree import MAX_DEPTH, build
from backstores.wwn import Wwn

LEAF_BLOCKS = MIB // 512
VOLUME, STRIPE, MIRROR_1, MIRROR_2, CONCAT = (Wwn(f"6{number:031x}") for number in range(1, 6))
PARTS = tuple(Wwn(f"6{number:031x}") for number in range(16, 21))


def volume(root: Wwn, blocks: int, block_bytes: int = 512) -> VolumeObject:
    return VolumeObject(
        wwn=VOLUME, name="db", root=root, layout="any", block_bytes=block_bytes, blocks=blocks, created=""
    )


def partition(number: int, start_bytes: int = 8 * MIB, length_bytes: int = MIB) -> PartitionObject:
    extent = Extent(start_bytes, length_bytes)
    return PartitionObject(wwn=PARTS[number], volume=VOLUME, alu=Wwn(f"5{number:015x}"), extent=extent)


def mirror(wwn: Wwn, *children: Wwn) -> MirrorObject:
    return MirrorObject(wwn=wwn, volume=VOLUME, legs=tuple(map(Leg, children)), region_blocks=1, blocks=LEAF_BLOCKS)


def concat(wwn: Wwn, blocks: int, *children: Wwn) -> ConcatObject:
    return ConcatObject(wwn=wwn, volume=VOLUME, children=children, blocks=blocks)


GOOD: tuple[AnyObject, ...] = (
    volume(CONCAT, 3 * LEAF_BLOCKS - 7),
    concat(CONCAT, 3 * LEAF_BLOCKS, STRIPE, PARTS[4]),
    StripeObject(wwn=STRIPE, volume=VOLUME, children=(MIRROR_1, MIRROR_2), chunk_blocks=8, blocks=2 * LEAF_BLOCKS),
    mirror(MIRROR_1, PARTS[0], PARTS[1]),
    mirror(MIRROR_2, PARTS[2], PARTS[3]),
    *(partition(number) for number in range(5)),
)


def test_a_tree_is_built_as_it_is_defined() -> None:
    """Prove R7: concatenation over stripe over mirror over partition."""
    root = build(GOOD)
    parts = [Leaf(PARTS[number], Wwn(f"5{number:015x}"), 8 * MIB, LEAF_BLOCKS) for number in range(5)]
    mirrors = (
        Mirror(MIRROR_1, (parts[0], parts[1]), (0, 1), (0, 1), spread_blocks=2048),
        Mirror(MIRROR_2, (parts[2], parts[3]), (0, 1), (0, 1), spread_blocks=2048),
    )
    assert root == Partition(Concat.over([Stripe(mirrors, 8), parts[4]]), 0, 3 * LEAF_BLOCKS - 7)


def test_the_order_behind_the_volume_object_does_not_matter() -> None:
    assert build((GOOD[0], *reversed(GOOD[1:]))) == build(GOOD)


def test_objects_that_are_not_in_the_tree_are_left_alone() -> None:
    stray = concat(Wwn("6" + "f" * 31), 5, Wwn("6" + "e" * 31))
    assert build((*GOOD, stray)) == build(GOOD)


def test_the_states_of_legs_and_a_pin_reach_the_mirror() -> None:
    legs = (Leg(PARTS[0], LegState.STALE), Leg(PARTS[1]))
    changed = [msgspec.structs.replace(item, legs=legs) if item.wwn == MIRROR_1 else item for item in GOOD]
    root = build(changed, pinned={MIRROR_2: PARTS[3]})
    [stage] = plan(root, Op.READ, 0, 16)
    assert [step.leaf.wwn for step in stage if isinstance(step, LeafOp)] == [PARTS[1], PARTS[3]]
    with pytest.raises(UsageError, match="is no leg in sync"):
        build(changed, pinned={MIRROR_1: PARTS[0]})


def chain(depth: int) -> list[AnyObject]:
    """Make a partition below so many concatenations of one member."""
    names = [Wwn(f"6{number:031x}") for number in range(100, 100 + depth)]
    above = [concat(name, LEAF_BLOCKS, child) for name, child in zip(names, [*names[1:], PARTS[0]], strict=True)]
    return [volume(names[0], LEAF_BLOCKS), *above, partition(0)]


def test_the_depth_is_limited() -> None:
    assert list(leaves(build(chain(MAX_DEPTH - 1))))
    for depth in (MAX_DEPTH, 5000):
        with pytest.raises(CorruptError, match="lies deeper than 16 levels"):
            build(chain(depth))


def replaced(wwn: Wwn, **changes: object) -> list[AnyObject]:
    return [msgspec.structs.replace(item, **changes) if item.wwn == wwn else item for item in GOOD]


def without(wwn: Wwn) -> list[AnyObject]:
    return [item for item in GOOD if item.wwn != wwn]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        pytest.param([], "does not begin with a volume object", id="nothing"),
        pytest.param(GOOD[1:], "does not begin with a volume object", id="no volume object"),
        pytest.param(without(PARTS[2]), "object 00000012 is missing", id="a partition is missing"),
        pytest.param(without(STRIPE), "object 00000002 is missing", id="a stripe is missing"),
        pytest.param([*GOOD, partition(0)], "defined twice", id="one name twice"),
        pytest.param(replaced(MIRROR_2, legs=(Leg(PARTS[0]),)), "more than one parent", id="a shared child"),
        pytest.param(replaced(MIRROR_1, legs=(Leg(CONCAT),)), "more than one parent", id="a cycle"),
        pytest.param(replaced(VOLUME, root=VOLUME), "is no part of volume", id="a volume in itself"),
        pytest.param(replaced(PARTS[0], volume=CONCAT), "is no part of volume", id="another volume's partition"),
        pytest.param(replaced(STRIPE, children=()), "no members or no blocks", id="no members"),
        pytest.param(replaced(MIRROR_1, legs=()), "no members or no blocks", id="no legs"),
        pytest.param(replaced(CONCAT, blocks=0), "no members or no blocks", id="no blocks"),
        pytest.param(replaced(CONCAT, blocks=5), "has 5 blocks, its members 6144", id="a wrong sum"),
        pytest.param(replaced(MIRROR_1, blocks=4096), "needs 4096 blocks", id="a mirror above its legs"),
        pytest.param(replaced(STRIPE, chunk_blocks=0), "not whole rows", id="no chunk"),
        pytest.param(replaced(VOLUME, blocks=1 << 40), "needs 1099511627776 blocks", id="a volume above its root"),
        pytest.param(replaced(VOLUME, blocks=0), "has 0 blocks", id="an empty volume"),
        pytest.param(replaced(VOLUME, blocks=1 << 54), r"2\^63 - 1 bytes", id="beyond 8 EiB"),
        pytest.param(replaced(VOLUME, block_bytes=520), "blocks of 520 bytes, not 512 or 4096", id="odd blocks"),
        pytest.param(replaced(VOLUME, block_bytes=0), "blocks of 0 bytes", id="blocks of nothing"),
        pytest.param(replaced(PARTS[0], extent=Extent(1, MIB)), "not whole blocks", id="an odd extent"),
        pytest.param(
            replaced(PARTS[1], alu=Wwn(f"5{0:015x}"), extent=Extent(8 * MIB - 512, MIB)),
            "partitions 00000011 and 00000010 overlap",
            id="partitions overlap",
        ),
    ],
)
def test_a_damaged_definition_is_one_clear_error(objects: Sequence[AnyObject], message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        build(objects)


NAMES = st.sampled_from([VOLUME, STRIPE, MIRROR_1, MIRROR_2, CONCAT, *PARTS])
NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.sampled_from([0, 1, 8, LEAF_BLOCKS, 2 * LEAF_BLOCKS])
CHILDREN = st.lists(NAMES, max_size=4).map(tuple)
ANY_OBJECT: dict[str, Callable[[], st.SearchStrategy[AnyObject]]] = {
    "volume": lambda: st.builds(volume, NAMES, NUMBERS, st.sampled_from([0, 512, 4096])),
    "partition": lambda: st.builds(partition, st.integers(0, 4), NUMBERS, NUMBERS),
    "concat": lambda: st.builds(concat, NAMES, NUMBERS).flatmap(
        lambda item: CHILDREN.map(lambda names: msgspec.structs.replace(item, children=names))
    ),
    "stripe": lambda: st.builds(
        StripeObject, wwn=NAMES, volume=st.just(VOLUME), children=CHILDREN, chunk_blocks=NUMBERS, blocks=NUMBERS
    ),
    "mirror": lambda: st.builds(
        MirrorObject,
        wwn=NAMES,
        volume=st.just(VOLUME),
        legs=st.lists(st.builds(Leg, NAMES, st.sampled_from(LegState)), max_size=3).map(tuple),
        region_blocks=NUMBERS,
        blocks=NUMBERS,
    ),
}
OBJECTS = st.one_of([make() for make in ANY_OBJECT.values()])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_objects_make_a_tree_or_a_corrupt_error(data: st.DataObject) -> None:
    """Some objects of a good definition are replaced by others of any kind and content."""
    others = {item.wwn: item for item in data.draw(st.lists(OBJECTS, min_size=1, max_size=4))}
    objects = [others.get(item.wwn, item) for item in GOOD]
    try:
        root = build(objects)
    except CorruptError:
        return
    assert plan(root, Op.READ, root.blocks - 1, 1)
