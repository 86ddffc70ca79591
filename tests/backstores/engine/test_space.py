"""Discard, zero, status and flush through the engine, and the storage that metadata sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstores.alu.base import AluDriver, ByteRun
from backstores.alu.memory import MemoryDriver
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from tests.support.engines import BACKENDS, noise, view, with_engine

SIZE = 1 << 20
PAGE = 4096
backends = pytest.mark.parametrize("choice", BACKENDS)
places = pytest.mark.parametrize("place", ["file", "direct", "memory"])


async def alu(engine: Engine, disk: Path, place: str) -> AluDriver:
    if place == "memory":
        return MemoryDriver(SIZE, immediate=False)
    return await engine.open(str(disk / "alu"), size_bytes=SIZE, direct=place == "direct")


@backends
@places
def test_status_follows_what_is_done(disk: Path, choice: BackendChoice, place: str) -> None:
    """R1: holes, written data, and discarded data again are told apart, and read as they should."""

    async def scenario(engine: Engine) -> None:
        driver = await alu(engine, disk, place)
        assert await engine.status(driver, 0, SIZE) == [ByteRun(0, SIZE, False)]
        await engine.write(driver, 2 * PAGE, [view(noise(8 * PAGE))])
        await engine.flush(driver)
        await engine.discard(driver, 4 * PAGE, 2 * PAGE)
        assert await engine.status(driver, PAGE, 11 * PAGE) == [
            ByteRun(PAGE, PAGE, False),
            ByteRun(2 * PAGE, 2 * PAGE, True),
            ByteRun(4 * PAGE, 2 * PAGE, False),
            ByteRun(6 * PAGE, 4 * PAGE, True),
            ByteRun(10 * PAGE, 2 * PAGE, False),
        ]
        await engine.zero(driver, 7 * PAGE, PAGE)
        model = bytearray(SIZE)
        model[2 * PAGE : 10 * PAGE] = noise(8 * PAGE)
        model[4 * PAGE : 6 * PAGE] = bytes(2 * PAGE)
        model[7 * PAGE : 8 * PAGE] = bytes(PAGE)
        into = view(bytes(SIZE))
        await engine.read(driver, 0, [into])
        assert into == model

    with_engine(choice, scenario)


@backends
@places
def test_storage_for_metadata(disk: Path, choice: BackendChoice, place: str) -> None:
    """M1: metadata code reads and writes bytes, and flushes, on any ALU."""

    async def scenario(engine: Engine) -> None:
        driver = await alu(engine, disk, place)
        storage = DriverStorage(engine, driver)
        await storage.write(PAGE, noise(PAGE))
        await storage.flush()
        assert await storage.read(0, 3 * PAGE) == bytes(PAGE) + noise(PAGE) + bytes(PAGE)
        assert storage.size_bytes == SIZE

    with_engine(choice, scenario)


def test_a_durable_write_survives_a_crash() -> None:
    """D1, FUA: what was written durably is there after a power cut, what was not is gone, what was flushed is there."""
    driver = MemoryDriver(SIZE)

    async def scenario(engine: Engine) -> None:
        await engine.write(driver, 0, [view(b"f" * 512)])
        await engine.flush(driver)
        await engine.write(driver, 512, [view(b"d" * 512)], durable=True)
        await engine.write(driver, 1024, [view(b"v" * 512)])
        driver.write_now(0, view(b"n" * 512))

    with_engine(BackendChoice.THREADS, scenario)
    driver.crash()
    assert driver.content[:1536] == b"f" * 512 + b"d" * 512 + bytes(512)
