"""Makes the legs of a mirror equal in a range of its blocks: the one way to mend them, for all reasons.

Blocks are compared first and only those that differ are written, so that holes stay holes, and so that
undoing a write that met a full disk needs no new space.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from backstores.block import Node, Op, Request, plan
from backstores.engine.executor import Executor, StageFailed
from backstores.volume import loss

STEP_BYTES = 1 << 20


class Equalizer:
    """Copies between the subtrees of a mirror's legs."""

    def __init__(self, executor: Executor, block_bytes: int) -> None:
        self._executor = executor
        self._block_bytes = block_bytes

    async def run(self, legs: Sequence[Node], source: int, lba: int, blocks: int) -> None:
        """Make all legs hold what leg number ``source`` holds in [lba, lba + blocks) of the mirror.

        Raises:
            StageFailed: a leg could not be read or written.
        """
        step = STEP_BYTES // self._block_bytes
        for at in range(lba, lba + blocks, step):
            await self._step(legs, source, at, min(step, lba + blocks - at))

    async def _step(self, legs: Sequence[Node], source: int, lba: int, blocks: int) -> None:
        """Copy a range. Where a leg has no room for what the source has, the source takes what that leg has.

        Two legs that share a full file system may each have blocks that the other has no room for.
        """
        tried: set[tuple[int, int]] = set()
        while True:
            contents = await self._read_all(legs, lba, blocks)
            first = min((self._first_difference(contents[source], content) for content in contents), default=blocks)
            for number, (leg, content) in enumerate(zip(legs, contents, strict=True)):
                try:
                    if number != source:
                        await self._mend(leg, lba, contents[source], content)
                except StageFailed as failed:
                    full = all(failure.errno in loss.FULL for failure in failed.failures)
                    if not full or (first, source) in tried:
                        raise
                    tried.add((first, source))
                    source = number
                    break
            else:
                return

    def _first_difference(self, one: bytearray, other: bytearray) -> int:
        return next((first for first, _ in _differences(one, other, self._block_bytes)), len(one) // self._block_bytes)

    async def _read_all(self, legs: Sequence[Node], lba: int, blocks: int) -> list[bytearray]:
        """Read all legs side by side; when one fails, the others are waited for, so that nothing is under way."""
        found = await asyncio.gather(*(self._read(leg, lba, blocks) for leg in legs), return_exceptions=True)
        contents: list[bytearray] = []
        for content in found:
            if isinstance(content, BaseException):
                raise content
            contents.append(content)
        return contents

    async def _read(self, leg: Node, lba: int, blocks: int) -> bytearray:
        content = bytearray(blocks * self._block_bytes)
        await self._leaf_io(leg, Request(Op.READ, lba, blocks, memoryview(content)))
        return content

    async def _mend(self, leg: Node, lba: int, wanted: bytearray, found: bytearray) -> None:
        for first, end in _differences(wanted, found, self._block_bytes):
            data = memoryview(wanted)[first * self._block_bytes : end * self._block_bytes]
            await self._leaf_io(leg, Request(Op.WRITE, lba + first, end - first, data))

    async def _leaf_io(self, leg: Node, request: Request) -> None:
        await self._executor.run(plan(leg, request.op, request.lba, request.blocks), request, self._block_bytes)


def _differences(wanted: bytearray, found: bytearray, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of blocks [first, end) in which two contents differ."""
    if wanted == found:
        return
    first = None
    count = len(found) // block_bytes
    for block in range(count):
        low, high = block * block_bytes, (block + 1) * block_bytes
        if wanted[low:high] != found[low:high]:
            first = block if first is None else first
        elif first is not None:
            yield first, block
            first = None
    if first is not None:
        yield first, count
