"""A small ALU with something of everything, for what looks at ALUs from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from backstores.metadata.gsstore import GsDisk, GsStore
from backstores.metadata.store import AluMetadata
from backstores.objects import AnyObject
from tests.support.metadata import ALU, SIZE, SUSID, clock, mirror, partition, volume
from tests.support.recording import Image, RecordingStorage, read

FIRST: Final[tuple[AnyObject, ...]] = (volume(2, 4), partition(4, 8, bitmap=9))
SECOND: Final[tuple[AnyObject, ...]] = (
    volume(2, 3),
    mirror(3, [4, 5]),
    partition(4, 8, bitmap=9),
    partition(5, 10, bitmap=11),
)


def small_alu(objects: tuple[AnyObject, ...] = SECOND) -> Image:
    """Make one: claimed, committed to twice, the only member of its GS set."""
    storage = RecordingStorage(SIZE)

    async def go() -> None:
        metadata = AluMetadata(storage, SIZE, clock())
        await metadata.format(SUSID, ALU)
        await metadata.commit(FIRST)
        await metadata.commit(objects)
        disk = GsDisk(ALU, "/disks/a", "disk", storage, metadata, metadata.generation)
        await GsStore(clock()).start([disk])

    asyncio.run(go())
    return storage.image


def stored(image: Image, path: Path) -> Path:
    """Put an image into a file."""
    path.write_bytes(read(image, 0, SIZE))
    return path
