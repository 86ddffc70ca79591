"""Error, delay and log, as tests put them into a tree."""

from __future__ import annotations

import errno

import pytest

from backstores.block import Fail, LeafOp, Note, Op, Pause, Segment, plan
from backstores.transforms.fault import Delay, Error, Log
from backstores.transforms.stripe import Stripe
from tests.support.trees import make_leaf

LEAF = make_leaf(1, 100)
SIBLING = make_leaf(2, 100)


@pytest.mark.parametrize(
    ("lba", "blocks", "fails"),
    [(0, 10, False), (9, 2, True), (10, 1, True), (19, 1, True), (20, 5, False), (0, 100, True)],
    ids=["before", "into", "first", "last", "behind", "over"],
)
def test_an_error_hits_what_touches_its_blocks(lba: int, blocks: int, fails: bool) -> None:
    tree = Error(LEAF, 10, 20)
    assert plan(tree, Op.READ, lba, blocks) == ([[Fail(errno.EIO)]] if fails else plan(LEAF, Op.READ, lba, blocks))


@pytest.mark.parametrize("op", Op)
def test_an_error_hits_the_chosen_operations_only(op: Op) -> None:
    tree = Error(LEAF, 10, 20, frozenset({Op.WRITE, Op.FLUSH}), errno.ENOSPC)
    failing = op in (Op.WRITE, Op.FLUSH)
    assert plan(tree, op, 10, 1) == ([[Fail(errno.ENOSPC)]] if failing else plan(LEAF, op, 10, 1))


def test_a_delay_comes_before_the_operation_and_leaves_siblings_alone() -> None:
    tree = Stripe((Delay(LEAF, 0.5), SIBLING), 4)
    at_once, later = plan(tree, Op.READ, 0, 8)
    assert at_once == [Pause(0.5), LeafOp(SIBLING, Op.READ, 0, 4, [Segment(4, 4)])]
    assert later == [LeafOp(LEAF, Op.READ, 0, 4, [Segment(0, 4)])]


@pytest.mark.parametrize("op", Op)
def test_a_delay_holds_up_the_chosen_operations_only(op: Op) -> None:
    tree = Delay(LEAF, 2.0, frozenset({Op.FLUSH}))
    paused = [[Pause(2.0)]] if op is Op.FLUSH else []
    assert plan(tree, op, 0, 1) == paused + plan(LEAF, op, 0, 1)


def test_a_log_tells_of_every_operation() -> None:
    tree = Log(LEAF, "leg 1")
    assert plan(tree, Op.WRITE, 7, 2) == [[Note("leg 1: write lba 7 + 2 blocks")], *plan(LEAF, Op.WRITE, 7, 2)]
