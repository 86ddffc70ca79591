"""A storage processor on ALUs in memory that can be pulled, copied and brought back, with its GS set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from appliance.messages import AluState, VolumeStatus
from appliance.mic.store import open_store
from appliance.portals import PortalAddress
from appliance.sp import StorageProcessor
from appliance.vbm import VolumeRequest, build_volume
from backstores.alu.base import AluOp
from backstores.alu.memory import MemoryDriver
from backstores.block import Op, Request
from backstores.errors import TiergateError
from backstores.metadata.layout import GS_BOOT
from backstores.objects import MIB, AnyObject
from backstores.wwn import Wwn
from tests.support.memory_alus import Disks, MemoryEngine, blank_disks, fill, image_of

SUSID = "gs-tests"
DATA = b"gs!!" * 128
SIX = tuple(f"a{number}" for number in range(6))


@asynccontextmanager
async def running(folder: Path, disks: Disks, *paths: str, cleanly: bool = True) -> AsyncIterator[StorageProcessor]:
    """Run one as the management does, with the ALUs at these paths or at all; not ``cleanly``, it ends in a crash."""
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    store = open_store(folder / "state")
    async with MemoryEngine(disks) as engine:
        sp = StorageProcessor(engine, store, SUSID, "iqn.2026-11.example.tiergate:gs", [PortalAddress("127.0.0.1", 1)])
        for path in paths or disks:
            await bring(sp, path)
        await sp.bring_on_line()
        for status in sp.alus():
            if status.state is AluState.BLANK:
                await sp.claim(status.path)
        try:
            yield sp
        finally:
            if cleanly:
                await sp.close()
            store.close()


async def bring(sp: StorageProcessor, path: str) -> None:
    """Attach an ALU; one that is not there is missing."""
    try:
        await sp.attach(path)
    except TiergateError:
        return


def pull(disks: Disks, paths: Iterable[str]) -> None:
    """Take disks out while they are open: they answer everything with an error."""
    for path in paths:
        for op in AluOp:
            disks[path].fail(op)


def push(disks: Disks, paths: Iterable[str]) -> None:
    """Put them back in."""
    for path in paths:
        disks[path].mend()


def copied(disk: MemoryDriver) -> MemoryDriver:
    """Make a copy of a disk as it is now."""
    twin = MemoryDriver(disk.size_bytes, path=disk.path)
    fill({disk.path: twin}, {disk.path: image_of(disk)})
    return twin


def gs_writes(disks: Disks) -> int:
    """Count the writes to the GS boot regions."""
    return sum(
        GS_BOOT.start_bytes <= seen.offset < GS_BOOT.end_bytes
        for disk in disks.values()
        for seen in disk.seen(AluOp.WRITE)
    )


def tree(sp: StorageProcessor, name: str, *paths: str, layout: str = "linear") -> tuple[AnyObject, ...]:
    """Build a volume on the ALUs at these paths."""
    alus = [status for status in sp.alus() if not paths or status.path in paths]
    wanted = {
        "name": name,
        "size_bytes": MIB,
        "layout": layout,
        "alus": [status.wwn for status in alus] if paths else [],
    }
    return build_volume(msgspec.convert(wanted, VolumeRequest), alus).objects


async def create(sp: StorageProcessor, name: str, *paths: str, layout: str = "linear") -> VolumeStatus:
    """Make a volume."""
    return await sp.create_volume(tree(sp, name, *paths, layout=layout))


async def write_and_read(sp: StorageProcessor, volume: Wwn) -> None:
    """Serve a host's write and read."""
    unit = sp._volumes.unit(volume)
    assert unit is not None
    await unit.device.submit(Request(Op.WRITE, 0, 1, memoryview(DATA)))
    found = bytearray(len(DATA))
    await unit.device.submit(Request(Op.READ, 0, 1, memoryview(found)))
    assert bytes(found) == DATA


def states(sp: StorageProcessor) -> dict[str, str]:
    """Give the state of each ALU by its path."""
    return {status.path: str(status.state) for status in sp.alus()}


def members(sp: StorageProcessor) -> set[str]:
    """Name the members of the set by their paths."""
    return {member.path for member in sp.global_set().members}


async def made(folder: Path, *paths: str) -> Disks:
    """Make ALUs that an appliance has claimed, with a volume on the first, and stop it."""
    disks = blank_disks(*paths)
    async with running(folder, disks) as sp:
        await create(sp, "v", paths[0])
    return disks
