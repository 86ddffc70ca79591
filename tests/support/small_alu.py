"""Small ALUs with something of everything, for what looks at ALUs from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from backstores.metadata.bitmap import Geometry, Loaded, Place, Stamp
from backstores.metadata.bitmaps import Renewal, legs
from backstores.metadata.gsstore import GsDisk, GsStore
from backstores.metadata.steps import Write
from backstores.metadata.store import AluMetadata, carry_out
from backstores.objects import AnyObject
from backstores.wwn import Wwn, new_device_wwn
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, clock, mirror, partition, volume
from tests.support.recording import Image, RecordingStorage, read

FIRST: Final[tuple[AnyObject, ...]] = (volume(2, 4), partition(4, 8, bitmap=9))
SECOND: Final[tuple[AnyObject, ...]] = (
    volume(2, 3),
    mirror(3, [4, 5]),
    partition(4, 8, bitmap=9),
    partition(5, 10, bitmap=11),
)


def clean_bitmaps(objects: Iterable[AnyObject], alu: Wwn) -> list[Write]:
    """Say how a new mirror's bitmaps get onto one of its ALUs."""
    return [
        write
        for leg in legs(objects)
        if leg.partition.alu == alu
        for write in Renewal(Geometry.of(leg.mirror), Place.of(leg.partition), Loaded(frozenset(), Stamp())).writes(0)
    ]


def small_alu(objects: tuple[AnyObject, ...] = SECOND) -> Image:
    """Make one: claimed, committed to twice, the only member of its GS set."""
    storage = RecordingStorage(SIZE)

    async def go() -> None:
        metadata = AluMetadata(storage, SIZE, clock())
        await metadata.format(SUSID, ALU)
        await metadata.commit(FIRST)
        await metadata.commit(objects)
        await carry_out(storage, clean_bitmaps(objects, ALU))
        disk = GsDisk(ALU, "/disks/a", "disk", storage, metadata, metadata.generation)
        await GsStore(clock()).start([disk])

    asyncio.run(go())
    return storage.image


def three_alus() -> list[Image]:
    """Make three, all members of the GS set; a mirror has its legs on the first two."""
    names = [ALU, OTHER_ALU, new_device_wwn(lambda bits: 3)]
    storages = [RecordingStorage(SIZE) for _ in names]

    async def go() -> None:
        disks = []
        shared = (volume(2, 3), mirror(3, [4, 5]))
        members = (partition(4, 8, alu=names[0], bitmap=9), partition(5, 8, alu=names[1], bitmap=9))
        for number, (storage, name) in enumerate(zip(storages, names, strict=True)):
            metadata = AluMetadata(storage, SIZE, clock())
            await metadata.format(SUSID, name)
            if number < len(members):
                await metadata.commit([*shared, members[number]])
                await carry_out(storage, clean_bitmaps([*shared, *members], name))
            disks.append(GsDisk(name, f"/disks/{number}", str(number), storage, metadata, metadata.generation))
        await GsStore(clock()).start(disks)

    asyncio.run(go())
    return [storage.image for storage in storages]


def restarted(images: Sequence[Image]) -> list[Image]:
    """Give ALUs after one more start of their appliance."""
    storages = [RecordingStorage(SIZE, dict(image)) for image in images]

    async def go() -> None:
        disks = []
        for number, storage in enumerate(storages):
            metadata = AluMetadata(storage, SIZE, clock())
            await metadata.inspect(SUSID)
            alu = metadata.label.alu
            disks.append(GsDisk(alu, f"/disks/{number}", str(number), storage, metadata, metadata.generation))
        await GsStore(clock()).start(disks)

    asyncio.run(go())
    return [storage.image for storage in storages]


def changed(image: Image, change: Callable[[AluMetadata], Awaitable[object]]) -> Image:
    """Give an ALU after a change by its appliance."""
    storage = RecordingStorage(SIZE, dict(image))

    async def go() -> None:
        metadata = AluMetadata(storage, SIZE, clock())
        await metadata.inspect(SUSID)
        await change(metadata)

    asyncio.run(go())
    return storage.image


def stored(image: Image, path: Path) -> Path:
    """Put an image into a file."""
    path.write_bytes(read(image, 0, SIZE))
    return path
