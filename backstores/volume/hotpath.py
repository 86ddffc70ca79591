"""READ and WRITE through a static tree, bound to the drivers: the hot path between a front end and a disk.

This is written for speed, and is the one place below the front ends where style bends to it: the flat
map becomes closures over plain tuples, so that a 4 KiB read costs two ``divmod`` and one call of the
driver. Both closures answer False when anything is not plain (a wait, a lock, a clean region); what
they did until then is done again by the general path, which is harmless: same blocks, same data. Should
it never come to that, the legs of a mirror could stay different; so the range is noted as in doubt.

A request that crosses chunks is dealt out to the columns: the chunks that one of them gets lie behind each
other there, so all of them go by one system call a leg, with as many buffers. Where much goes to several legs, a
second thread writes the last of them meanwhile. It has ended before ``write_now`` does: data, order and outcome are
those of one leg after the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from backstores.alu.base import AluDriver, Hand
from backstores.block import Leaf
from backstores.transforms.flat import Band, Column, FlatMap
from backstores.wwn import Wwn

Now = Callable[[int, int, memoryview], bool]
WriteOne = Callable[[int, memoryview], bool]
WriteAll = Callable[[int, Sequence[memoryview]], bool]
Doubts = set[tuple[int, int]]
"""Ranges (lba, blocks) of a volume where a change was begun, and not carried through on every leg."""

BESIDE_BYTES: Final = 128 << 10
"""Of one leg. Less is written beside only at the cost of a third more processor time, which pays while a processor is
idle, and on a busy machine takes from the throughput what it cost."""


@dataclass(frozen=True, slots=True)
class RegionStates:
    """A mirror's dirty regions as the hot path sees them: 0 is clean; 2 says "written to lately"."""

    states: bytearray
    shift: int  # blocks of a region, as a power of two


class Share(NamedTuple):
    """What a column has of a request that crosses chunks: consecutive blocks there, parts of the data here."""

    column: int
    lba: int
    blocks: int
    parts: list[memoryview]


def never(lba: int, blocks: int, data: memoryview) -> bool:
    """Send everything the general way."""
    return False


def bind(
    flat: FlatMap,
    drivers: Mapping[Wwn, AluDriver],
    regions: Mapping[Wwn, RegionStates],
    locked: Sequence[Any],
    doubts: Doubts,
    block_bytes: int,
    hand: Hand,
) -> tuple[Now, Now]:
    """Make ``read_now`` and ``write_now`` of a volume. While ``locked`` holds anything, no write passes.

    ``hand`` writes one leg beside the others.
    """
    if any(leaf.alu not in drivers for band in flat.bands for column in band.columns for leaf in _leaves(column)):
        return never, never
    reads = [_bind_read(band, drivers, block_bytes) for band in flat.bands]
    writes = [_bind_write(band, drivers, regions, locked, doubts, block_bytes, hand) for band in flat.bands]
    if len(flat.bands) == 1:
        return reads[0], writes[0]
    edges = [(band.first_lba, band.end_lba) for band in flat.bands]
    return _over_bands(edges, reads), _over_bands(edges, writes)


def _leaves(column: Column) -> tuple[Leaf, ...]:
    return column.readers + column.writers


def _over_bands(edges: list[tuple[int, int]], functions: list[Now]) -> Now:
    bands = [(first, end, function) for (first, end), function in zip(edges, functions, strict=True)]

    def now(lba: int, blocks: int, data: memoryview) -> bool:
        for first, end, function in bands:
            if lba < end:
                return lba + blocks <= end and function(lba - first, blocks, data)
        return False

    return now


def _bind_read(band: Band, drivers: Mapping[Wwn, AluDriver], block_bytes: int) -> Now:
    columns = [
        (
            [
                (drivers[leaf.alu].read_now, drivers[leaf.alu].readv_now, _place(leaf, column, block_bytes))
                for leaf in column.readers
            ],
            # A leg alone has all steps to itself, however long they are.
            column.spread_blocks if len(column.readers) > 1 else sys.maxsize,
            column.leaf_start + column.mirror_offset,
        )
        for column in band.columns
    ]
    chunk, width = band.chunk_blocks, band.width

    def read(lba: int, blocks: int, into: memoryview) -> bool:
        number, skip = divmod(lba, chunk)
        if skip + blocks > chunk:
            return read_shares(lba, into)
        row, index = divmod(number, width)
        readers, spread, shifted = columns[index]
        lba = row * chunk + skip
        step, skip = divmod(lba + shifted, spread)
        if skip + blocks > spread:
            return False  # its blocks belong to several legs
        read_now, _, base = readers[step % len(readers)]
        return read_now(base + lba * block_bytes, into)

    def read_shares(lba: int, into: memoryview) -> bool:
        for index, leaf_lba, blocks, parts in _dealt(band, lba, into, block_bytes):
            readers, spread, shifted = columns[index]
            step, skip = divmod(leaf_lba + shifted, spread)
            if skip + blocks > spread:
                return _chunk_by_chunk(read, lba, into, chunk, block_bytes)
            _, readv_now, base = readers[step % len(readers)]
            if not readv_now(base + leaf_lba * block_bytes, parts):
                return False
        return True

    return read


