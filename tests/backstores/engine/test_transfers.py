"""Reads and writes of any shape move exactly their bytes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.alu.base import AluOp
from backstores.alu.memory import MemoryDriver
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import VIEWS_LIMIT, Engine
from tests.support.engines import BACKENDS, disk_folder, noise, view, with_engine

SIZE = 1 << 20
SECTOR = 512

backends = pytest.mark.parametrize("choice", BACKENDS)
directness = pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])


def split(whole: memoryview, cuts: Sequence[int]) -> list[memoryview]:
    """Cut a view in pieces; cuts that fall together make empty pieces."""
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return [whole[begin:end] for begin, end in itertools.pairwise(edges)]


@st.composite
def transfers(draw: st.DrawFn) -> tuple[bool, int, int, list[int]]:
    """A write or a read of whole sectors, and where its memory is cut."""
    first = draw(st.integers(0, SIZE // SECTOR - 1))
    sectors = draw(st.integers(1, min(200, SIZE // SECTOR - first)))
    cuts = draw(st.lists(st.integers(0, sectors * SECTOR), max_size=5))
    return draw(st.booleans()), first * SECTOR, sectors * SECTOR, cuts


@backends
@directness
@settings(max_examples=30, deadline=None)
@given(st.lists(transfers(), min_size=1, max_size=12))
def test_alike_a_byte_array(
    choice: BackendChoice, direct: bool, script: list[tuple[bool, int, int, list[int]]]
) -> None:
    """R1: whatever is written, cut in whatever pieces, is read back, past the page cache too."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(f"{folder}/alu", size_bytes=SIZE, direct=direct)
        model = bytearray(SIZE)
        for turn, (writes, offset, length, cuts) in enumerate(script):
            if writes:
                content = noise(length, turn + 1)
                model[offset : offset + length] = content
                await engine.write(driver, offset, split(view(content), cuts), durable=turn % 2 == 0)
            else:
                into = view(bytes(length))
                await engine.read(driver, offset, split(into, cuts))
                assert into == model[offset : offset + length]
        everything = view(bytes(SIZE))
        await engine.read(driver, 0, [everything])
        assert everything == model

    with disk_folder() as folder:
        with_engine(choice, scenario)


@pytest.fixture(params=[512, 4096], ids=["512-sectors", "4096-sectors"])
def short_alu(request: pytest.FixtureRequest) -> MemoryDriver:
    driver = MemoryDriver(SIZE, immediate=False)
    driver.short_bytes = request.param
    return driver


@pytest.mark.parametrize("durable", [False, True], ids=["write", "durable"])
def test_short_transfers_are_continued(short_alu: MemoryDriver, durable: bool) -> None:
    """A transfer that moves less than asked goes on where it stopped, in the middle of a view too."""
    content = noise(40_000)

    async def scenario(engine: Engine) -> None:
        into = view(bytes(40_000))
        await engine.write(short_alu, 4096, split(view(content), [10, 3000, 3000, 9999]), durable)
        await engine.read(short_alu, 4096, split(into, [1, 512, 513, 20_000]))
        assert into == content

    with_engine(BackendChoice.THREADS, scenario)
    writes = short_alu.seen(AluOp.WRITE)
    assert len(writes) == -(-40_000 // (short_alu.short_bytes or 1))
    assert {entry.durable for entry in writes} == {durable}


@backends
@directness
def test_more_views_than_one_call_takes(disk: Path, choice: BackendChoice, direct: bool) -> None:
    """A list of views longer than IOV_MAX goes out in several calls."""
    content = noise(SECTOR * (2 * VIEWS_LIMIT + 3))

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=2 << 20, direct=direct)
        cuts = range(SECTOR, len(content), SECTOR)
        into = view(bytes(len(content)))
        await engine.write(driver, SECTOR, split(view(content), cuts))
        await engine.read(driver, SECTOR, split(into, cuts))
        assert into == content

    with_engine(choice, scenario)


@backends
@pytest.mark.parametrize("skew", [0, 1, 48, 511], ids=lambda skew: f"skewed-by-{skew}")
def test_direct_takes_any_memory(disk: Path, choice: BackendChoice, skew: int) -> None:
    """O_DIRECT from memory that begins anywhere, longer than a bounce buffer, and from bytes that are read-only."""
    length = (5 << 19) + SECTOR
    content = noise(length)

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=4 << 20, direct=True)
        into = view(bytes(length + skew))[skew:]
        await engine.write(driver, SECTOR, [memoryview(bytes(skew) + content)[skew:]])
        await engine.read(driver, SECTOR, [into])
        assert into == content

    with_engine(choice, scenario)


@backends
def test_many_at_once(disk: Path, choice: BackendChoice) -> None:
    """Far more transfers than an ALU's depth end, each with its own bytes."""
    content = noise(SIZE)

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE, direct=True)
        pieces = [view(content[at : at + SECTOR]) for at in range(0, SIZE, SECTOR)]
        await asyncio.gather(*(engine.write(driver, at * SECTOR, [piece]) for at, piece in enumerate(pieces)))
        backs = [view(bytes(SECTOR)) for _ in pieces]
        await asyncio.gather(*(engine.read(driver, at * SECTOR, [back]) for at, back in enumerate(backs)))
        assert b"".join(backs) == content

    with_engine(choice, scenario)


@backends
def test_nothing_to_move(disk: Path, choice: BackendChoice) -> None:
    """Empty views, and none at all, end at once, at the very end of the ALU too."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE)
        for views in ([], [view(b"")], [view(b""), view(b"")]):
            await engine.read(driver, SIZE, views)
            await engine.write(driver, SIZE, views)
        await engine.discard(driver, SIZE, 0)
        await engine.zero(driver, SIZE, 0)
        assert await engine.status(driver, SIZE, 0) == []

    with_engine(choice, scenario)
