"""What a front end sees of a volume, and a twin in memory for tests.

READ and WRITE have two ways in. ``read_now`` and ``write_now`` are the hot path: they either do the
whole thing at once, without waiting for any disk, or answer False and have done nothing that matters;
then the caller asks again by ``submit``, the general path, which can wait, queue and fail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from backstores.block import Op, Request, Run, check


class Submit(Protocol):
    """Something that carries out requests one by one."""

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out; the answer is empty except for STATUS.

        Raises:
            BlockError: it could not be carried out; the subclass says why.
        """


class BlockDevice(Submit, Protocol):
    """A volume as a logical unit uses it. All sizes are fixed while it is open, except ``blocks``, which may grow."""

    block_bytes: int  # 512 or 4096
    blocks: int
    physical_block_bytes: int  # writes aligned to this need no read first
    granularity_blocks: int  # optimal transfer granularity: a stripe's chunk, else a physical block
    optimal_blocks: int  # optimal transfer length: full stripe rows

    def read_now(self, lba: int, blocks: int, into: memoryview) -> bool:
        """Fill ``into`` if that needs no waiting. The caller has checked the range."""

    def write_now(self, lba: int, blocks: int, data: memoryview) -> bool:
        """Write ``data`` (no FUA) if that needs no waiting. The caller has checked the range."""

    def hold(self, lba: int, blocks: int) -> AbstractAsyncContextManager[Submit]:
        """Keep all other writes out of a range while the context lasts; requests for it go through what it yields.

        COMPARE AND WRITE, ORWRITE and their like read, decide and write in one piece this way.
        """


class MemoryDevice:
    """A block device on a byte array: the in-memory twin of a volume. Never-written blocks are unmapped."""

    def __init__(self, blocks: int, block_bytes: int = 512) -> None:
        self.block_bytes = block_bytes
        self.blocks = blocks
        self.physical_block_bytes = 4096
        self.granularity_blocks = 4096 // block_bytes
        self.optimal_blocks = 65536 // block_bytes
        self.content = bytearray(blocks * block_bytes)
        self.mapped = bytearray(blocks)
        self.immediate = True  # False sends everything the general way
        self.flushes = 0

    def read_now(self, lba: int, blocks: int, into: memoryview) -> bool:
        if self.immediate:
            into[:] = self._view(lba, blocks)
        return self.immediate

    def write_now(self, lba: int, blocks: int, data: memoryview) -> bool:
        if self.immediate:
            self._view(lba, blocks)[:] = data
            self.mapped[lba : lba + blocks] = b"\1" * blocks
        return self.immediate

    async def submit(self, request: Request) -> list[Run]:
        check(request, self.blocks, self.block_bytes)
        lba, blocks = request.lba, request.blocks
        match request.op:
            case Op.READ:
                assert request.data is not None
                request.data[:] = self._view(lba, blocks)
            case Op.WRITE:
                assert request.data is not None
                self._view(lba, blocks)[:] = request.data
                self.mapped[lba : lba + blocks] = b"\1" * blocks
            case Op.DISCARD | Op.ZERO:
                self._view(lba, blocks)[:] = bytes(blocks * self.block_bytes)
                self.mapped[lba : lba + blocks] = bytes([request.op is Op.ZERO]) * blocks
            case Op.FLUSH:
                self.flushes += 1
            case Op.STATUS:
                return self._runs(lba, blocks)
        return []

    @asynccontextmanager
    async def hold(self, lba: int, blocks: int) -> AsyncIterator[Submit]:
        yield self

    def _view(self, lba: int, blocks: int) -> memoryview:
        return memoryview(self.content)[lba * self.block_bytes : (lba + blocks) * self.block_bytes]

    def _runs(self, lba: int, blocks: int) -> list[Run]:
        runs: list[Run] = []
        for block in range(lba, lba + blocks):
            mapped = bool(self.mapped[block])
            if runs and runs[-1].mapped == mapped:
                runs[-1] = runs[-1]._replace(blocks=runs[-1].blocks + 1)
            else:
                runs.append(Run(block, 1, mapped))
        return runs
