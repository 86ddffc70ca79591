"""Work on the metadata of ALUs while no appliance has them: ``tiergate metadata`` (R1-R4).

What is told, found and mended is decided in ``backstores.metadata``; here ALUs are opened for it. To look, they are
opened so that the kernel refuses a write; to repair, as an appliance does. Either takes the lock by which an
appliance keeps others out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from backstores.alu.base import PAGE_BYTES, AluDriver
from backstores.alu.location import disk_of
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.metadata import checkup, dump
from backstores.metadata.checkup import Checkup, Means, Repair, Subject, check_up, main_susid
from backstores.metadata.dump import Structure
from backstores.metadata.gsstore import GsDisk, GsStore
from backstores.metadata.inspection import Inspection, Ownership, inspect
from backstores.metadata.layout import data_area
from backstores.metadata.mends import mended
from backstores.metadata.steps import Flush
from backstores.metadata.store import AluMetadata, answer, carry_out

__all__ = ["Checkup", "Dumped", "Repaired", "checked", "dumped", "repaired"]

MOST_ROUNDS: Final = 8
"""Rounds of repairs that are tried; two are enough for all that is known to happen."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """All that lies on one ALU."""

    path: str
    ownership: str
    detail: str
    version: int
    structures: list[Structure]


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was repaired, and what was found afterwards."""

    done: tuple[Repair, ...]
    left: Checkup


@dataclass(frozen=True, slots=True)
class Opened:
    """An ALU that is open. Its size is rounded down, as an appliance does."""

    path: str
    driver: AluDriver
    storage: DriverStorage

    @property
    def size_bytes(self) -> int:
        """How much of it an appliance uses."""
        return self.driver.size_bytes // PAGE_BYTES * PAGE_BYTES

    async def inspect(self, susid: str = "") -> Inspection:
        """Look at it."""
        return await answer(self.storage, inspect(susid, self.size_bytes))


def dumped(paths: Sequence[str]) -> list[Dumped]:
    """Tell all that lies on these ALUs; not a byte of them is written.

    Raises:
        UsageError: one can't be opened, or an appliance has it.
    """
    return asyncio.run(_dump(paths))


async def _dump(paths: Sequence[str]) -> list[Dumped]:
    async with _opened(paths, writable=False) as alus:
        return [await _dump_one(alu) for alu in alus]


async def _dump_one(alu: Opened) -> Dumped:
    found = await alu.inspect()
    if found.directory is not None:  # whose it is, is for its reader to say
        found = await alu.inspect(found.susid)
    structures = await answer(alu.storage, dump.describe(found, alu.size_bytes))
    return Dumped(alu.path, str(found.ownership), found.detail, found.version, structures)


def checked(paths: Sequence[str], susid: str = "") -> Checkup:
    """Find what is wrong with these ALUs; not a byte of them is written. ``susid``: whose, if not most of them tell.

    Raises:
        UsageError: one can't be opened, or an appliance has it.
    """
    return asyncio.run(_check(paths, susid))


def repaired(paths: Sequence[str], susid: str = "") -> Repaired:
    """Repair what can be repaired safely.

    Raises:
        UsageError: one can't be opened, or an appliance has it.
        TiergateError: an ALU can't be written; what was repaired until then stays so.
    """
    return asyncio.run(_repair(paths, susid))


async def _check(paths: Sequence[str], susid: str) -> Checkup:
    async with _opened(paths, writable=False) as alus:
        return await _check_all(alus, susid)


async def _check_all(alus: Sequence[Opened], susid: str) -> Checkup:
    found = [await alu.inspect() for alu in alus]
    susid = susid or main_susid(found)
    return check_up([await _subject(alu, susid) for alu in alus], susid)


async def _subject(alu: Opened, susid: str) -> Subject:
    return await answer(alu.storage, checkup.look(alu.path, susid, alu.size_bytes))


async def _repair(paths: Sequence[str], susid: str) -> Repaired:
    """Repair and look again, until nothing is left that could be: one repair may make room for another."""
    async with _opened(paths, writable=True) as alus:
        done: list[Repair] = []
        left = await _check_all(alus, susid)
        for _ in range(MOST_ROUNDS):
            tried = left.repairs
            if not tried:
                break
            await _carry_out(alus, left)
            left = await _check_all(alus, left.susid)
            done += [repair for repair in tried if repair not in left.repairs]
            if left.repairs == tried:
                break  # the ALU has a bad sector
        return Repaired(tuple(done), left)


async def _carry_out(alus: Sequence[Opened], found: Checkup) -> None:
    for alu in alus:
        mine = [repair for repair in found.repairs if repair.path == alu.path]
        if mine:
            await _repair_one(alu, mine, found.susid)
    if any(repair.means is Means.GS_SET for repair in found.repairs):
        disks = [await _disk(alu, found.susid) for alu in alus if await _owned(alu, found.susid)]
        await GsStore().start(disks)


async def _repair_one(alu: Opened, mine: Sequence[Repair], susid: str) -> None:
    metadata = await _metadata(alu, susid)
    epoch = metadata.epoch
    await metadata.fence(epoch)  # copies of label and MDR directory
    todo = [mend for repair in mine for mend in repair.mends]
    await metadata.commit(mended(metadata.objects, todo), epoch)  # and the partition table
    if any(repair.means is Means.REGION for repair in mine):
        await metadata.renew(epoch)
    now_ns = time.time_ns()
    bitmaps = [step for repair in mine for renewal in repair.renewals for step in renewal.writes(now_ns)]
    async with metadata.writing(epoch):
        await carry_out(alu.storage, [*bitmaps, Flush()])


async def _owned(alu: Opened, susid: str) -> bool:
    return (await alu.inspect(susid)).ownership is Ownership.OWNED


async def _metadata(alu: Opened, susid: str) -> AluMetadata:
    metadata = AluMetadata(alu.storage, alu.size_bytes)
    await metadata.inspect(susid)
    return metadata


async def _disk(alu: Opened, susid: str) -> GsDisk:
    """Make of an ALU what the GS set lies on, as the appliance would."""
    subject = await _subject(alu, susid)
    generation = subject.look.generation
    return GsDisk(
        subject.alu,
        os.path.abspath(alu.path),  # an appliance runs in another folder
        await asyncio.to_thread(disk_of, alu.driver),
        alu.storage,
        await _metadata(alu, susid),
        generation or 0,
        sound=generation is not None,
    )


@asynccontextmanager
async def _opened(paths: Sequence[str], writable: bool) -> AsyncIterator[list[Opened]]:
    """Open ALUs, and close them whatever happens."""
    async with Engine() as engine:
        alus = []
        for path in paths:
            driver = await (engine.open(path) if writable else engine.open_guard(path))
            alus.append(Opened(path, driver, DriverStorage(engine, driver)))
            data_area(alus[-1].size_bytes)
        yield alus
