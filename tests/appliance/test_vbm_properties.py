"""Whatever is asked of whatever inventory: a sound tree with the promised size, or a UsageError."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import event, given, settings
from hypothesis import strategies as st

from appliance.messages import AluState, AluStatus
from appliance.vbm import BuiltVolume, Layout, VolumeRequest, build_volume, grow_volume
from backstores.block import Node, leaves
from backstores.errors import UsageError
from backstores.objects import MIB, AnyObject, VolumeObject
from backstores.transforms.concat import Concat
from backstores.transforms.flat import flatten
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition
from backstores.transforms.stripe import Stripe
from backstores.transforms.tree import build
from tests.support.inventory import after, alu_wwn, make_alu, taken

FREE = st.lists(st.integers(10, 80).map(lambda units: units * MIB), min_size=1, max_size=3)
SIZES = st.builds(lambda units, less: units * MIB - less, st.integers(1, 40), st.sampled_from([0, 0, 1, 4608, 777_777]))


@st.composite
def inventories(draw: st.DrawFn) -> list[AluStatus]:
    """Draw up to nine ALUs, most of them owned, with room in several pieces."""
    states = st.sampled_from([AluState.OWNED] * 19 + [AluState.FOREIGN])
    sectors = st.sampled_from([512] * 19 + [4096])
    return [
        make_alu(number, *draw(FREE), state=draw(states), sector_bytes=draw(sectors))
        for number in range(draw(st.integers(2, 9)))
    ]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[AluStatus], VolumeRequest]:
    """Draw an inventory and a request that often can be met from it, now and then with named ALUs."""
    inventory = draw(inventories())
    width, legs = draw(st.integers(2, 3)), draw(st.integers(2, 3))
    layout = draw(st.sampled_from(Layout))
    alus = draw(st.permutations([alu_wwn(number) for number in range(len(inventory))]))
    named = draw(st.sampled_from([False] * 3 + [True]))
    count = {Layout.STRIPE: width, Layout.MIRROR: legs, Layout.STRIPE_MIRROR: width * legs}.get(layout, 3)
    request = VolumeRequest(
        name="db",
        size_bytes=draw(SIZES),
        layout=layout,
        alus=tuple(alus[:count]) if named else (),
        chunk_bytes=1 << draw(st.integers(12, 22)),
        legs=legs,
        width=width,
        block_bytes=draw(st.sampled_from([512, 4096])),
        max_alus=draw(st.sampled_from([None, None, 2, 4, 9])),
    )
    return inventory, request


@settings(deadline=None, max_examples=400)
@given(situations(), SIZES)
def test_a_volume_is_sound_when_it_is_made_and_when_it_has_grown(
    situation: tuple[list[AluStatus], VolumeRequest], add_bytes: int
) -> None:
    """Prove R8, R11: sizes as promised, room that was free, legs and columns on ALUs of their own."""
    inventory, asked = situation
    try:
        built = build_volume(asked, inventory)
    except UsageError:
        event("refused")
        return
    event(f"built {asked.layout}")
    size_bytes = check_promise(built, asked.size_bytes)
    check_room(built.objects, inventory)
    used = {leaf.alu for leaf in leaves(build(built.objects))}
    assert used <= set(asked.alus or used)
    assert asked.max_alus is None or len(used) <= asked.max_alus
    try:
        grown = grow_volume(built.objects, add_bytes, after(inventory, built.objects))
    except UsageError:
        return
    event(f"grown {asked.layout}")
    assert check_promise(grown, size_bytes + add_bytes) > size_bytes
    check_room(grown.objects, inventory)


def check_promise(built: BuiltVolume, asked_bytes: int) -> int:
    """See that the tree has the size that was asked for, or that the notes tell the smaller one."""
    volume = built.objects[0]
    assert isinstance(volume, VolumeObject)
    root = build(built.objects)
    size_bytes = root.blocks * volume.block_bytes
    assert size_bytes == volume.blocks * volume.block_bytes
    if size_bytes == asked_bytes:
        assert built.notes == ()
    else:
        assert size_bytes < asked_bytes
        assert f"from {asked_bytes} to {size_bytes} bytes" in built.notes[0]
    assert flatten(root) is not None
    check_separation(root)
    return size_bytes


def check_separation(node: Node) -> None:
    """See that no two legs of a mirror and no two columns of a stripe share an ALU."""
    if isinstance(node, Mirror | Stripe):
        found = [leaf.alu for leaf in leaves(node)]
        assert len(found) == len(set(found))
    if isinstance(node, Concat | Partition):
        for child in node.children:
            check_separation(child)


def check_room(objects: Sequence[AnyObject], inventory: Sequence[AluStatus]) -> None:
    """See that all extents are whole units of what was free, and share no byte."""
    free = {alu.wwn: alu.free for alu in inventory if alu.state is AluState.OWNED}
    extents = taken(objects)
    for alu, extent in extents:
        assert extent.start_bytes % MIB == extent.length_bytes % MIB == 0 < extent.length_bytes
        assert any(room.start_bytes <= extent.start_bytes and extent.end_bytes <= room.end_bytes for room in free[alu])
    for (alu, extent), (next_alu, next_extent) in pairwise(extents):
        assert alu != next_alu or extent.end_bytes <= next_extent.start_bytes
