"""Two writers of different epochs at once, in two processes: the older one is refused, always (M5)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from backstores.metadata.store import AluMetadata
from tests.support.metadata import ALU, SIZE, SUSID, volume
from tests.support.other_writer import unlocked

OURS = volume(3, 4, called="ours")


@pytest.mark.parametrize("commits", [1, 2, 3, 5, 8, 13])
def test_the_older_one_is_refused_and_loses_nothing_that_it_acknowledged(tmp_path: Path, commits: int) -> None:
    """M5, M6: the newer one fences the ALU in the midst of the other's commits, and goes on from what it finds."""
    path = tmp_path / "disk.img"
    with path.open("wb") as handle:
        handle.truncate(SIZE)

    async def claim() -> None:
        async with unlocked(str(path)) as metadata:
            await metadata.format(SUSID, ALU)

    asyncio.run(claim())
    command = [sys.executable, "-m", "tests.support.other_writer", str(path), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as older:
        assert older.stdout is not None
        acknowledged = [int(older.stdout.readline()) for _ in range(commits)]

        async def take_over() -> AluMetadata:
            async with unlocked(str(path)) as metadata:
                await metadata.inspect(SUSID)
                await metadata.fence(2)
                found = metadata.generation
                for _ in range(5):
                    await metadata.commit((OURS,), 2)
                    await metadata.commit((volume(3, 4, called="ours", generation=2),), 2)
                await metadata.commit((OURS,), 2)
                *rest, end = older.communicate()[0].split()
                acknowledged.extend(map(int, rest))
                assert older.returncode == 0
                assert end == "fenced"
                assert acknowledged == list(range(acknowledged[0], found + 1)), "all that it acknowledged was found"
                return metadata

        newer = asyncio.run(take_over())

    async def look() -> None:
        async with unlocked(str(path)) as metadata:
            found = await metadata.inspect(SUSID)
            assert found.findings == ()
            assert (metadata.objects, metadata.generation, metadata.epoch) == ((OURS,), newer.generation, 2)

    asyncio.run(look())
