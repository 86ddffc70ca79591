"""READ and WRITE through a static tree, bound to the drivers: the hot path between a front end and a disk.

This is written for speed, and is the one place below the front ends where style bends to it: the flat
map becomes closures over plain tuples, so that a 4 KiB read costs two ``divmod`` and one call of the
driver. Both closures answer False when anything is not plain (a wait, a lock, a clean region); what
they did until then is done again by the general path, which is harmless: same blocks, same data. Should
it never come to that, the legs of a mirror could stay different; so the range is noted as in doubt.

Where a large write goes to several legs, a second thread writes the last of them meanwhile. It has ended
before ``write_now`` does: data, order and outcome are those of one leg after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backstores.alu.base import AluDriver, Hand
from backstores.block import Leaf
from backstores.transforms.flat import Band, Column, FlatMap
from backstores.wwn import Wwn

Now = Callable[[int, int, memoryview], bool]
Doubts = set[tuple[int, int]]
"""Ranges (lba, blocks) of a volume where a change was begun, and not carried through on every leg."""

BESIDE_BYTES: Final = 32 << 10  # writing less takes hardly longer than handing it over


@dataclass(frozen=True, slots=True)
class RegionStates:
    """A mirror's dirty regions as the hot path sees them: 0 is clean; 2 says "written to lately"."""

    states: bytearray
    shift: int  # blocks of a region, as a power of two


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
    pairs = [_bind_band(band, drivers, regions, locked, doubts, block_bytes, hand) for band in flat.bands]
    if len(pairs) == 1:
        return pairs[0]
    edges = [(band.first_lba, band.end_lba) for band in flat.bands]
    return _over_bands(edges, [read for read, _ in pairs]), _over_bands(edges, [write for _, write in pairs])


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


def _bind_band(
    band: Band,
    drivers: Mapping[Wwn, AluDriver],
    regions: Mapping[Wwn, RegionStates],
    locked: Sequence[Any],
    doubts: Doubts,
    block_bytes: int,
    hand: Hand,
) -> tuple[Now, Now]:
    def place(leaf: Leaf, column: Column) -> int:
        return leaf.start_bytes + column.leaf_start * block_bytes

    read_columns = [
        (
            [(drivers[leaf.alu].read_now, place(leaf, column)) for leaf in column.readers],
            len(column.readers),
            column.spread_blocks,
            column.leaf_start + column.mirror_offset,
        )
        for column in band.columns
    ]
    write_columns = [
        (
            [(drivers[leaf.alu].write_now, place(leaf, column)) for leaf in column.writers],
            _side_by_side([(drivers[leaf.alu], place(leaf, column)) for leaf in column.writers], hand),
            *_region_numbers(column, regions),
        )
        for column in band.columns
    ]
    chunk, width, first_lba = band.chunk_blocks, band.width, band.first_lba
    beside_blocks = BESIDE_BYTES // block_bytes

    def read(lba: int, blocks: int, into: memoryview) -> bool:
        number, skip = divmod(lba, chunk)
        if skip + blocks > chunk:
            return _split(read, lba, blocks, into, chunk, block_bytes)
        row, index = divmod(number, width)
        readers, count, spread, shifted = read_columns[index]
        lba = row * chunk + skip
        step, skip = divmod(lba + shifted, spread)
        if skip + blocks > spread and count > 1:
            return False  # its blocks belong to several legs
        read_now, base = readers[step % count]
        return read_now(base + lba * block_bytes, into)

    def write(lba: int, blocks: int, data: memoryview) -> bool:
        if locked:
            return False
        number, skip = divmod(lba, chunk)
        if skip + blocks > chunk:
            return _split(write, lba, blocks, data, chunk, block_bytes)
        row, index = divmod(number, width)
        writers, write_all, states, shift, shifted = write_columns[index]
        leaf_lba = row * chunk + skip
        if states is not None:
            region, last = (leaf_lba + shifted) >> shift, (leaf_lba + shifted + blocks - 1) >> shift
            if not states[region] or (last != region and not all(states[region : last + 1])):
                return False
            states[region] = 2
            if last != region:
                states[region : last + 1] = b"\2" * (last + 1 - region)
        offset = leaf_lba * block_bytes
        if blocks >= beside_blocks and write_all is not None:
            if write_all(offset, data):
                return True
        else:
            for write_now, base in writers:
                if not write_now(base + offset, data):
                    break
            else:
                return True
        doubts.add((first_lba + lba, blocks))
        return False

    return read, write


def _side_by_side(legs: Sequence[tuple[AluDriver, int]], hand: Hand) -> Callable[[int, memoryview], bool] | None:
    """Make what writes to all legs, the last one in a second thread if it can be. None: there is one leg."""
    if len(legs) < 2:
        return None
    everywhere = [(driver.write_now, base) for driver, base in legs]
    elsewhere = everywhere[:-1]
    last, last_base = legs[-1]
    write_beside = last.write_beside

    def write_all(offset: int, data: memoryview) -> bool:
        if not write_beside(hand, last_base + offset, data):
            return all(write_now(base + offset, data) for write_now, base in everywhere)
        try:
            done = all(write_now(base + offset, data) for write_now, base in elsewhere)
        finally:
            beside = hand.end()  # whatever happens: until then the thread reads the data
        return done and beside == len(data)

    return write_all


def _region_numbers(column: Column, regions: Mapping[Wwn, RegionStates]) -> tuple[bytearray | None, int, int]:
    if column.mirror is None:
        return None, 0, 0
    found = regions[column.mirror]
    return found.states, found.shift, column.leaf_start + column.mirror_offset


def _split(now: Now, lba: int, blocks: int, data: memoryview, chunk: int, block_bytes: int) -> bool:
    """Carry out a request that crosses chunks, chunk by chunk."""
    at = 0
    while at < blocks:
        run = min(blocks - at, chunk - (lba + at) % chunk)
        if not now(lba + at, run, data[at * block_bytes : (at + run) * block_bytes]):
            return False
        at += run
    return True