def _bind_write(
    band: Band,
    drivers: Mapping[Wwn, AluDriver],
    regions: Mapping[Wwn, RegionStates],
    locked: Sequence[Any],
    doubts: Doubts,
    block_bytes: int,
    hand: Hand,
) -> Now:
    columns = [_write_column(column, drivers, regions, block_bytes, hand) for column in band.columns]
    chunk, width, first_lba = band.chunk_blocks, band.width, band.first_lba
    mirrored = any(len(column.writers) > 1 for column in band.columns)
    beside_blocks = BESIDE_BYTES // block_bytes if mirrored else sys.maxsize

    def write(lba: int, blocks: int, data: memoryview) -> bool:
        if locked:
            return False
        number, skip = divmod(lba, chunk)
        if skip + blocks > chunk or blocks >= beside_blocks:
            return write_shares(lba, blocks, data)
        row, index = divmod(number, width)
        writers, states, shift, shifted, _, _ = columns[index]
        leaf_lba = row * chunk + skip
        if states is not None and not _touch(states, shift, leaf_lba + shifted, blocks):
            return False
        offset = leaf_lba * block_bytes
        for write_now, base in writers:
            if not write_now(base + offset, data):
                doubts.add((first_lba + lba, blocks))
                return False
        return True

    def write_shares(lba: int, blocks: int, data: memoryview) -> bool:
        shares = _dealt(band, lba, data, block_bytes)
        for index, leaf_lba, run, _ in shares:
            _, states, shift, shifted, _, _ = columns[index]
            if states is not None and not _touch(states, shift, leaf_lba + shifted, run):
                return False
        for index, leaf_lba, run, parts in shares:
            *_, in_turn, side_by_side = columns[index]
            write_all = in_turn if run < beside_blocks else side_by_side
            if not write_all(leaf_lba * block_bytes, parts):
                doubts.add((first_lba + lba, blocks))
                return False
        return True

    return write


def _write_column(
    column: Column,
    drivers: Mapping[Wwn, AluDriver],
    regions: Mapping[Wwn, RegionStates],
    block_bytes: int,
    hand: Hand,
) -> tuple[list[tuple[WriteOne, int]], bytearray | None, int, int, WriteAll, WriteAll]:
    """Give what writes to a column: leg by leg, its dirty regions, all legs in turn, all legs side by side."""
    legs = [(drivers[leaf.alu], _place(leaf, column, block_bytes)) for leaf in column.writers]
    states, shift, shifted = None, 0, 0
    if column.mirror is not None:
        found = regions[column.mirror]
        states, shift, shifted = found.states, found.shift, column.leaf_start + column.mirror_offset
    one_by_one = [(driver.write_now, base) for driver, base in legs]
    return one_by_one, states, shift, shifted, _in_turn(legs), _side_by_side(legs, hand)


def _in_turn(legs: Sequence[tuple[AluDriver, int]]) -> WriteAll:
    """Make what writes to one leg after the other."""
    writers = [(driver.writev_now, base) for driver, base in legs]

    def in_turn(offset: int, parts: Sequence[memoryview]) -> bool:
        return all(writev_now(base + offset, parts) for writev_now, base in writers)

    return in_turn


def _side_by_side(legs: Sequence[tuple[AluDriver, int]], hand: Hand) -> WriteAll:
    """Make what writes to all legs, the last one in a second thread if there are several, and it can be."""
    everywhere, elsewhere = _in_turn(legs), _in_turn(legs[:-1])
    if len(legs) < 2:
        return everywhere
    last, last_base = legs[-1]
    write_beside = last.write_beside

    def side_by_side(offset: int, parts: Sequence[memoryview]) -> bool:
        if not write_beside(hand, last_base + offset, parts):
            return everywhere(offset, parts)
        try:
            done = elsewhere(offset, parts)
        finally:
            beside = hand.end()  # whatever happens: until then the thread reads the data
        return done and beside == sum(map(len, parts))

    return side_by_side


def _place(leaf: Leaf, column: Column, block_bytes: int) -> int:
    """Give the byte of an ALU where a column's blocks begin."""
    return leaf.start_bytes + column.leaf_start * block_bytes


def _touch(states: bytearray, shift: int, first: int, blocks: int) -> bool:
    """Note that regions are written to. False: one is clean, so that its bit must become durable first (D2)."""
    region, last = first >> shift, (first + blocks - 1) >> shift
    if last == region:
        if not states[region]:
            return False
        states[region] = 2
        return True
    if not all(states[region : last + 1]):
        return False
    states[region : last + 1] = b"\2" * (last + 1 - region)
    return True


def _dealt(band: Band, lba: int, data: memoryview, block_bytes: int) -> list[Share]:
    """Deal a request that crosses chunks out to the columns."""
    number, skip = divmod(lba, band.chunk_blocks)
    chunk_bytes = band.chunk_blocks * block_bytes
    edges = [0, *range(chunk_bytes - skip * block_bytes, len(data), chunk_bytes), len(data)]
    parts = [data[start:end] for start, end in pairwise(edges)]
    shares = []
    for first in range(min(band.width, len(parts))):
        row, index = divmod(number + first, band.width)
        mine = parts[first :: band.width]
        leaf_lba = row * band.chunk_blocks + (0 if first else skip)
        shares.append(Share(index, leaf_lba, sum(map(len, mine)) // block_bytes, mine))
    return shares


def _chunk_by_chunk(now: Now, lba: int, data: memoryview, chunk: int, block_bytes: int) -> bool:
    """Carry out a request that crosses chunks, each for itself."""
    at, blocks = 0, len(data) // block_bytes
    while at < blocks:
        run = min(blocks - at, chunk - (lba + at) % chunk)
        if not now(lba + at, run, data[at * block_bytes : (at + run) * block_bytes]):
            return False
        at += run
    return True
