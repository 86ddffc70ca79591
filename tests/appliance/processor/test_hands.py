"""What the hands of several storage processors make together: a volume whose tiers lie on different ones."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.session import Session
from backstores.objects import MIB
from tests.support.processors import processors

BLOCK = 512


async def write(host: Session, lba: int, data: bytes) -> None:
    await host.execute(0, transfer(WRITE_16, lba, len(data) // BLOCK), data_out=data)


async def read(host: Session, lba: int, blocks: int) -> bytes:
    return bytes(await host.execute(0, transfer(READ_16, lba, blocks), blocks * BLOCK))


@pytest.mark.parametrize("layout", ["linear", "stripe", "mirror", "stripe-mirror", "concat"])
def test_a_host_writes_to_first_tiers_on_other_storage_processors(tmp_path: Path, layout: str) -> None:
    """R12: the second tier is on sp3, which has no ALU; the first tiers are on sp1 and sp2."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3") as many:
            for number in range(4):
                await many.attach(("sp1", "sp2")[number % 2], tmp_path / f"a{number}")
            await many.make_master("sp1")
            objects = await many.create(layout)
            await many.serve(objects, ["sp3"])
            host = await many.log_in("sp3")
            dice = random.Random(7)
            model = bytearray(4 * MIB)
            for _ in range(60):
                blocks = dice.randint(1, 512)
                lba = dice.randint(0, len(model) // BLOCK - blocks)
                data = dice.randbytes(blocks * BLOCK)
                await write(host, lba, data)
                model[lba * BLOCK : lba * BLOCK + len(data)] = data
            for at in range(0, len(model), MIB):
                assert await read(host, at // BLOCK, MIB // BLOCK) == model[at : at + MIB]
            await host.close()

    asyncio.run(scenario())
