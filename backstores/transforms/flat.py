"""A static tree as plain data, without the transforms.

Nearly all volumes are [a concatenation of] [stripes of] [mirrors of] partitions. For these ``flatten``
gives a ``FlatMap``: *bands*, one behind the other, each with a row of *columns* over which chunks go
round robin, each column one leaf or the legs of one mirror. The hot path works on these few numbers;
what has no such form (or changes: faults, snapshots) gives None and takes the general path, ``plan``.
Both ways do the same to every leaf.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Final, NamedTuple

from backstores.block import Leaf, Node
from backstores.transforms.concat import Concat
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition
from backstores.transforms.passthrough import Passthrough
from backstores.transforms.stripe import Stripe
from backstores.wwn import Wwn


@dataclass(frozen=True, slots=True)
class Column:
    """Leaves that hold the same blocks at the same place: a mirror's serving legs, or one partition alone.

    Block 0 of the column is block ``leaf_start`` of each leaf; block b of a leaf is block
    b + ``mirror_offset`` of the mirror, which is what dirty regions are counted in.
    """

    readers: tuple[Leaf, ...]
    writers: tuple[Leaf, ...]
    leaf_start: int = 0
    mirror: Wwn | None = None
    mirror_offset: int = 0
    spread_blocks: int = 1

    def reader(self, leaf_lba: int) -> Leaf:
        """Choose the leaf that a leaf's block ``leaf_lba`` is read from."""
        return self.readers[(leaf_lba + self.mirror_offset) // self.spread_blocks % len(self.readers)]


@dataclass(frozen=True, slots=True)
class Band:
    """The volume's blocks [first_lba, end_lba): chunks that go round robin over the columns."""

    first_lba: int
    end_lba: int
    chunk_blocks: int
    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.columns)


class FlatPiece(NamedTuple):
    """A part of a request: which column, where on each of its leaves, where in the request."""

    column: Column
    leaf_lba: int
    blocks: int
    at: int


@dataclass(frozen=True, slots=True)
class FlatMap:
    """The bands of a volume in order, without gaps."""

    bands: tuple[Band, ...]

    def pieces(self, lba: int, blocks: int) -> Iterator[FlatPiece]:
        """Yield what [lba, lba + blocks) consists of, in order."""
        at = 0
        number = bisect_right(self.bands, lba, key=lambda band: band.first_lba) - 1
        while at < blocks:
            band = self.bands[number]
            stop = min(blocks, band.end_lba - lba)
            while at < stop:
                chunk, skip = divmod(lba + at - band.first_lba, band.chunk_blocks)
                row, index = divmod(chunk, band.width)
                run = min(stop - at, band.chunk_blocks - skip)
                column = band.columns[index]
                yield FlatPiece(column, column.leaf_start + row * band.chunk_blocks + skip, run, at)
                at += run
            number += 1


class _NoFlatForm(Exception):
    """This tree is none of those that flatten."""


def flatten(root: Node) -> FlatMap | None:
    """Give the normal form of a tree, or None if it has none."""
    try:
        return FlatMap(tuple(_bands(root)))
    except _NoFlatForm:
        return None


@singledispatch
def _bands(node: Node) -> list[Band]:
    raise _NoFlatForm


@_bands.register
def _of_leaf(node: Leaf) -> list[Band]:
    return [_single(node.blocks, Column((node,), (node,)))]


def _single(blocks: int, column: Column) -> Band:
    return Band(0, blocks, blocks, (column,))


def _column(node: Node) -> Column:
    """Give the one column of a node whose blocks all follow each other on it."""
    bands = _bands(node)
    if len(bands) > 1 or bands[0].width > 1:
        raise _NoFlatForm
    return bands[0].columns[0]


@_bands.register
def _of_passthrough(node: Passthrough) -> list[Band]:
    return _bands(node.child)


@_bands.register
def _of_partition(node: Partition) -> list[Band]:
    end = node.start + node.blocks
    return [
        _cut(band, node.start, end) for band in _bands(node.child) if band.first_lba < end and node.start < band.end_lba
    ]


def _cut(band: Band, start: int, end: int) -> Band:
    """Give the part of a band that lies in [start, end), counted from ``start``."""
    skip = max(0, start - band.first_lba)
    if skip and band.width > 1:
        raise _NoFlatForm  # its rows no longer begin at a chunk
    return Band(
        first_lba=max(0, band.first_lba - start),
        end_lba=min(band.end_lba, end) - start,
        chunk_blocks=band.chunk_blocks,
        columns=tuple(replace(column, leaf_start=column.leaf_start + skip) for column in band.columns),
    )


@_bands.register
def _of_concat(node: Concat) -> list[Band]:
    bands: list[Band] = []
    for child in node.children:
        base = bands[-1].end_lba if bands else 0
        for band in _bands(child):
            bands.append(replace(band, first_lba=base + band.first_lba, end_lba=base + band.end_lba))
    return bands


@_bands.register
def _of_stripe(node: Stripe) -> list[Band]:
    if len(node.children) == 1:
        return _bands(node.children[0])
    return [Band(0, node.blocks, node.chunk_blocks, tuple(_column(child) for child in node.children))]


@_bands.register
def _of_mirror(node: Mirror) -> list[Band]:
    legs = [_column(child) for child in node.children]
    start = legs[0].leaf_start
    if not node.readers or any(leg.mirror is not None or leg.leaf_start != start for leg in legs):
        raise _NoFlatForm
    column = Column(
        readers=tuple(legs[number].readers[0] for number in node.readers),
        writers=tuple(legs[number].writers[0] for number in node.writers),
        leaf_start=start,
        mirror=node.wwn,
        mirror_offset=-start,
        spread_blocks=node.spread_blocks,
    )
    return [_single(node.blocks, column)]


FLAT: Final = frozenset(_bands.registry) - {object, Leaf}  # the transforms that there is a rule for
