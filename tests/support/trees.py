"""Hypothesis strategies: trees of transforms in any order, and requests on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from hypothesis import strategies as st

from backstores.block import Leaf, Node, Op
from backstores.transforms.concat import Concat
from backstores.transforms.fault import Delay, Log
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition, fitted
from backstores.transforms.passthrough import Passthrough
from backstores.transforms.stripe import Stripe
from backstores.wwn import Wwn

MAX_DEPTH = 4
WWN = 0x6 << 124


def make_leaf(number: int, blocks: int) -> Leaf:
    """Make a leaf on an ALU of its own."""
    return Leaf(Wwn(f"{WWN + number:032x}"), Wwn(f"5{number:015x}"), 8 << 20, blocks)


class _Trees:
    """Draws one tree. Every node gets a number of its own, which its name is made of."""

    def __init__(self, draw: st.DrawFn, *, static: bool) -> None:
        self.draw = draw
        self.numbers: Iterator[int] = itertools.count(1)
        self.kinds: list[Callable[[int], Node]] = [self.stripe, self.mirror, self.concat, self.partition]
        self.kinds.append(lambda depth: Passthrough(self.node(depth)))
        if not static:
            self.kinds.append(lambda depth: Delay(self.node(depth), 0.5))
            self.kinds.append(lambda depth: Log(self.node(depth), "log"))

    def node(self, depth: int) -> Node:
        if depth == 0 or self.draw(st.integers(0, 4)) == 0:
            return make_leaf(next(self.numbers), self.draw(st.integers(1, 16)))
        return self.draw(st.sampled_from(self.kinds))(depth - 1)

    def several(self, depth: int) -> list[Node]:
        return [self.node(depth) for _ in range(self.draw(st.integers(1, 3)))]

    def equal(self, depth: int) -> tuple[list[Node], int]:
        children = self.several(depth)
        return children, min(child.blocks for child in children)

    def stripe(self, depth: int) -> Node:
        children, blocks = self.equal(depth)
        chunk = self.draw(st.integers(1, min(4, blocks)))
        return Stripe(_cut(children, blocks - blocks % chunk), chunk)

    def mirror(self, depth: int) -> Node:
        children, blocks = self.equal(depth)
        numbers = range(len(children))
        readers = self.draw(st.sets(st.sampled_from(numbers), min_size=1))
        stale = self.draw(st.sets(st.sampled_from(numbers)))
        return Mirror(
            wwn=make_leaf(next(self.numbers), 1).wwn,
            children=_cut(children, blocks),
            readers=tuple(sorted(readers)),
            writers=tuple(sorted(readers | stale)),
            spread_blocks=self.draw(st.integers(1, 5)),
        )

    def concat(self, depth: int) -> Node:
        return Concat.over(self.several(depth))

    def partition(self, depth: int) -> Node:
        child = self.node(depth)
        start = self.draw(st.integers(0, child.blocks - 1))
        return Partition(child, start, self.draw(st.integers(1, child.blocks - start)))


def _cut(children: Sequence[Node], blocks: int) -> tuple[Node, ...]:
    return tuple(fitted(child, blocks, "test") for child in children)


@st.composite
def trees(draw: st.DrawFn, *, static: bool = False) -> Node:
    """Draw a tree of up to four levels of transforms, with delay and log among them unless ``static``."""
    return _Trees(draw, static=static).node(MAX_DEPTH)


@st.composite
def flat_trees(draw: st.DrawFn) -> Node:
    """Draw a tree of the form that volumes have: concat of stripe of mirror of partition, cut at its end."""
    builder = _Trees(draw, static=True)

    def column() -> Node:
        return builder.mirror(0) if draw(st.booleans()) else builder.node(0)

    def band() -> Node:
        columns = [column() for _ in range(draw(st.integers(1, 3)))]
        blocks = min(child.blocks for child in columns)
        chunk = draw(st.integers(1, min(4, blocks)))
        return Stripe(_cut(columns, blocks - blocks % chunk), chunk)

    root = Concat.over([band() for _ in range(draw(st.integers(1, 3)))])
    return fitted(root, draw(st.integers(1, root.blocks)), "test")


@st.composite
def ranges(draw: st.DrawFn, blocks: int) -> tuple[int, int]:
    """Draw (lba, blocks) on a device, long ranges preferred."""
    lba = draw(st.integers(0, blocks - 1))
    return lba, draw(st.integers(1, blocks - lba) | st.just(blocks - lba))


ACTIONS = (Op.WRITE, Op.DISCARD, Op.ZERO, Op.READ, Op.STATUS, Op.FLUSH)


@st.composite
def actions(draw: st.DrawFn, blocks: int, ops: Sequence[Op] = ACTIONS) -> tuple[Op, int, int]:
    """Draw an operation on a range of a device."""
    lba, length = draw(ranges(blocks))
    return draw(st.sampled_from(ops)), lba, length
