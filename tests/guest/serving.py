"""A TCMU handler in a process of its own, over a stripe of mirrors on files: what tests in a guest start and kill.

    python -m tests.guest.serving HBA NAME FOLDER [--fresh]

It says "ready" when it serves; SIGTERM ends it cleanly. ``--fresh`` makes the files. Its log is FOLDER/log, too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.metadata.bitmap import Geometry, Place
from backstores.objects import (
    MIB,
    AnyObject,
    Extent,
    Leg,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.tcmu.handler import serve
from backstores.volume.dirty import DirtyLog, LegLog
from backstores.volume.volume import Volume
from backstores.wwn import Wwn

WIDTH: Final = 2
LEGS: Final = 2
BLOCK_BYTES: Final = 512
CHUNK_BLOCKS: Final = 128
LEG_BYTES: Final = 64 * MIB
SIZE_BYTES: Final = WIDTH * LEG_BYTES
VOLUME: Final = Wwn("6025447" + "0123456789abcdef012345678")
IQN: Final = "iqn.2026-11.example:tcmu"


@dataclass
class Definition:
    """The objects of the volume, and the file of each partition's ALU."""

    folder: Path
    paths: dict[Wwn, Path] = field(default_factory=dict)
    objects: tuple[AnyObject, ...] = ()

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        blocks = LEG_BYTES // BLOCK_BYTES
        mirrors: list[AnyObject] = []
        partitions: list[AnyObject] = []
        for _ in range(WIDTH):
            legs = [self._partition(next(numbers)) for _ in range(LEGS)]
            partitions += legs
            mirrors.append(
                MirrorObject(
                    wwn=_object(next(numbers)),
                    volume=VOLUME,
                    legs=tuple(Leg(leg.wwn) for leg in legs),
                    region_blocks=8192,
                    blocks=blocks,
                )
            )
        stripe = StripeObject(
            wwn=_object(next(numbers)),
            volume=VOLUME,
            children=tuple(mirror.wwn for mirror in mirrors),
            chunk_blocks=CHUNK_BLOCKS,
            blocks=blocks * WIDTH,
        )
        head = VolumeObject(
            wwn=VOLUME,
            name="v",
            root=stripe.wwn,
            layout="stripe-mirror",
            block_bytes=BLOCK_BYTES,
            blocks=stripe.blocks,
            created="2026-11-23T00:00:00Z",
        )
        self.objects = (head, stripe, *mirrors, *partitions)

    def _partition(self, number: int) -> PartitionObject:
        alu = Wwn(f"{0x5 << 60 | number:016x}")
        self.paths[alu] = self.folder / f"alu{number}"
        bitmap, data = Extent(MIB, MIB), Extent(2 * MIB, LEG_BYTES)
        return PartitionObject(wwn=_object(number), volume=VOLUME, alu=alu, extent=data, bitmap=bitmap)


def _object(number: int) -> Wwn:
    return Wwn(f"{0x6 << 124 | number:032x}")


async def open_volume(definition: Definition, engine: Engine, fresh: bool) -> Volume:
    """Open the files and the volume on them."""
    size_bytes = 2 * MIB + LEG_BYTES if fresh else None
    drivers = {alu: await engine.open(str(path), size_bytes=size_bytes) for alu, path in definition.paths.items()}
    logs = await _logs(definition.objects, drivers, engine, fresh)

    async def persist(changed: Sequence[AnyObject]) -> None:
        raise AssertionError(f"a leg failed: {changed}")

    volume = Volume(definition.objects, drivers, engine, logs, persist)
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
        volume = await open_volume(Definition(folder), engine, fresh)
        if volume.pin_reads():
            await volume.resynchronize()
        unit = LogicalUnit(volume, Identity(VOLUME))
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
