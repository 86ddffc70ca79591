"""Legs that are written side by side hold the same, and a leg that fails fails the write (D1, D2)."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.opening import open_alu
from backstores.engine.beside import NoHand, second_hand
from backstores.transforms.flat import flatten
from backstores.transforms.mirror import Mirror
from backstores.transforms.stripe import Stripe
from backstores.volume.hotpath import BESIDE_BYTES, Now, RegionStates, bind
from tests.support.engines import view
from tests.support.trees import make_leaf
from tests.support.volumes import object_wwn

BLOCK = 512
LEAF_BLOCKS = 2048
PAGE_BLOCKS = 8
LARGE_BLOCKS = BESIDE_BYTES // BLOCK
CHUNK_BLOCKS = LARGE_BLOCKS
LARGE_PAGES = LARGE_BLOCKS // PAGE_BLOCKS
LEGS = 3
MIRRORS = tuple(
    Mirror(
        object_wwn(80 + number),
        tuple(make_leaf(LEGS * number + leg + 1, LEAF_BLOCKS) for leg in range(LEGS)),
        tuple(range(LEGS)),
        tuple(range(LEGS)),
        8,
    )
    for number in range(2)
)
TREE = Stripe(MIRRORS, CHUNK_BLOCKS)


class WatchedHand(NoHand):
    """The real one, seen at work; it can be told what to answer."""

    def __init__(self, answer: int | None = None) -> None:
        self.answer = answer
        self.begun: list[int] = []  # bytes
        self.under_way = False

    def begin(self, fd: int, parts: Sequence[memoryview], offset: int, flags: int) -> bool:
        assert not self.under_way
        self.under_way = real.begin(fd, parts, offset, flags)
        self.begun.append(sum(map(len, parts)))
        return self.under_way

    def end(self) -> int:
        self.under_way = False
        done = real.end()
        return done if self.answer is None else self.answer


real = second_hand()
pytestmark = pytest.mark.skipif(isinstance(real, NoHand), reason="no second hand here")


@pytest.fixture
def alus(tmp_path: Path) -> Iterator[dict[str, DescriptorDriver]]:
    leaves = [leaf for mirror in MIRRORS for leaf in mirror.children]
    size_bytes = leaves[0].start_bytes + LEAF_BLOCKS * BLOCK
    made = {}
    for number, leaf in enumerate(leaves):
        driver = open_alu(str(tmp_path / f"alu{number}"), size_bytes=size_bytes, direct=False)
        assert isinstance(driver, DescriptorDriver)
        driver.write_now(0, view(bytes(4096)))  # shows what the file system takes
        made[leaf.alu] = driver
    yield made
    for driver in made.values():
        driver.close()


def bound(alus: dict[str, DescriptorDriver], hand: NoHand, doubts: set[tuple[int, int]]) -> tuple[Now, Now]:
    flat = flatten(TREE)
    assert flat is not None
    states = {mirror.wwn: RegionStates(bytearray(b"\1" * 8), 9) for mirror in MIRRORS}
    return bind(flat, alus, states, [], doubts, BLOCK, hand)


def content(driver: DescriptorDriver) -> bytes:
    return Path(driver.path).read_bytes()[driver.size_bytes - LEAF_BLOCKS * BLOCK :]


def test_all_legs_hold_what_was_written(alus: dict[str, DescriptorDriver]) -> None:
    """R7, D1: large and small writes, inside of a chunk and over several, against a byte array."""
    hand, doubts = WatchedHand(), set[tuple[int, int]]()
    _, write = bound(alus, hand, doubts)
    model = bytearray(TREE.blocks * BLOCK)
    chance = random.Random(5)
    for _ in range(300):
        pages = chance.choice([1, LARGE_PAGES - 1, LARGE_PAGES, chance.randrange(1, 4 * CHUNK_BLOCKS // PAGE_BLOCKS)])
        blocks = pages * PAGE_BLOCKS  # whole pages never have to wait for the page cache
        lba = chance.randrange(TREE.blocks // PAGE_BLOCKS - pages + 1) * PAGE_BLOCKS
        data = chance.randbytes(blocks * BLOCK)
        assert write(lba, blocks, memoryview(data))
        model[lba * BLOCK : lba * BLOCK + len(data)] = data
    assert hand.begun
    assert min(hand.begun) >= BESIDE_BYTES
    assert not hand.under_way
    assert not doubts
    for number, mirror in enumerate(MIRRORS):
        chunks = range(number * CHUNK_BLOCKS, TREE.blocks, len(MIRRORS) * CHUNK_BLOCKS)
        expected = b"".join(model[at * BLOCK : (at + CHUNK_BLOCKS) * BLOCK] for at in chunks)
        assert [content(alus[leaf.alu]) == expected for leaf in mirror.children] == [True] * LEGS


@pytest.mark.parametrize(
    "answer", [-errno.EIO, -errno.ENOSPC, BESIDE_BYTES - 512, 0], ids=["EIO", "full", "short", "0"]
)
def test_a_leg_that_fails_beside_fails_the_write(alus: dict[str, DescriptorDriver], answer: int) -> None:
    """D2: the range stays in doubt until the general path has carried the write through."""
    doubts: set[tuple[int, int]] = set()
    _, write = bound(alus, WatchedHand(answer), doubts)
    assert not write(0, LARGE_BLOCKS, view(bytes(BESIDE_BYTES)))
    assert doubts == {(0, LARGE_BLOCKS)}


@pytest.mark.parametrize("leg", range(LEGS))
def test_a_leg_that_refuses_fails_the_write_and_nothing_stays_under_way(
    alus: dict[str, DescriptorDriver], leg: int
) -> None:
    """The buffer is the receive buffer: nobody reads it any more once the write has been answered."""
    alus[MIRRORS[0].children[leg].alu].close()
    hand, doubts = WatchedHand(), set[tuple[int, int]]()
    _, write = bound(alus, hand, doubts)
    data = bytearray(BESIDE_BYTES)
    assert not write(0, LARGE_BLOCKS, memoryview(data))
    assert not hand.under_way
    assert doubts == {(0, LARGE_BLOCKS)}
    data.clear()
    other = CHUNK_BLOCKS  # of the other mirror
    assert write(other, LARGE_BLOCKS, view(bytes(BESIDE_BYTES)))


def test_without_a_hand_legs_are_written_one_after_the_other(alus: dict[str, DescriptorDriver]) -> None:
    _, write = bound(alus, NoHand(), set())
    data = random.Random(2).randbytes(BESIDE_BYTES)
    assert write(0, LARGE_BLOCKS, view(data))
    assert all(content(alus[leaf.alu])[:BESIDE_BYTES] == data for leaf in MIRRORS[0].children)
