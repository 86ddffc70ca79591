"""ALUs that must not be touched are read to their last sector, and written only by a driver made for that (R5)."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from backstores.alu.base import AluError
from backstores.alu.opening import open_alu
from backstores.alu.untouched import open_guard, open_writable
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from tests.support.engines import loop_device, noise, view, with_engine

ODD = 8 * 4096 + 3 * 512  # whole sectors, but no whole pages


def make(path: Path, size_bytes: int = ODD) -> str:
    path.write_bytes(noise(size_bytes))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_guard_reads_all_of_it_to_the_last_sector(tmp_path: Path) -> None:
    """R5: a size that is no multiple of 4096 is kept whole."""
    make(tmp_path / "old.img")

    async def scenario(engine: Engine) -> None:
        guard = await engine.open_guard(str(tmp_path / "old.img"))
        content = bytearray(512)
        await engine.read(guard, ODD - 512, (memoryview(content),))
        assert guard.size_bytes == ODD
        assert content == noise(ODD)[-512:]

    with_engine(BackendChoice.THREADS, scenario)


@pytest.mark.parametrize("what", ["write", "zero", "discard", "write_now"])
def test_a_guard_can_not_write_whatever_is_asked_of_it(tmp_path: Path, what: str) -> None:
    """R5: the kernel refuses, so that no mistake above it can touch the data."""
    before = make(tmp_path / "old.img")

    async def scenario(engine: Engine) -> None:
        guard = await engine.open_guard(str(tmp_path / "old.img"))
        if what == "write_now":
            assert not guard.write_now(0, view(bytes(4096)))
            return
        change = engine.write(guard, 0, (view(bytes(4096)),)) if what == "write" else getattr(engine, what)(guard, 0, 8)
        with pytest.raises(AluError, match="Bad file descriptor"):
            await change

    with_engine(BackendChoice.THREADS, scenario)
    assert hashlib.sha256((tmp_path / "old.img").read_bytes()).hexdigest() == before


def test_the_driver_behind_a_guard_writes_what_the_guard_reads(tmp_path: Path) -> None:
    make(tmp_path / "old.img")

    async def scenario(engine: Engine) -> None:
        guard = await engine.open_guard(str(tmp_path / "old.img"))
        os.rename(tmp_path / "old.img", tmp_path / "renamed.img")  # it goes by the file, not by the path
        make(tmp_path / "old.img", 4096)
        driver = await engine.open_writable(guard)
        await engine.write(driver, ODD - 512, (view(b"x" * 512),))
        content = bytearray(512)
        await engine.read(guard, ODD - 512, (memoryview(content),))
        assert content == b"x" * 512

    with_engine(BackendChoice.THREADS, scenario)
    assert (tmp_path / "renamed.img").stat().st_size == ODD
    assert (tmp_path / "old.img").read_bytes() == noise(4096)


def test_the_lock_lasts_as_long_as_the_guard(tmp_path: Path) -> None:
    """R1: two appliances never have one ALU open, whichever driver goes first."""
    make(tmp_path / "old.img")
    guard = open_guard(str(tmp_path / "old.img"))
    open_writable(guard).close()
    for opener in (open_alu, open_guard):
        with pytest.raises(UsageError, match="is in use by another appliance"):
            opener(str(tmp_path / "old.img"))
    guard.close()
    open_alu(str(tmp_path / "old.img")).close()


@pytest.mark.parametrize("size_bytes", [0, 512, 4095, ODD + 1], ids=str)
def test_a_file_without_whole_sectors_is_refused(tmp_path: Path, size_bytes: int) -> None:
    """R5: the last bytes could be shown by no volume; the line says the limit."""
    make(tmp_path / "old.img", size_bytes)
    for _ in range(2):  # a lock that was kept would change what is said
        with pytest.raises(
            UsageError, match=f"has {size_bytes} bytes; a legacy alu has 4096 at least, in whole sectors"
        ):
            open_guard(str(tmp_path / "old.img"))


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_guard(str(tmp_path / "old.img"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_block_device_is_shown_to_its_last_sector(disk: Path) -> None:
    """R5: and stays kept out of other hands while the guard is open."""
    with loop_device(disk / "backing", (1 << 20) + 512) as path:
        guard = open_guard(path)
        assert guard.size_bytes == (1 << 20) + 512
        with pytest.raises(UsageError, match="is in use"):
            open_alu(path)

        async def scenario() -> None:
            async with Engine() as engine:
                with pytest.raises(AluError):
                    await engine.write(guard, 0, (view(bytes(4096)),))
                driver = await engine.open_writable(guard)
                await engine.write(driver, 1 << 20, (view(b"x" * 512),))
                await engine.flush(driver)

        asyncio.run(scenario())
        guard.close()
    assert (disk / "backing").read_bytes()[-512:] == b"x" * 512
