"""A volume's objects as people look at them: the tree, and the layout it was asked for by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from appliance.mic.values import human_size
from appliance.mic.views import TreeNode
from backstores.objects import (
    AnyObject,
    ConcatObject,
    LegState,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.wwn import Wwn, short


class LayoutParameters(msgspec.Struct, frozen=True):
    """What ``create`` was told, read back from the objects; 0 where the layout has no such thing."""

    chunk_bytes: int = 0
    width: int = 0
    legs: int = 0


def layout_parameters(objects: Sequence[AnyObject]) -> LayoutParameters:
    """Read chunk, width and legs back: those of the first stripe and the first mirror."""
    block_bytes = next((item.block_bytes for item in objects if isinstance(item, VolumeObject)), 0)
    stripe = next((item for item in objects if isinstance(item, StripeObject)), None)
    mirror = next((item for item in objects if isinstance(item, MirrorObject)), None)
    return LayoutParameters(
        chunk_bytes=stripe.chunk_blocks * block_bytes if stripe else 0,
        width=len(stripe.children) if stripe else 0,
        legs=len(mirror.legs) if mirror else 0,
    )


def below(objects: Sequence[AnyObject], root: Wwn) -> Iterator[AnyObject]:
    """Yield an object and all below it, from the first child to the last; what is missing is left out."""
    by_wwn = {item.wwn: item for item in objects}
    waiting = [root]
    while waiting:
        item = by_wwn.pop(waiting.pop(), None)  # popped: a damaged tree with a cycle ends, too
        if item is not None:
            yield item
            waiting.extend(reversed(children(item)))


def children(item: AnyObject) -> tuple[Wwn, ...]:
    """Name the objects right below one."""
    return () if isinstance(item, PartitionObject) else item.children


def volume_tree(objects: Sequence[AnyObject], alu_names: Mapping[Wwn, str]) -> TreeNode:
    """Make the tree that a person sees of a volume, its root object first."""
    by_wwn = {item.wwn: item for item in objects}
    legs = {leg.child: leg.state for item in objects if isinstance(item, MirrorObject) for leg in item.legs}

    def node(wwn: Wwn) -> TreeNode:
        item = by_wwn.pop(wwn, None)
        if item is None:
            return TreeNode(f"missing {short(wwn)}", "not on any attached ALU", healthy=False)
        leg = legs.get(wwn)
        state = f", leg {leg}" if leg else ""
        return TreeNode(
            f"{_kind(item)} {short(wwn)}",
            _summary(item, alu_names) + state,
            healthy=leg is LegState.IN_SYNC if leg else None,
            children=tuple(node(child) for child in children(item)),
        )

    return node(objects[0].wwn)


def _kind(item: AnyObject) -> str:
    return type(item).__name__.removesuffix("Object").lower()


def _summary(item: AnyObject, alu_names: Mapping[Wwn, str]) -> str:
    match item:
        case VolumeObject():
            return f"{item.name}, {human_size(item.blocks * item.block_bytes)}, {item.layout}"
        case StripeObject():
            return f"{len(item.children)} wide, chunks of {item.chunk_blocks} blocks"
        case ConcatObject():
            return f"{len(item.children)} one behind the other"
        case MirrorObject():
            return f"{len(item.legs)} legs"
        case PartitionObject():
            alu = alu_names.get(item.alu, f"missing {short(item.alu)}")
            return f"{alu}, {human_size(item.extent.length_bytes)} at {human_size(item.extent.start_bytes)}"
