"""The metadata of one ALU over something that reads, writes and flushes.

Everything that is decided lies in the pure modules; here it is only carried out. What this object
says about an ALU (``label``, ``objects``, ``generation``) changes after the last flush of a commit
and not before: after a failure, or a cancelled task, it tells the old state, and the next commit
writes the same copy again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from backstores.errors import CorruptError, TiergateError
from backstores.metadata import label as labels
from backstores.metadata import region, signatures
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.free import free_extents
from backstores.metadata.inspection import Inspection, Ownership, Traces, with_label, without_label
from backstores.metadata.label import Copy, Label
from backstores.metadata.layout import LABEL_ADDRESSES, REGION_ADDRESSES, data_area
from backstores.metadata.region import CopyImage, RegionState
from backstores.metadata.steps import IO_UNIT, Step, Write, units
from backstores.objects import AnyObject, Extent
from backstores.wwn import Wwn

Clock = Callable[[], int]


class Storage(Protocol):
    """The bytes of an ALU. Offsets and lengths are whole units of 4 KiB, those at the very end excepted.

    All three raise a ``TiergateError`` where the ALU answers with an error.
    """

    async def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes."""

    async def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``."""

    async def flush(self) -> None:
        """Make all that was written before durable."""


async def carry_out(storage: Storage, steps: Iterable[Step]) -> None:
    """Do one step after the other; the first error ends it."""
    for step in steps:
        if isinstance(step, Write):
            await storage.write(step.offset, step.data)
        else:
            await storage.flush()


class AluMetadata:
    """Label and object region of one ALU. ``inspect`` first; then ``commit`` as often as objects change.

    Raises:
        UsageError: the ALU is too small to have metadata.
    """

    def __init__(self, storage: Storage, size_bytes: int, now_ns: Clock = time.time_ns) -> None:
        data_area(size_bytes)
        self.size_bytes: Final = size_bytes
        self._storage = storage
        self._now_ns = now_ns
        self._changing = asyncio.Lock()
        self._label: Label | None = None
        self._state: RegionState | None = None

    @property
    def label(self) -> Label:
        """The label of an ALU that was found to be owned, or that was formatted."""
        return self._usable()[0]

    @property
    def objects(self) -> tuple[AnyObject, ...]:
        """The objects on it, as last committed."""
        return self._usable()[1].objects

    @property
    def generation(self) -> int:
        """The generation of the last commit."""
        return self._usable()[1].generation

    @property
    def free(self) -> tuple[Extent, ...]:
        """The room that is left for partitions."""
        return free_extents(self.label.data, self.objects)

    async def inspect(self, susid: str) -> Inspection:
        """Look at the ALU and say what it is to the appliance ``susid``; nothing on it changes."""
        async with self._changing:
            inspection = await self._inspect(susid)
            owned = inspection.ownership is Ownership.OWNED
            self._label = inspection.label if owned else None
            self._state = inspection.state if owned else None
            return inspection

    async def format(self, susid: str, alu: Wwn) -> None:
        """Lay the ALU out afresh, without objects, whatever it held: whoever calls has asked for leave.

        The new object region comes first, into the copy that is not live; then the label, which makes
        the difference; the live copy of the old region is only overwritten when nothing leads to it.
        """
        async with self._changing:
            found = await self._inspect(susid)
            now_ns = self._now_ns()
            label = labels.renewed(labels.new_label(susid, alu, self.size_bytes), found.choice.newest, now_ns)
            first, state = region.commit(found.state, (), label, now_ns)
            second, state = region.commit(state, (), label, now_ns)
            await carry_out(self._storage, [*first, *labels.commit(label, found.choice.order), *second])
            self._label, self._state = label, state

    async def commit(self, objects: Sequence[AnyObject], epoch: int = 0) -> None:
        """Make these the objects on the ALU: all of them or, after any crash, still the old ones (M6).

        Raises:
            UsageError: they don't fit, or contradict each other; nothing was written.
            TiergateError: a write or a flush failed; the old objects still count here.
        """
        async with self._changing:
            label, state = self._usable()
            steps, after = region.commit(state, objects, label, self._now_ns(), epoch)
            await carry_out(self._storage, steps)
            self._state = after

    def _usable(self) -> tuple[Label, RegionState]:
        if self._label is None or self._state is None:
            raise CorruptError("the alu has no metadata that could be used: inspect it, and claim it if it is yours")
        return self._label, self._state

    async def _inspect(self, susid: str) -> Inspection:
        choice = labels.choose([await self._label_copy(address) for address in LABEL_ADDRESSES])
        if choice.label is None:
            return without_label(choice, await self._traces())
        images = [await self._region_copy(choice.label, number) for number in (0, 1)]
        return with_label(choice, choice.label, images, susid, self.size_bytes)

    async def _label_copy(self, address: int) -> Copy:
        try:
            return Copy(address, await self._storage.read(address, IO_UNIT))
        except TiergateError as error:
            return Copy(address, b"", str(error))

    async def _region_copy(self, label: Label, number: int) -> CopyImage:
        address = label.regions[number]
        try:
            header = await self._storage.read(address, IO_UNIT)
            length = region.body_length(header, label, number)
            body = await self._storage.read(address + region.BODY_OFFSET, units(length)) if length else b""
        except TiergateError as error:
            return CopyImage(b"", error=str(error))
        return CopyImage(header, body)

    async def _traces(self) -> Traces:
        findings: list[Finding] = []

        async def attempt(offset: int, length: int) -> bytes:
            try:
                return await self._storage.read(offset, max(0, min(length, self.size_bytes - offset)))
            except TiergateError as error:
                findings.append(Finding(Problem.UNREADABLE, f"byte {offset}", str(error)))
                return b""

        front = await attempt(0, signatures.FRONT_BYTES)
        tail = await attempt(max(0, self.size_bytes - signatures.TAIL_BYTES), signatures.TAIL_BYTES)
        headers = [await attempt(address, IO_UNIT) for address in REGION_ADDRESSES]
        return Traces(front, tail, tuple(headers), tuple(findings))
