"""The dirty-region log of one mirror: ``metadata.dirty`` decides, this carries its batches to the legs (D2).

Writers that ask while a batch is on its way share the next one. A batch is written with the durability
of its own few sectors; flushing the whole ALU instead would make the first write to a region wait for
everything that was ever written there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from backstores.alu.base import AluDriver, AluError
from backstores.block import Op
from backstores.engine.engine import Engine
from backstores.engine.executor import LeafFailed
from backstores.metadata.bitmap import Geometry, Loaded, Place, Stamp, decode, merge
from backstores.metadata.dirty import Batch, DirtyRegions
from backstores.volume.hotpath import RegionStates
from backstores.wwn import Wwn


@dataclass(frozen=True, slots=True)
class LegLog:
    """Where one leg (a child of the mirror) keeps its copy of the bitmap.

    ``place`` is where it lies on its ALU, which is what its sectors say. A driver that shows a part of the ALU only has
    it somewhere else, ``moved_bytes`` further on (or, below zero, back).
    """

    child: Wwn
    driver: AluDriver
    place: Place
    moved_bytes: int = 0


class DirtyLog:
    """The bitmap of a mirror on all its legs in sync."""

    def __init__(
        self,
        engine: Engine,
        geometry: Geometry,
        legs: Sequence[LegLog],
        loaded: Loaded,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.geometry = geometry
        self.dirty_at_open = tuple(sorted(loaded.dirty))
        self._core = DirtyRegions(geometry, loaded)
        self._engine = engine
        self._legs = list(legs)
        self._now_ns = now_ns
        self._writing = asyncio.Lock()

    @classmethod
    async def load(cls, engine: Engine, geometry: Geometry, legs: Sequence[LegLog]) -> DirtyLog:
        """Read the bitmaps of all legs; one that can't be read counts as all dirty. ``publish`` comes next."""
        loaded = await asyncio.gather(*(_load_leg(engine, geometry, leg) for leg in legs))
        return cls(engine, geometry, legs, merge(loaded, geometry))

    @classmethod
    async def create(cls, engine: Engine, geometry: Geometry, legs: Sequence[LegLog]) -> DirtyLog:
        """Begin with a clean bitmap, for a new mirror whose legs are equal.

        Raises:
            LeafFailed: it could not be written to a leg.
        """
        created = cls(engine, geometry, legs, Loaded(frozenset(), Stamp()))
        await created.publish()
        return created

    @property
    def hot(self) -> RegionStates:
        """The regions' states for the hot path."""
        return RegionStates(self._core.state, self.geometry.region_blocks.bit_length() - 1)

    async def publish(self) -> None:
        """Make the bitmaps of all legs alike, before anything else is done: what only one says could be lost with it.

        Raises:
            LeafFailed: a leg did not take it.
        """
        await self._write_batch()

    async def mark(self, lba: int, blocks: int) -> None:
        """Make the dirty bits of a range of the mirror durable.

        Raises:
            LeafFailed: a leg did not take them.
        """
        first, last = self.geometry.span(lba, blocks)
        while not self._core.mark(first, last):
            await self._write_batch()

    @contextmanager
    def writing(self, lba: int, blocks: int) -> Iterator[None]:
        """Keep the bits of a range set while it is being written."""
        first, last = self.geometry.span(lba, blocks)
        self._core.pin(first, last)
        try:
            yield
        finally:
            self._core.unpin(first, last)

    def idle_regions(self) -> tuple[int, ...]:
        """Name the dirty regions that nothing has written to since the last call; flush, then ``clear`` them."""
        return self._core.age()

    async def clear(self, regions: Sequence[int]) -> None:
        """Clear regions after all legs have been flushed; those written to meanwhile stay dirty.

        Raises:
            LeafFailed: a leg did not take the new bitmap.
        """
        if self._core.clean(regions):
            await self._write_batch()

    def copied(self, regions: Sequence[int]) -> None:
        """Note that the legs are equal again in these regions."""
        self._core.copied(regions)

    def distrust(self) -> None:
        """Keep all regions that are dirty now so: the legs may differ there, and nobody can say where."""
        self._core.distrust()

    def keep(self, children: Container[Wwn]) -> None:
        """Go on with these legs alone: the others have failed."""
        self._legs = [leg for leg in self._legs if leg.child in children]

    async def _write_batch(self) -> None:
        async with self._writing:
            batch = self._core.next_batch(self._now_ns())
            if batch is None:
                return
            try:
                writes = (self._write_leg(leg, batch) for leg in self._legs)
                outcomes = await asyncio.gather(*writes, return_exceptions=True)
            except BaseException:
                self._core.failed(batch)
                raise
            # Only now: while one leg is still being written, the next batch could be overtaken by this one. So even
            # who is cancelled has waited for all.
            failure = next(filter(None, outcomes), None)
            if failure is not None:
                self._core.failed(batch)
                raise failure
            self._core.written(batch)

    async def _write_leg(self, leg: LegLog, batch: Batch) -> LeafFailed | None:
        try:
            for write in batch.writes(leg.place):
                offset = write.offset + leg.moved_bytes
                await self._engine.write(leg.driver, offset, (memoryview(write.data),), durable=True)
        except AluError as error:
            return LeafFailed(leg.place.leg, Op.WRITE, error.errno, 0, f"dirty-region bitmap: {error}")
        return None


async def _load_leg(engine: Engine, geometry: Geometry, leg: LegLog) -> Loaded:
    raw = bytearray(geometry.length_bytes)
    try:
        await engine.read(leg.driver, leg.place.start_bytes + leg.moved_bytes, (memoryview(raw),))
    except AluError:
        raw = bytearray()  # decoding nothing gives "all dirty", with a finding
    return decode(bytes(raw), geometry, leg.place)
