"""An ALU whose cable is pulled fails in every way, and stays locked (R19)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.processor.pulled import Pulled
from backstores.alu.base import AluError
from backstores.alu.descriptor import DescriptorDriver
from backstores.engine.engine import Engine
from backstores.errors import UsageError

BLOCK = 4096


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "alu.img"
    path.write_bytes(b"x" * 64 * BLOCK)
    return str(path)


def test_everything_fails_until_it_is_plugged_in(file: str) -> None:
    async def run() -> None:
        async with Engine() as engine:
            driver = await engine.open(file)
            assert isinstance(driver, DescriptorDriver)
            pulled, into = Pulled(driver), bytearray(BLOCK)
            assert not driver.read_now(0, memoryview(into))
            assert not driver.write_now(0, memoryview(into))
            for attempt in (
                engine.read(driver, 0, [memoryview(into)]),
                engine.write(driver, 0, [memoryview(into)]),
                engine.write(driver, 0, [memoryview(into)], durable=True),
                engine.flush(driver),
            ):
                with pytest.raises(AluError):
                    await attempt
            pulled.plug_in()
            await engine.read(driver, 0, [memoryview(into)])
            assert into == b"x" * BLOCK

    asyncio.run(run())


def test_nobody_else_gets_it_meanwhile(file: str) -> None:
    async def run() -> None:
        async with Engine() as engine, Engine() as other:
            driver = await engine.open(file)
            assert isinstance(driver, DescriptorDriver)
            pulled = Pulled(driver)
            with pytest.raises(UsageError):
                await other.open(file)
            pulled.plug_in()

    asyncio.run(run())
