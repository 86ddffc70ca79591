"""Work on the metadata of ALUs while no appliance has them: ``tiergate metadata`` (R1-R4).

What is told, found and mended is decided in ``backstores.metadata``; here ALUs are opened for it. To look, they are
opened so that the kernel refuses a write; to repair, as an appliance does. Either takes the lock by which an
appliance keeps others out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backstores.alu.base import PAGE_BYTES, AluDriver
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.metadata import dump
from backstores.metadata.dump import Structure
from backstores.metadata.inspection import Inspection, inspect
from backstores.metadata.layout import data_area
from backstores.metadata.store import answer


@dataclass(frozen=True, slots=True)
class Dumped:
    """All that lies on one ALU."""

    path: str
    ownership: str
    detail: str
    version: int
    structures: list[Structure]


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
