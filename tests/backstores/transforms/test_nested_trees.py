"""Trees of transforms in any order and depth do what a block-by-block model does (R7)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.block import MUTATING, LeafOp, MarkDirty, Node, Op, leaves, plan
from backstores.transforms.mirror import Mirror
from tests.support.dumb_model import Disks, Place, copies
from tests.support.trees import actions, trees

UNMAPPED = 0


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_tree_reads_back_what_was_written(data: st.DataObject) -> None:
    """Prove R7: any nesting keeps every block, over any sequence of operations."""
    root = data.draw(trees())
    disks = Disks()
    expected = [UNMAPPED] * root.blocks
    mapped = [False] * root.blocks
    for op, lba, blocks in data.draw(st.lists(actions(root.blocks), min_size=1, max_size=12)):
        inside = slice(lba, lba + blocks)
        values = [0] * blocks
        if op is Op.WRITE:
            values = data.draw(st.lists(st.integers(1, 99), min_size=blocks, max_size=blocks))
            expected[inside] = values
        elif op in MUTATING:
            expected[inside] = values
        if op in MUTATING:
            mapped[inside] = [op is not Op.DISCARD] * blocks
        disks.carry_out(plan(root, op, lba, blocks), values)
        if op is Op.READ:
            assert values == expected[inside]
        if op is Op.STATUS:
            assert [bool(value) for value in values] == mapped[inside]
    whole = [0] * root.blocks
    disks.carry_out(plan(root, Op.READ, 0, root.blocks), whole)
    assert whole == expected


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_write_reaches_exactly_the_copies_of_its_blocks(data: st.DataObject) -> None:
    """Mirror legs are equal, and nothing else on any leaf is touched."""
    root = data.draw(trees())
    _, lba, blocks = data.draw(actions(root.blocks, [Op.WRITE]))
    values = list(range(1, blocks + 1))
    disks = Disks()
    disks.carry_out(plan(root, Op.WRITE, lba, blocks), values)
    where = copies(root)
    assert disks.content == {
        place: value for value, block in zip(values, where[lba : lba + blocks], strict=True) for place in block.writable
    }


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_read_touches_one_readable_copy_of_each_block(data: st.DataObject) -> None:
    root = data.draw(trees())
    _, lba, blocks = data.draw(actions(root.blocks, [Op.READ]))
    where = copies(root)
    reads = Counter(_places(root, lba, blocks))
    assert all(count == 1 for count in reads.values())
    for block in where[lba : lba + blocks]:
        assert len(block.readable & reads.keys()) == 1
    assert len(reads) == blocks


def _places(root: Node, lba: int, blocks: int) -> list[Place]:
    steps = [step for stage in plan(root, Op.READ, lba, blocks) for step in stage if isinstance(step, LeafOp)]
    return [Place(step.leaf.wwn, block) for step in steps for block in range(step.lba, step.lba + step.blocks)]


@settings(deadline=None, max_examples=200)
@given(trees())
def test_no_leaf_block_backs_two_volume_blocks(root: Node) -> None:
    seen: set[Place] = set()
    where = copies(root)
    assert len(where) == root.blocks
    for block in where:
        assert not seen & block.writable
        assert block.readable <= block.writable
        seen |= block.writable


@settings(deadline=None, max_examples=200)
@given(trees())
def test_a_flush_reaches_every_leaf_that_takes_writes_once(root: Node) -> None:
    disks = Disks()
    disks.carry_out(plan(root, Op.FLUSH, 0, 0), [])
    assert len(disks.flushed) == len(set(disks.flushed))
    assert set(disks.flushed) >= {place.leaf for block in copies(root) for place in block.writable}
    assert set(disks.flushed) <= {leaf.wwn for leaf in leaves(root)}


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_one_stage_never_has_two_steps_on_one_block(data: st.DataObject) -> None:
    """The steps of a stage run in parallel, so that their order must not matter."""
    root = data.draw(trees())
    op, lba, blocks = data.draw(actions(root.blocks))
    for stage in plan(root, op, lba, blocks):
        steps = [step for step in stage if isinstance(step, LeafOp)]
        touched = [(step.leaf.wwn, block) for step in steps for block in range(step.lba, step.lba + step.blocks)]
        assert len(touched) == len(set(touched))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_every_mirror_is_marked_before_its_legs_are_written(data: st.DataObject) -> None:
    """D2: a mark lies in an earlier stage than any write of the same request below that mirror."""
    root = data.draw(trees())
    op, lba, blocks = data.draw(actions(root.blocks, sorted(MUTATING, key=lambda op: op.value)))
    below = _mirrors_above(root)
    marked: set[str] = set()
    for stage in plan(root, op, lba, blocks):
        for step in stage:
            if isinstance(step, LeafOp):
                assert below[step.leaf.wwn] <= marked
        marked |= {step.mirror for step in stage if isinstance(step, MarkDirty)}


def _mirrors_above(root: Node) -> dict[str, set[str]]:
    above: dict[str, set[str]] = {leaf.wwn: set() for leaf in leaves(root)}

    def visit(node: Node) -> None:
        if isinstance(node, Mirror):
            for leaf in leaves(node):
                above[leaf.wwn].add(node.wwn)
        for child in node.children:
            visit(child)

    visit(root)
    return above
