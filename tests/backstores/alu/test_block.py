"""Block devices: sizes by ioctl, past the page cache, O_EXCL, and the same promises as files."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstores.alu.base import AluError, ByteRun, Kind
from backstores.alu.opening import open_alu
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from tests.support.engines import BACKENDS, loop_device, mounted, noise, view, with_engine

pytestmark = pytest.mark.root
SIZE = 4 << 20


@pytest.fixture(params=[512, 4096], ids=["512-sectors", "4096-sectors"])
def sector_bytes(request: pytest.FixtureRequest) -> int:
    assert isinstance(request.param, int)
    return request.param


@pytest.fixture
def device(disk: Path, sector_bytes: int) -> Iterator[str]:
    with loop_device(disk / "backing", SIZE, sector_bytes) as path:
        yield path


@pytest.mark.parametrize(("direct", "is_direct"), [(None, True), (True, True), (False, False)], ids=str)
def test_what_the_device_says(device: str, sector_bytes: int, direct: bool | None, is_direct: bool) -> None:
    """R1: size and sectors come from the device; past the page cache unless told otherwise."""
    driver = open_alu(device, direct=direct)
    driver.close()
    assert (driver.kind, driver.size_bytes, driver.sector_bytes) == (Kind.BLOCK, SIZE, sector_bytes)
    assert driver.physical_bytes >= sector_bytes
    assert driver.direct == is_direct


def test_part_of_a_page_is_not_used(disk: Path) -> None:
    with loop_device(disk / "backing", SIZE + 512) as path:
        driver = open_alu(path)
        driver.close()
    assert driver.size_bytes == SIZE


def test_another_size_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=f"is a device of {SIZE} bytes, not 8192"):
        open_alu(device, size_bytes=8192)
    open_alu(device, size_bytes=SIZE).close()


def test_in_use_twice(device: str) -> None:
    driver = open_alu(device)
    with pytest.raises(UsageError, match=f"{device} is in use"):
        open_alu(device)
    driver.close()
    open_alu(device).close()


def test_in_use_by_a_mount(disk: Path) -> None:
    """A device with a mounted file system is refused."""
    with loop_device(disk / "backing", 16 << 20) as path:
        subprocess.run(["mkfs.ext4", "-q", path], check=True)
        with mounted(disk / "mounted", path), pytest.raises(UsageError, match="is in use: mounted"):
            open_alu(path)


@pytest.mark.parametrize("choice", BACKENDS)
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
def test_every_operation(device: str, sector_bytes: int, choice: BackendChoice, direct: bool) -> None:
    """R1: reads, writes, zeroing, discard and flush do on a device what they do on a file."""
    model = bytearray(noise(SIZE))

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(device, direct=direct)
        await engine.write(driver, 0, [memoryview(bytes(model))])
        await engine.write(driver, sector_bytes, [view(noise(sector_bytes, 2))], durable=True)
        model[sector_bytes : 2 * sector_bytes] = noise(sector_bytes, 2)
        await engine.zero(driver, 5 * sector_bytes, 1 << 20)
        model[5 * sector_bytes : 5 * sector_bytes + (1 << 20)] = bytes(1 << 20)
        await engine.discard(driver, (2 << 20) + sector_bytes, 1 << 20)
        model[(2 << 20) + sector_bytes : (3 << 20) + sector_bytes] = bytes(1 << 20)
        await engine.flush(driver)
        into = view(bytes(SIZE + 7))[7:]
        await engine.read(driver, 0, [into])
        assert into == model
        assert await engine.status(driver, 512, 8192) == [ByteRun(512, 8192, True)]

    with_engine(choice, scenario)


@pytest.mark.parametrize("choice", BACKENDS)
def test_part_of_a_sector(disk: Path, choice: BackendChoice) -> None:
    """Past the page cache a device moves whole sectors only; less is an error, not a rewrite of its neighbours."""

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(path, direct=True)
        with pytest.raises(AluError, match="Invalid argument"):
            await engine.write(driver, 512, [view(noise(512))])
        into = view(bytes(4096))
        await engine.read(driver, 0, [into])
        assert into == bytes(4096)

    with loop_device(disk / "backing", SIZE, 4096) as path:
        with_engine(choice, scenario)


def test_now_through_the_page_cache(device: str) -> None:
    """A buffered device serves its cache in the event loop; a direct one never does."""

    async def scenario(engine: Engine) -> None:
        page = view(noise(4096))
        direct = await engine.open(device, direct=True)
        assert not direct.write_now(0, page)
        assert not direct.read_now(0, page)
        await engine.release(direct)
        buffered = await engine.open(device, direct=False)
        into = view(bytes(4096))
        assert buffered.write_now(4096, page)
        assert buffered.read_now(4096, into)
        assert into == page
        await asyncio.sleep(0)

    with_engine(BackendChoice.AUTO, scenario)
