"""The flat form of a tree does to every leaf what the plan does, and exists where it should."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backstores.block import LeafOp, MarkDirty, Node, Op, Segment, plan
from backstores.transforms.concat import Concat
from backstores.transforms.fault import Delay, Error, Log
from backstores.transforms.flat import Band, Column, FlatMap, flatten
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition
from backstores.transforms.passthrough import Passthrough
from backstores.transforms.stripe import Stripe
from tests.support.trees import flat_trees, make_leaf, ranges, trees

A, B, C, D, E = (make_leaf(number, 32) for number in range(1, 6))
M1, M2 = make_leaf(8, 1).wwn, make_leaf(9, 1).wwn
MIRROR_1 = Mirror(M1, (A, B), (0, 1), (0, 1), spread_blocks=8)
MIRROR_2 = Mirror(M2, (C, D), (1,), (0, 1), spread_blocks=8)
COLUMN_1 = Column((A, B), (A, B), mirror=M1, spread_blocks=8)
COLUMN_2 = Column((D,), (C, D), mirror=M2, spread_blocks=8)


def alone(leaf: object) -> Column:
    return Column((leaf,), (leaf,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("root", "bands"),
    [
        pytest.param(A, [Band(0, 32, 32, (alone(A),))], id="partition"),
        pytest.param(MIRROR_1, [Band(0, 32, 32, (COLUMN_1,))], id="mirror"),
        pytest.param(Stripe((A, B), 4), [Band(0, 64, 4, (alone(A), alone(B)))], id="stripe"),
        pytest.param(Stripe((MIRROR_1, MIRROR_2), 4), [Band(0, 64, 4, (COLUMN_1, COLUMN_2))], id="stripe over mirror"),
        pytest.param(
            Concat.over([Stripe((A, B), 4), Concat.over([C, Concat.over([D])])]),
            [Band(0, 64, 4, (alone(A), alone(B))), Band(64, 96, 32, (alone(C),)), Band(96, 128, 32, (alone(D),))],
            id="nested concat",
        ),
        pytest.param(
            Passthrough(Stripe((Passthrough(A), Concat.over([B])), 4)),
            [Band(0, 64, 4, (alone(A), alone(B)))],
            id="wrappers",
        ),
        pytest.param(Stripe((Stripe((A, B), 4),), 8), [Band(0, 64, 4, (alone(A), alone(B)))], id="stripe of one"),
        pytest.param(
            Partition(Stripe((A, B), 4), 0, 50), [Band(0, 50, 4, (alone(A), alone(B)))], id="a volume below its root"
        ),
        pytest.param(
            Partition(MIRROR_1, 5, 20),
            [Band(0, 20, 32, (Column((A, B), (A, B), leaf_start=5, mirror=M1, spread_blocks=8),))],
            id="part of a mirror",
        ),
        pytest.param(
            Mirror(M1, (Partition(A, 5, 20), Partition(B, 5, 20)), (0, 1), (0, 1), 8),
            [Band(0, 20, 20, (Column((A, B), (A, B), 5, M1, -5, 8),))],
            id="mirror of parts",
        ),
    ],
)
def test_the_normal_form(root: Node, bands: list[Band]) -> None:
    assert flatten(root) == FlatMap(tuple(bands))


@pytest.mark.parametrize(
    "root",
    [
        pytest.param(Error(A, 0, 1), id="error"),
        pytest.param(Stripe((Delay(A, 1.0), B), 4), id="delay in a stripe"),
        pytest.param(Concat.over([A, Log(B, "b")]), id="log in a concat"),
        pytest.param(Stripe((Concat.over([A, B]), Concat.over([C, D])), 4), id="stripe over concat"),
        pytest.param(Stripe((Stripe((A, B), 4), Stripe((C, D), 4)), 4), id="stripe over stripe"),
        pytest.param(Mirror(M1, (Stripe((A, B), 4), Stripe((C, D), 4)), (0, 1), (0, 1), 8), id="mirror over stripe"),
        pytest.param(Mirror(M1, (MIRROR_2, E), (0, 1), (0, 1), 8), id="mirror over mirror"),
        pytest.param(Mirror(M1, (A, B), (), (), 8), id="mirror without a good leg"),
        pytest.param(Mirror(M1, (Partition(A, 1, 9), Partition(B, 2, 9)), (0, 1), (0, 1), 8), id="legs at two places"),
        pytest.param(Partition(Stripe((A, B), 4), 1, 9), id="a stripe from its middle"),
    ],
)
def test_other_trees_have_no_flat_form(root: Node) -> None:
    assert flatten(root) is None


def flat_steps(flat: FlatMap, op: Op, lba: int, blocks: int) -> tuple[list[LeafOp], list[MarkDirty]]:
    """Carry the flat pieces out: writes go to every leaf, each block of a read to the one that its address chooses."""
    steps: list[LeafOp] = []
    marks: list[MarkDirty] = []
    for column, leaf_lba, length, at in flat.pieces(lba, blocks):
        if op is Op.WRITE and column.mirror is not None:
            marks.append(MarkDirty(column.mirror, leaf_lba + column.mirror_offset, length))
        if op is Op.WRITE:
            steps += [LeafOp(leaf, op, leaf_lba, length, [Segment(at, length)]) for leaf in column.writers]
        else:
            blocks_of = range(leaf_lba, leaf_lba + length)
            steps += [LeafOp(column.reader(b), op, b, 1, [Segment(at + b - leaf_lba, 1)]) for b in blocks_of]
    return steps, marks


def by_block(steps: list[LeafOp]) -> set[tuple[str, int, int]]:
    """Break steps down to (leaf, block, position in the request)."""
    return {
        (step.leaf.wwn, step.lba + block, position)
        for step in steps
        for block, position in enumerate(at for segment in step.segments for at in range(segment.at, sum(segment)))
    }


def assert_agreement(root: Node, flat: FlatMap, op: Op, lba: int, blocks: int) -> None:
    planned = [step for stage in plan(root, op, lba, blocks) for step in stage]
    steps, marks = flat_steps(flat, op, lba, blocks)
    assert by_block(steps) == by_block([step for step in planned if isinstance(step, LeafOp)])
    marked = {
        (m.mirror, block) for m in planned if isinstance(m, MarkDirty) for block in range(m.lba, m.lba + m.blocks)
    }
    assert {(m.mirror, block) for m in marks for block in range(m.lba, m.lba + m.blocks)} == marked


@pytest.mark.parametrize("spread", [1, 3, 5])
def test_it_agrees_with_the_plan_where_a_chunk_is_read_from_several_legs(spread: int) -> None:
    root = Stripe(tuple(Mirror(M1, legs, (0, 1), (0, 1), spread) for legs in ((A, B), (C, D))), 4)
    flat = flatten(root)
    assert flat is not None
    assert_agreement(root, flat, Op.READ, 1, root.blocks - 2)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_it_agrees_with_the_plan_on_volumes(data: st.DataObject) -> None:
    """Concats of stripes of mirrors of partitions always flatten."""
    root = data.draw(flat_trees())
    flat = flatten(root)
    assert flat is not None
    lba, blocks = data.draw(ranges(root.blocks))
    assert_agreement(root, flat, data.draw(st.sampled_from([Op.READ, Op.WRITE])), lba, blocks)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_it_agrees_with_the_plan_on_any_static_tree(data: st.DataObject) -> None:
    root = data.draw(trees(static=True))
    flat = flatten(root)
    assume(flat is not None)
    assert flat is not None
    lba, blocks = data.draw(ranges(root.blocks))
    assert_agreement(root, flat, data.draw(st.sampled_from([Op.READ, Op.WRITE])), lba, blocks)


@pytest.mark.parametrize("width", [1, 2, 7])
def test_it_agrees_with_the_plan_at_8_eib(width: int) -> None:
    """Every number is exact at sizes that a float or 64 bits would spoil (R7)."""
    huge = 1 << 54
    root = Concat.over([A, Stripe(tuple(make_leaf(number, huge) for number in range(10, 10 + width)), 128)])
    flat = flatten(root)
    assert flat is not None
    for lba in (0, 31, root.blocks // 2, root.blocks - 300):
        assert_agreement(root, flat, Op.READ, lba, 300)
