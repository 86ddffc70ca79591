"""Metadata on a real file, through the driver and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.metadata.inspection import Ownership
from backstores.metadata.layout import FRONT_LABELS
from backstores.metadata.store import AluMetadata
from tests.support.metadata import ALU, SIZE, SUSID, partition, volume

Use = Callable[[AluMetadata], Awaitable[None]]
OBJECTS = (volume(2, 4), partition(4, 8, bitmap=9))


def on_file(path: Path, use: Use, *, direct: bool | None) -> None:
    """Open the file, use its metadata, close it."""

    async def go() -> None:
        async with Engine() as engine:
            driver = await engine.open(str(path), size_bytes=SIZE, direct=direct)
            await use(AluMetadata(DriverStorage(engine, driver), driver.size_bytes))

    asyncio.run(go())


async def claim_and_commit(metadata: AluMetadata) -> None:
    assert (await metadata.inspect(SUSID)).ownership is Ownership.BLANK
    await metadata.format(SUSID, ALU)
    await metadata.commit(OBJECTS)


async def find_objects(metadata: AluMetadata) -> None:
    assert (await metadata.inspect(SUSID)).ownership is Ownership.OWNED
    assert metadata.objects == OBJECTS


@pytest.mark.parametrize("direct", [None, True], ids=["as-the-driver-chooses", "direct"])
def test_objects_survive_closing(tmp_path: Path, direct: bool | None) -> None:
    """R1, R3: with O_DIRECT, too, every access is aligned well enough; the file stays sparse."""
    path = tmp_path / "disk0.img"
    on_file(path, claim_and_commit, direct=direct)
    on_file(path, find_objects, direct=direct)
    assert path.stat().st_blocks * 512 < SIZE // 8


def test_a_file_with_a_lost_label_is_still_found(tmp_path: Path) -> None:
    """R1: on a real file the second copy serves."""
    path = tmp_path / "disk0.img"
    on_file(path, claim_and_commit, direct=None)
    with path.open("r+b") as file:
        file.seek(FRONT_LABELS[0])
        file.write(bytes(512))
    on_file(path, find_objects, direct=None)
