"""Growing: the same layout once more, behind what is there (R8, R11)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from appliance.messages import AluStatus
from appliance.vbm import BuiltVolume, VolumeRequest, build_volume, grow_volume
from backstores.block import LeafOp, Op, leaves, plan
from backstores.errors import CorruptError, UsageError
from backstores.objects import MIB, AnyObject, ConcatObject, VolumeObject
from backstores.transforms.flat import flatten
from backstores.transforms.tree import build
from tests.appliance.test_vbm import named, request, sketch
from tests.support.inventory import GIB, after, alus, make_alu, taken


def made(asked: VolumeRequest, inventory: Sequence[AluStatus]) -> tuple[BuiltVolume, list[AluStatus]]:
    built = build_volume(asked, inventory)
    return built, after(inventory, built.objects)


def volume_of(objects: Sequence[AnyObject]) -> VolumeObject:
    assert isinstance(objects[0], VolumeObject)
    return objects[0]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("linear", ("concat", 0, 0)),
        ("concat", ("concat", 0, 1, 0)),
        ("stripe", ("concat", ("stripe", 0, 1), ("stripe", 0, 1))),
        ("mirror", ("concat", ("mirror", 0, 1), ("mirror", 0, 1))),
        (
            "stripe-mirror",
            (
                "concat",
                ("stripe", ("mirror", 0, 1), ("mirror", 2, 3)),
                ("stripe", ("mirror", 0, 1), ("mirror", 2, 3)),
            ),
        ),
    ],
)
def test_new_space_has_the_layout_and_the_alus_of_the_old(layout: str, expected: object) -> None:
    """Prove R11: the tree grows at its end, and still flattens."""
    built, inventory = made(request(layout, alus=() if layout != "stripe-mirror" else named(0, 1, 2, 3)), alus(4))
    grown = grow_volume(built.objects, GIB, inventory)
    assert sketch(grown.objects) == expected
    root = build(grown.objects)
    assert root.blocks == 2 * GIB // 512
    assert flatten(root) is not None
    assert grown.notes == ()


@pytest.mark.parametrize("layout", ["linear", "concat", "stripe", "mirror", "stripe-mirror"])
def test_what_was_there_stays_where_it_is(layout: str) -> None:
    built, inventory = made(request(layout), alus(4))
    grown = grow_volume(built.objects, 3 * GIB, inventory)
    for lba in (0, 5000, GIB // 512 - 1):
        assert places(grown.objects, lba) == places(built.objects, lba)


def places(objects: Sequence[AnyObject], lba: int) -> set[tuple[str, int]]:
    steps = [step for stage in plan(build(objects), Op.WRITE, lba, 1) for step in stage]
    return {(step.leaf.wwn, step.lba) for step in steps if isinstance(step, LeafOp)}


def test_what_has_changed_and_nothing_else_has_a_higher_generation() -> None:
    """Of two copies the higher generation is the newer: an ALU that missed the growth must lose (R3)."""
    first, inventory = made(request("mirror"), alus(2))
    second = grow_volume(first.objects, GIB, inventory)
    third = grow_volume(second.objects, GIB, after(inventory, second.objects))
    for older, newer in ((first, second), (second, third)):
        before = {item.wwn: item for item in older.objects}
        now = {item.wwn: item for item in newer.objects}
        assert before.keys() < now.keys()
        for wwn, item in before.items():
            assert now[wwn].generation == item.generation + (now[wwn] != item)
    assert volume_of(third.objects).generation == 3
    assert sketch(third.objects) == ("concat", ("mirror", 0, 1), ("mirror", 0, 1), ("mirror", 0, 1))
    [concat] = [item for item in third.objects if isinstance(item, ConcatObject)]
    assert concat.generation == 2


def test_space_left_in_the_last_extent_is_used_first() -> None:
    built, inventory = made(request(size_bytes=MIB - 8192), alus(1))
    grown = grow_volume(built.objects, 4096, inventory)
    assert grown.objects[1:] == built.objects[1:]
    assert build(grown.objects).blocks == (MIB - 4096) // 512
    more = grow_volume(grown.objects, MIB, inventory)
    assert build(more.objects).blocks == (2 * MIB - 4096) // 512
    assert [extent.length_bytes for _, extent in taken(more.objects)] == [MIB, MIB]


def test_other_alus_step_in_for_those_without_room() -> None:
    """Prove R8: legs still come to lie on different ALUs."""
    built = build_volume(request("mirror"), alus(2))
    inventory = [make_alu(0, 9 * GIB), make_alu(1, MIB), make_alu(2, 9 * GIB)]
    assert sketch(grow_volume(built.objects, GIB, inventory).objects) == ("concat", ("mirror", 0, 1), ("mirror", 0, 2))


def test_new_space_lies_on_named_alus_in_their_order() -> None:
    built, inventory = made(request("mirror"), alus(4))
    grown = grow_volume(built.objects, GIB, inventory, alus=named(3, 2))
    assert sketch(grown.objects) == ("concat", ("mirror", 0, 1), ("mirror", 3, 2))


def test_the_size_is_rounded_down_and_the_user_is_told() -> None:
    built, inventory = made(request("stripe"), alus(2))
    grown = grow_volume(built.objects, 200_000, inventory)
    assert build(grown.objects).blocks * 512 == GIB + 131072
    assert grown.notes == (f"size is rounded down from {GIB + 200_000} to {GIB + 131072} bytes, a multiple of 128K",)


@pytest.mark.parametrize(
    ("add_bytes", "message"),
    [
        pytest.param(0, "0 bytes more are too few: the least step is 128K", id="nothing"),
        pytest.param(131071, "131071 bytes more are too few", id="below a row"),
        pytest.param(-GIB // 2, "bytes more are too few", id="shrink"),
        pytest.param(1 << 63, "above 9223372036854775807 bytes", id="above 8 EiB"),
        pytest.param(100 * GIB, "50G in one piece are needed on each of 2 alus", id="full"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(add_bytes: int, message: str) -> None:
    built, inventory = made(request("stripe"), alus(2))
    with pytest.raises(UsageError, match=message):
        grow_volume(built.objects, add_bytes, inventory)


def test_a_damaged_tree_does_not_grow() -> None:
    built, inventory = made(request("stripe"), alus(2))
    with pytest.raises(CorruptError, match="is missing"):
        grow_volume(built.objects[:-1], GIB, inventory)


def test_a_layout_of_a_later_version_does_not_grow() -> None:
    built, inventory = made(request(), alus(2))
    strange = msgspec.structs.replace(volume_of(built.objects), layout="raid6")
    with pytest.raises(UsageError, match="layout 'raid6' is not known"):
        grow_volume((strange, *built.objects[1:]), GIB, inventory)


def test_the_order_of_the_objects_does_not_matter() -> None:
    built, inventory = made(request("stripe-mirror"), alus(4))
    shuffled = (built.objects[0], *reversed(built.objects[1:]))
    grown = grow_volume(shuffled, GIB, inventory)
    assert [leaf.alu for leaf in leaves(build(grown.objects))] == [*named(0, 1, 2, 3)] * 2
