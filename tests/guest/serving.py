"""A TCMU handler in a process of its own, over a stripe of mirrors on files: what tests in a guest start and kill.

    python -m tests.guest.serving HBA NAME FOLDER [--fresh]

It says "ready" when it serves; SIGTERM ends it cleanly. ``--fresh`` makes the files. Its log is FOLDER/log, too.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.metadata.bitmap import Geometry, Place
from backstores.objects import MIB, AnyObject, MirrorObject, PartitionObject
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.tcmu.handler import serve
from backstores.volume.dirty import DirtyLog, LegLog
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.volumes import DATA, stripe_over_mirrors

WIDTH: Final = 2
LEG_BYTES: Final = 64 * MIB
SIZE_BYTES: Final = WIDTH * LEG_BYTES
IQN: Final = "iqn.2026-11.example:tcmu"
OBJECTS: Final = stripe_over_mirrors(WIDTH, leg_bytes=LEG_BYTES, chunk_blocks=128, region_blocks=8192)


async def open_volume(folder: Path, engine: Engine, fresh: bool) -> Volume:
    """Open the files, one for each ALU, and the volume on them."""
    size_bytes = DATA + LEG_BYTES if fresh else None
    alus = [obj.alu for obj in OBJECTS if isinstance(obj, PartitionObject)]
    drivers = {alu: await engine.open(str(folder / alu), size_bytes=size_bytes) for alu in alus}
    logs = await _logs(OBJECTS, drivers, engine, fresh)

    async def persist(changed: Sequence[AnyObject]) -> None:
        raise AssertionError(f"a leg failed: {changed}")

    volume = Volume(OBJECTS, drivers, engine, logs, persist)
    await volume.publish_logs()
    return volume


async def _logs(
    objects: Sequence[AnyObject], drivers: Mapping[Wwn, AluDriver], engine: Engine, fresh: bool
) -> dict[Wwn, DirtyLog]:
    partitions = {obj.wwn: obj for obj in objects if isinstance(obj, PartitionObject)}
    logs = {}
    for obj in objects:
        if isinstance(obj, MirrorObject):
            own = [partitions[leg.child] for leg in obj.legs]
            legs = [LegLog(leg.wwn, drivers[leg.alu], Place.of(leg)) for leg in own]
            logs[obj.wwn] = await (DirtyLog.create if fresh else DirtyLog.load)(engine, Geometry.of(obj), legs)
    return logs


async def main(hba: int, name: str, folder: Path, fresh: bool) -> None:
    """Serve until SIGTERM, or until the device is gone."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Engine() as engine:
        volume = await open_volume(folder, engine, fresh)
        if volume.pin_reads():
            await volume.resynchronize()
        unit = LogicalUnit(volume, Identity(OBJECTS[0].wwn))
        nexus = TargetDevice(IQN).open_nexus("iqn.2026-11.example:hosts-of-lio,i,0x000000000000", {0: Exposed(unit)})
        handler = await serve(hba, name, nexus, on_lost=lambda error: ended.set())
        print("ready", flush=True)
        await ended.wait()
        await handler.close()
        nexus.close()
        await volume.close()
    print(f"ended: {handler.lost or 'cleanly'}", flush=True)


if __name__ == "__main__":
    handlers = (logging.StreamHandler(), logging.FileHandler(Path(sys.argv[3], "log")))
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), "--fresh" in sys.argv[4:]))
