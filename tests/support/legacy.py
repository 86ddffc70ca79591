"""A storage processor with legacy ALUs on real files, and a place in memory for their records."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from appliance.legacy import RecordStore
from appliance.mic.store import open_store
from appliance.portals import PortalAddress
from appliance.sp import StorageProcessor
from appliance.whole import build_whole
from backstores.block import Op, Request
from backstores.device import BlockDevice
from backstores.engine.engine import Engine
from backstores.errors import TiergateError
from backstores.objects import AnyObject
from backstores.wwn import Wwn
from tests.support.engines import noise

Scenario = Callable[[StorageProcessor], Awaitable[None]]

SUSID = "legacy-tests"
TARGET = "iqn.2026-11.example.tiergate:legacy"
ODD = (1 << 20) + 3 * 512  # whole sectors, but no whole pages


class MemoryRecords(RecordStore):
    """The twin of the GS set's reserved region. ``fail`` makes the next change fail."""

    def __init__(self) -> None:
        self.kept: dict[Wwn, bytes] = {}
        self.fail = False
        self.changes = 0

    def load(self) -> Mapping[Wwn, bytes]:
        return dict(self.kept)

    async def save(self, alu: Wwn, record: bytes | None) -> None:
        if self.fail:
            self.fail = False
            raise TiergateError("below a majority, on purpose")
        self.changes += 1
        if record is None:
            self.kept.pop(alu, None)
        else:
            self.kept[alu] = record


@asynccontextmanager
async def storage_processor(folder: Path, records: RecordStore, *legacy: Path) -> AsyncIterator[StorageProcessor]:
    """Start one, as the management does: legacy ALUs come when all others are there."""
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    store = open_store(folder / "state")
    async with Engine() as engine:
        sp = StorageProcessor(engine, store, SUSID, TARGET, [PortalAddress("127.0.0.1", 1)], records=records)
        await sp.bring_on_line()
        for path in legacy:
            await sp.attach_legacy(str(path))
        try:
            yield sp
        finally:
            await sp.close()
            store.close()


def whole(
    sp: StorageProcessor, name: str = "old", layout: str = "legacy", block_bytes: int = 512
) -> tuple[AnyObject, ...]:
    """Build a volume of the legacy ALU that was attached first."""
    [alu] = [alu for alu in sp.alus() if alu.state == "legacy"][:1]
    built = build_whole(name, layout, alu, block_bytes=block_bytes, size_bytes=None, created="2026-11-23T00:00:00Z")
    return built.objects


def old_data(path: Path, size_bytes: int = ODD) -> str:
    """Make a file with somebody's data; give its digest."""
    path.write_bytes(noise(size_bytes))
    return digest(path)


def digest(path: Path) -> str:
    """Give what the whole of a file sums up to."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def on(folder: Path, records: MemoryRecords, scenario: Scenario, *legacy: Path) -> None:
    """Run a scenario on a storage processor that finds these legacy ALUs."""

    async def run() -> None:
        async with storage_processor(folder, records, *legacy) as sp:
            await scenario(sp)

    asyncio.run(run())


def device(sp: StorageProcessor, volume: Wwn) -> BlockDevice:
    """Give what a front end sees of a volume."""
    unit = sp._volumes.unit(volume)
    assert unit is not None
    return unit.device


async def read(sp: StorageProcessor, volume: Wwn, lba: int, blocks: int = 1) -> bytes:
    """Read blocks of a volume as a host does."""
    content = bytearray(blocks * 512)
    await device(sp, volume).submit(Request(Op.READ, lba, blocks, memoryview(content)))
    return bytes(content)
