"""Carries a plan out: the steps of a stage side by side, the stages one after the other.

What a leaf could not do comes up as ``LeafFailed``, which names the leaf; what that means for the
volume (another leg, a degraded mirror, an error at the host) is the volume's to decide.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from backstores.alu.base import AluDriver, AluError, AluOp
from backstores.block import Fail, LeafOp, MarkDirty, Note, Op, Pause, Plan, Request, Run, Step
from backstores.engine.engine import Engine
from backstores.errors import TiergateError
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

MarkDirtyNow = Callable[[MarkDirty], Awaitable[None]]


class LeafFailed(TiergateError):
    """A leaf operation that ended with an error. ``at`` is the request's first block that is concerned.

    ``leaf`` is None when no leaf is to blame.
    """

    def __init__(self, leaf: Wwn | None, op: Op, code: int, at: int, reason: str) -> None:
        super().__init__(reason)
        self.leaf = leaf
        self.op = op
        self.errno = code
        self.at = at


class StageFailed(TiergateError):
    """All failures of one stage: its other steps have ended well."""

    def __init__(self, failures: Sequence[LeafFailed]) -> None:
        super().__init__("; ".join(str(failure) for failure in failures))
        self.failures = tuple(failures)


class Executor:
    """Knows the ALUs' drivers, and how each step is done with them."""

    def __init__(self, engine: Engine, drivers: Mapping[Wwn, AluDriver], mark_dirty: MarkDirtyNow) -> None:
        self._engine = engine
        self._drivers = drivers
        self._mark_dirty = mark_dirty
        self._heard = {driver: engine.losses(driver) for driver in drivers.values()}  # what this volume was told

    async def run(self, plan: Plan, request: Request, block_bytes: int) -> list[Run]:
        """Carry out all stages; the answer is what STATUS steps found, in the request's order.

        However it ends, by a cancellation, too, nothing of it is under way any more: its range may be given to others.

        Raises:
            StageFailed: leaf operations failed; the stages after theirs were not begun.
        """
        runs: list[Run] = []
        for stage in plan:
            outcomes: Sequence[list[Run] | BaseException]
            if len(stage) == 1:
                outcomes = [await self._caught(stage[0], request, block_bytes)]
            else:
                steps = (self._caught(step, request, block_bytes) for step in stage)
                # Else it would be over with the first step that is cancelled, while others can't be called back.
                outcomes = await asyncio.gather(*steps, return_exceptions=True)
            failures = [outcome for outcome in outcomes if isinstance(outcome, LeafFailed)]
            if failures:
                raise StageFailed(failures)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                runs.extend(outcome)
        return sorted(runs)

    async def _caught(self, step: Step, request: Request, block_bytes: int) -> list[Run] | LeafFailed:
        try:
            return await self._step(step, request, block_bytes)
        except LeafFailed as failure:
            return failure

    async def _step(self, step: Step, request: Request, block_bytes: int) -> list[Run]:
        match step:
            case LeafOp():
                return await self._leaf(step, request, block_bytes)
            case MarkDirty():
                await self._mark_dirty(step)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Note(text):
                log.info("%s", text)
            case Fail(code):
                raise LeafFailed(None, request.op, code, 0, f"{request.op.value}: injected errno {code}")
        return []

    async def _leaf(self, step: LeafOp, request: Request, block_bytes: int) -> list[Run]:
        driver = self._drivers.get(step.leaf.alu)
        if driver is None:
            raise LeafFailed(step.leaf.wwn, step.op, errno.ENODEV, _place(step, 0), f"ALU {step.leaf.alu} is not there")
        offset = step.leaf.start_bytes + step.lba * block_bytes
        length = step.blocks * block_bytes
        try:
            match step.op:
                case Op.READ:
                    await self._engine.read(driver, offset, _views(step, request, block_bytes))
                case Op.WRITE:
                    await self._engine.write(driver, offset, _views(step, request, block_bytes), durable=request.fua)
                case Op.DISCARD:
                    await self._engine.discard(driver, offset, length)
                case Op.ZERO:
                    await self._engine.zero(driver, offset, length)
                case Op.FLUSH:
                    await self._flush(driver)
                case Op.STATUS:
                    found = await self._engine.status(driver, offset, length)
                    return list(_runs(step, found, offset, block_bytes))
            if request.fua and step.op in (Op.DISCARD, Op.ZERO):
                await self._flush(driver)  # only a write can be told to be durable by itself (D1)
        except AluError as error:
            failed_block = max(0, error.offset - offset) // block_bytes
            op = Op.FLUSH if error.op is AluOp.FLUSH else step.op
            raise LeafFailed(step.leaf.wwn, op, error.errno, _place(step, failed_block), str(error)) from error
        return []

    async def _flush(self, driver: AluDriver) -> None:
        """Flush an ALU, and hear of all that was lost there since this volume heard last, whoever flushed (D1)."""
        try:
            await self._engine.flush(driver, self._heard.get(driver, 0))
        except AluError:
            self._heard[driver] = self._engine.losses(driver)
            raise


def _views(step: LeafOp, request: Request, block_bytes: int) -> list[memoryview]:
    assert request.data is not None
    data = request.data
    return [data[s.at * block_bytes : (s.at + s.blocks) * block_bytes] for s in step.segments]


def _place(step: LeafOp, leaf_block: int) -> int:
    """Say which block of the request is block ``leaf_block`` of the step; a FLUSH has no blocks."""
    for segment in step.segments:
        if leaf_block < segment.blocks:
            return segment.at + leaf_block
        leaf_block -= segment.blocks
    return 0


def _runs(step: LeafOp, found: Sequence[tuple[int, int, bool]], offset: int, block_bytes: int) -> list[Run]:
    """Turn byte ranges of an ALU into blocks of the request; a block is mapped when any byte of it is."""
    runs = []
    first = 0
    for segment in step.segments:
        for start, length, mapped in found:
            begin, end = start - offset, start - offset + length
            low = begin // block_bytes if mapped else -(-begin // block_bytes)
            high = -(-end // block_bytes) if mapped else end // block_bytes
            low, high = max(low, first), min(high, first + segment.blocks)
            if low < high:
                runs.append(Run(segment.at + low - first, high - low, mapped))
        first += segment.blocks
    return runs
