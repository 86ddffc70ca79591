"""The metadata of one ALU over a disk in memory."""

from __future__ import annotations

import asyncio

from backstores.metadata.inspection import Ownership
from backstores.metadata.store import AluMetadata
from tests.support.metadata import ALU, SIZE, SUSID, clock
from tests.support.recording import RecordingStorage


def opened(storage: RecordingStorage, susid: str = SUSID) -> tuple[AluMetadata, Ownership]:
    """Look at an ALU."""

    async def go() -> tuple[AluMetadata, Ownership]:
        metadata = AluMetadata(storage, storage.size_bytes, clock())
        return metadata, (await metadata.inspect(susid)).ownership

    return asyncio.run(go())


def claimed(size: int = SIZE) -> tuple[RecordingStorage, AluMetadata]:
    """Make an ALU that has been claimed."""
    storage = RecordingStorage(size)
    metadata = AluMetadata(storage, size, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    return storage, metadata
