"""From the definitions of a volume to its tree of transforms.

The definitions may come from a damaged disk: whatever they hold, ``build`` ends, and what is no
proper tree ends in a CorruptError that says why. That no object has two parents rules out both
cycles and two volume blocks on one disk block; the depth is limited, for plans recurse over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from backstores.block import Leaf, Node, leaves
from backstores.errors import CorruptError
from backstores.objects import AnyObject, PartitionObject, VolumeObject
from backstores.transforms.base import Setting
from backstores.transforms.partition import fitted
from backstores.transforms.registry import MAKERS
from backstores.wwn import Wwn, short

MAX_DEPTH: Final = 16
MAX_VOLUME_BYTES: Final = (1 << 63) - 1  # what a file offset can say
BLOCK_BYTES: Final = (512, 4096)


def build(objects: Sequence[AnyObject], pinned: Mapping[Wwn, Wwn] | None = None) -> Node:
    """Build a volume's tree out of its objects, the volume object first. Objects outside the tree are left alone.

    ``pinned`` says for some mirrors (keys) which leg (child) serves all reads.

    Raises:
        CorruptError: the objects are no proper tree.
        UsageError: a pinned leg is not in sync.
    """
    volume = objects[0] if objects else None
    if not isinstance(volume, VolumeObject):
        raise CorruptError("the definition of a volume does not begin with a volume object")
    if volume.block_bytes not in BLOCK_BYTES:
        raise CorruptError(f"volume {volume.name!r} has blocks of {volume.block_bytes} bytes, not 512 or 4096")
    if not 0 < volume.blocks <= MAX_VOLUME_BYTES // volume.block_bytes:
        raise CorruptError(f"volume {volume.name!r} has {volume.blocks} blocks, not 1 to 2^63 - 1 bytes of them")
    builder = _Builder(volume, objects, Setting(volume.block_bytes, pinned or {}))
    root = fitted(builder.node(volume.root, 1), volume.blocks, f"volume {volume.name!r}")
    _refuse_overlap(list(leaves(root)), volume.block_bytes)
    return root


class _Builder:
    """Builds the nodes from the leaves up, and remembers which objects already have a parent."""

    def __init__(self, volume: VolumeObject, objects: Sequence[AnyObject], setting: Setting) -> None:
        self._volume = volume
        self._setting = setting
        self._used: set[Wwn] = set()
        self._by_wwn: dict[Wwn, AnyObject] = {}
        for definition in objects:
            if self._by_wwn.setdefault(definition.wwn, definition) is not definition:
                raise CorruptError(f"object {short(definition.wwn)} is defined twice")

    def node(self, wwn: Wwn, depth: int) -> Node:
        definition = self._by_wwn.get(wwn)
        if definition is None:
            raise CorruptError(f"object {short(wwn)} is missing")
        if wwn in self._used:
            raise CorruptError(f"object {short(wwn)} has more than one parent")
        if depth > MAX_DEPTH:
            raise CorruptError(f"object {short(wwn)} lies deeper than {MAX_DEPTH} levels")
        if isinstance(definition, VolumeObject) or definition.volume != self._volume.wwn:
            raise CorruptError(f"object {short(wwn)} is no part of volume {short(self._volume.wwn)}")
        self._used.add(wwn)
        children: tuple[Node, ...] = ()
        if not isinstance(definition, PartitionObject):
            if not definition.children or definition.blocks < 1:
                raise CorruptError(f"object {short(wwn)} has no members or no blocks")
            children = tuple(self.node(child, depth + 1) for child in definition.children)
        return MAKERS[type(definition)](definition, children, self._setting)


def _refuse_overlap(found: list[Leaf], block_bytes: int) -> None:
    """Make sure that no two partitions share a byte of an ALU."""
    found.sort(key=lambda leaf: (leaf.alu, leaf.start_bytes))
    for before, leaf in pairwise(found):
        if before.alu == leaf.alu and before.start_bytes + before.blocks * block_bytes > leaf.start_bytes:
            raise CorruptError(f"partitions {short(before.wwn)} and {short(leaf.wwn)} overlap")
