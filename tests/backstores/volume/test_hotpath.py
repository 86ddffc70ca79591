"""The hot path: it does what the plan says, or says no and leaves it to the plan."""

from __future__ import annotations

import random

import pytest

from backstores.alu.memory import MemoryDriver
from backstores.block import Leaf
from backstores.engine.beside import NoHand
from backstores.transforms.concat import Concat
from backstores.transforms.flat import flatten
from backstores.transforms.mirror import Mirror
from backstores.transforms.stripe import Stripe
from backstores.volume.hotpath import RegionStates, bind, never
from tests.support.trees import make_leaf
from tests.support.volumes import object_wwn

BLOCK = 512
LEAF_BLOCKS = 64
MIRROR = object_wwn(77)


def stripe() -> Stripe:
    return Stripe((make_leaf(1, LEAF_BLOCKS), make_leaf(2, LEAF_BLOCKS), make_leaf(3, LEAF_BLOCKS)), 8)


def mirror() -> Mirror:
    return Mirror(MIRROR, (make_leaf(4, LEAF_BLOCKS), make_leaf(5, LEAF_BLOCKS)), (0, 1), (0, 1), 4)


def drivers(*leaves: Leaf) -> dict[str, MemoryDriver]:
    return {leaf.alu: MemoryDriver((8 << 20) + LEAF_BLOCKS * BLOCK) for leaf in leaves}


TREE = Concat.over((stripe(), mirror()))
LEAVES = [*TREE.children[0].children, *TREE.children[1].children]


def bound(states: bytearray, locked: list[object], alus: dict[str, MemoryDriver]):  # type: ignore[no-untyped-def]
    flat = flatten(TREE)
    assert flat is not None
    return bind(flat, alus, {MIRROR: RegionStates(states, 3)}, locked, set(), BLOCK, NoHand())


def crosses_legs(lba: int, blocks: int) -> bool:
    """Whether a range of the mirror belongs to both of its legs."""
    spread = mirror().spread_blocks
    return lba >= 0 and lba // spread != (lba + blocks - 1) // spread


def test_reads_and_writes_agree_with_a_byte_array() -> None:
    """R7: over all bands, columns and chunks, with requests that cross several of each."""
    alus = drivers(*LEAVES)
    read, write = bound(bytearray(b"\1" * 8), [], alus)
    model = bytearray(TREE.blocks * BLOCK)
    chance = random.Random(3)
    band_end = TREE.children[0].blocks
    for _ in range(2000):
        blocks = chance.randrange(1, 40)
        lba = chance.randrange(TREE.blocks - blocks + 1)
        low, high = lba * BLOCK, (lba + blocks) * BLOCK
        crosses_bands = lba < band_end < lba + blocks
        if chance.randrange(2):
            data = chance.randbytes(high - low)
            assert write(lba, blocks, memoryview(data)) is not crosses_bands
            if not crosses_bands:
                model[low:high] = data
        else:
            found = bytearray(high - low)
            served = read(lba, blocks, memoryview(found))
            assert served is not (crosses_bands or crosses_legs(lba - band_end, blocks))
            assert not served or found == model[low:high]
    one, other = (alus[leaf.alu].content[8 << 20 :] for leaf in mirror().children)
    assert one == other


CHUNK = 4
STEP = 3 * CHUNK  # of a mirror's reads: what a column gets of a request may lie on both of its legs
LEGS = tuple(make_leaf(number, LEAF_BLOCKS) for number in range(6, 10))
MIRRORS = tuple(Mirror(object_wwn(78 + at), LEGS[2 * at : 2 * at + 2], (0, 1), (0, 1), STEP) for at in range(2))
STRIPE = Stripe(MIRRORS, CHUNK)


def bound_stripe(alus: dict[str, MemoryDriver], states: bytes, doubts: set[tuple[int, int]]):  # type: ignore[no-untyped-def]
    flat = flatten(STRIPE)
    assert flat is not None
    regions = {mirror.wwn: RegionStates(bytearray(states), 3) for mirror in MIRRORS}
    return regions, *bind(flat, alus, regions, [], doubts, BLOCK, NoHand())


