"""A process that changes the metadata of an ALU again and again, until it is told that it is another's turn.

    python -m tests.support.other_writer PATH EPOCH

prints the generation of each commit that was acknowledged, and "fenced" when it was refused. It opens the ALU
without the lock that keeps appliances apart: only what is on the ALU stands between the two.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backstores.alu.base import Kind
from backstores.alu.descriptor import DescriptorDriver
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.metadata.mdr import FencedError
from backstores.metadata.store import AluMetadata
from tests.support.metadata import SUSID, volume


@asynccontextmanager
async def unlocked(path: str) -> AsyncIterator[AluMetadata]:
    """Open the metadata of an ALU that somebody else may have open."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    driver = DescriptorDriver(
        path,
        Kind.FILE,
        fd,
        size_bytes=os.fstat(fd).st_size,
        sector_bytes=512,
        physical_bytes=4096,
        direct=False,
        holes=True,
    )
    async with Engine() as engine:
        yield AluMetadata(DriverStorage(engine, driver), driver.size_bytes)


async def write(path: str, epoch: int) -> None:
    """Commit, and say so, until it is refused."""
    async with unlocked(path) as metadata:
        await metadata.inspect(SUSID)
        await metadata.fence(epoch)
        try:
            while True:
                await metadata.commit((volume(1, 2, generation=metadata.generation),), epoch)
                print(metadata.generation, flush=True)
        except FencedError:
            print("fenced", flush=True)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2])))
