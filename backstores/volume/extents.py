"""Ranges of one ALU as a block device: what another storage processor reaches of it (R12).

A *T1 unit* is a partition with its dirty-region bitmap behind it, one LUN; the whole ALU is what passes through to
the MVSP. Neither knows of volumes: no mirror, no dirty region, no leg that could be given up. What order there must
be among writers is kept where the volume is.

Make one for each initiator that is let in. Storage tells of a loss once, and each device hears of it by a flush of its
own: two storage processors at one device would hear of it by turns, and one of them would believe that all it has
written is durable (D1).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from backstores.alu.base import AluDriver
from backstores.block import (
    MUTATING,
    Leaf,
    LeafOp,
    MarkDirty,
    Op,
    Plan,
    Request,
    Run,
    check,
    plan,
)
from backstores.device import Submit
from backstores.engine.engine import Engine
from backstores.engine.executor import Executor, StageFailed
from backstores.errors import UsageError
from backstores.objects import MIB, Extent
from backstores.ranges import RangeLocks
from backstores.transforms.concat import Concat
from backstores.volume.answers import block_error, joined
from backstores.wwn import Wwn

ALU: Final = Wwn("alu")
"""What the one driver is called between the map and the executor; it shows nowhere."""
OPTIMAL_BYTES: Final = MIB


class ExtentDevice:
    """A ``backstores.device.BlockDevice`` over byte ranges of one ALU, one behind the other."""

    def __init__(self, engine: Engine, driver: AluDriver, extents: Sequence[Extent], block_bytes: int) -> None:
        for extent in extents:
            if extent.start_bytes % block_bytes or extent.length_bytes % block_bytes or extent.length_bytes <= 0:
                raise UsageError(
                    f"{extent.length_bytes} bytes at byte {extent.start_bytes} of {driver.path} are not whole blocks"
                    f" of {block_bytes} bytes"
                )
            if extent.start_bytes < 0 or extent.end_bytes > driver.size_bytes:
                raise UsageError(
                    f"{extent.length_bytes} bytes at byte {extent.start_bytes} reach past the end of {driver.path}"
                    f" ({driver.size_bytes})"
                )
        self._map = Concat.over(
            [
                Leaf(Wwn(f"extent {number}"), ALU, extent.start_bytes, extent.length_bytes // block_bytes)
                for number, extent in enumerate(extents)
            ]
        )
        self.block_bytes = block_bytes
        self.blocks = self._map.blocks
        self.physical_block_bytes = max(driver.physical_bytes, block_bytes)
        self.granularity_blocks = self.physical_block_bytes // block_bytes
        self.optimal_blocks = OPTIMAL_BYTES // block_bytes
        self._driver = driver
        self._start_bytes = extents[0].start_bytes
        self._hot_blocks = self._map.ends[0]
        self._executor = Executor(engine, {ALU: driver}, _mark_nothing)
        self._locks = RangeLocks()

    def read_now(self, lba: int, blocks: int, into: memoryview) -> bool:
        """Read from the first extent, which holds the data, if that needs no waiting."""
        return lba + blocks <= self._hot_blocks and self._driver.read_now(
            self._start_bytes + lba * self.block_bytes, into
        )

    def write_now(self, lba: int, blocks: int, data: memoryview) -> bool:
        """Write to the first extent if that needs no waiting, neither for the ALU nor for who holds a range."""
        return (
            lba + blocks <= self._hot_blocks
            and not self._locks.entries
            and self._driver.write_now(self._start_bytes + lba * self.block_bytes, data)
        )

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out.

        Raises:
            BlockError: the ALU failed.
        """
        check(request, self.blocks, self.block_bytes)
        if request.op in MUTATING:
            async with self._locks.hold(request.lba, request.blocks):
                return await self._carry_out(request)
        return await self._carry_out(request)

    @asynccontextmanager
    async def hold(self, lba: int, blocks: int) -> AsyncIterator[Submit]:
        """Keep all other writers by this device out of a range."""
        async with self._locks.hold(lba, blocks):
            yield _Held(self)

    async def _carry_out(self, request: Request) -> list[Run]:
        try:
            return joined(await self._executor.run(self._plan(request), request, self.block_bytes), request.lba)
        except StageFailed as failed:
            raise block_error(request, failed) from failed

    def _plan(self, request: Request) -> Plan:
        if request.op is Op.FLUSH:  # all extents lie on one ALU
            leaf = self._map.children[0]
            assert isinstance(leaf, Leaf)
            return [[LeafOp(leaf, Op.FLUSH, 0, leaf.blocks, [])]]
        return plan(self._map, request.op, request.lba, request.blocks)


class _Held:
    """Requests of one that holds a range."""

    def __init__(self, device: ExtentDevice) -> None:
        self._device = device

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out without taking the range again."""
        check(request, self._device.blocks, self._device.block_bytes)
        return await self._device._carry_out(request)


async def _mark_nothing(mark: MarkDirty) -> None:
    raise AssertionError("extents have no dirty regions")