def test_requests_over_many_chunks_agree_with_a_byte_array() -> None:
    """R7: through a stripe over mirrors, from anywhere to anywhere."""
    alus = drivers(*LEGS)
    _, read, write = bound_stripe(alus, b"\1" * 8, set())
    model = bytearray(STRIPE.blocks * BLOCK)
    chance = random.Random(7)
    for _ in range(1000):
        blocks = chance.randrange(1, 12 * CHUNK)
        lba = chance.randrange(STRIPE.blocks - blocks + 1)
        low, high = lba * BLOCK, (lba + blocks) * BLOCK
        data = chance.randbytes(high - low)
        assert write(lba, blocks, memoryview(data))
        model[low:high] = data
        lba = chance.randrange(STRIPE.blocks - blocks + 1)
        found = bytearray(blocks * BLOCK)
        assert read(lba, blocks, memoryview(found))
        assert found == model[lba * BLOCK : (lba + blocks) * BLOCK]
    for mirror in MIRRORS:
        one, other = (alus[leaf.alu].content[8 << 20 :] for leaf in mirror.children)
        assert one == other


def test_what_a_column_gets_goes_by_one_transfer_a_leg() -> None:
    """A system call for each chunk would cost as much as copying it."""
    alus = drivers(*LEGS)
    _, read, write = bound_stripe(alus, b"\1" * 8, set())
    data = bytearray(5 * CHUNK * BLOCK)
    assert write(2, 5 * CHUNK, memoryview(data))
    places = [[(seen.offset - (8 << 20), seen.length) for seen in alus[leaf.alu].log] for leaf in LEGS]
    first, second = [(2 * BLOCK, 10 * BLOCK)], [(0, 10 * BLOCK)]
    assert places == [first, first, second, second]
    assert read(0, 4 * CHUNK, memoryview(data)[: 4 * CHUNK * BLOCK])
    assert [len(alus[leaf.alu].log) for leaf in LEGS] == [2, 1, 2, 1]


def test_one_clean_region_keeps_all_of_a_write_back() -> None:
    """D2: nothing has begun, so nothing is in doubt."""
    alus, doubts = drivers(*LEGS), set[tuple[int, int]]()
    regions, _, write = bound_stripe(alus, b"\1" * 8, doubts)
    regions[MIRRORS[1].wwn].states[0] = 0
    assert not write(0, 2 * CHUNK, memoryview(bytes(2 * CHUNK * BLOCK)))
    assert not any(alu.log for alu in alus.values())
    assert not doubts


@pytest.mark.parametrize("leg", range(len(LEGS)))
def test_a_leg_that_refuses_puts_all_of_a_write_in_doubt(leg: int) -> None:
    """D2: until the general path has carried it through, the legs may differ."""
    alus, doubts = drivers(*LEGS), set[tuple[int, int]]()
    _, _, write = bound_stripe(alus, b"\1" * 8, doubts)
    alus[LEGS[leg].alu].immediate = False
    assert not write(3, 2 * CHUNK, memoryview(bytes(2 * CHUNK * BLOCK)))
    assert doubts == {(3, 2 * CHUNK)}


def test_a_write_to_a_clean_region_is_refused_and_leaves_the_regions_alone() -> None:
    """D2: it needs a durable bit first."""
    states = bytearray(8)
    states[0] = 1
    _, write = bound(states, [], drivers(*LEAVES))
    first = TREE.children[0].blocks
    assert write(first, 8, memoryview(bytes(8 * BLOCK)))
    assert states[0] == 2, "it was written to lately"
    assert not write(first + 8, 8, memoryview(bytes(8 * BLOCK)))
    assert not write(first + 4, 8, memoryview(bytes(8 * BLOCK))), "half of it is clean"
    assert states[1] == 0


def test_no_write_passes_while_anybody_holds_a_range() -> None:
    locked: list[object] = []
    read, write = bound(bytearray(b"\1" * 8), locked, drivers(*LEAVES))
    data = memoryview(bytearray(BLOCK))
    locked.append("a range")
    assert not write(0, 1, data)
    assert read(0, 1, data), "reads do"
    locked.clear()
    assert write(0, 1, data)


@pytest.mark.parametrize("missing", range(len(LEAVES)))
def test_without_one_of_the_alus_everything_goes_the_general_way(missing: int) -> None:
    alus = drivers(*(leaf for number, leaf in enumerate(LEAVES) if number != missing))
    assert bound(bytearray(8), [], alus) == (never, never)
