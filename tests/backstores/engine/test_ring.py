"""What the ring does when the kernel takes less than it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from backstores.engine.backend import Held
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from tests.support.engines import BACKENDS, noise, view, with_engine

pytestmark = pytest.mark.parametrize("choice", BACKENDS[1:])
SIZE = 1 << 20


class FullRing:
    """A ring that takes nothing, and counts what it was offered."""

    def __init__(self) -> None:
        self.offered: list[str] = []

    def readv(self, fd: int, views: Sequence[memoryview], offset: int, future: Held) -> bool:
        self.offered.append("readv")
        return False

    def writev(self, fd: int, views: Sequence[memoryview], offset: int, flags: int, future: Held) -> bool:
        self.offered.append("writev")
        return False

    def fdatasync(self, fd: int, future: Held) -> bool:
        self.offered.append("fdatasync")
        return False


def test_threads_take_what_does_not_fit(disk: Path, choice: BackendChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullRing()

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE)
        with monkeypatch.context() as patch:
            patch.setattr(engine._backend, "_ring", full)
            into = view(bytes(512))
            await engine.write(driver, 512, [view(noise(512))], durable=True)
            await engine.flush(driver)
            await engine.read(driver, 512, [into])
        assert into == noise(512)

    with_engine(choice, scenario)
    assert full.offered == ["writev", "fdatasync", "readv"]


class ShyRing:
    """A real ring that has to be asked twice before it submits."""

    def __init__(self, ring: object) -> None:
        self._ring = ring
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._ring, name)

    def submit(self) -> bool:
        self.asked += 1
        return self.asked % 2 == 0 and bool(self._ring.submit())  # type: ignore[attr-defined]


def test_submitting_is_tried_again(disk: Path, choice: BackendChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE)
        shy = ShyRing(engine._backend._ring)  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(engine._backend, "_ring", shy)
            await engine.write(driver, 0, [view(noise(512))])
        assert shy.asked == 2

    with_engine(choice, scenario)


def test_more_than_the_ring_holds(disk: Path, choice: BackendChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring with two entries carries a hundred transfers that come at once."""
    monkeypatch.setattr("backstores.engine.ring.ENTRIES", 2)

    async def scenario(engine: Engine) -> None:
        driver = await engine.open(str(disk / "alu"), size_bytes=SIZE, direct=True)
        backs = [view(bytes(512)) for _ in range(100)]
        await engine.write(driver, 0, [view(noise(51200))])
        await asyncio.gather(*(engine.read(driver, at * 512, [back]) for at, back in enumerate(backs)))
        assert b"".join(backs) == noise(51200)

    with_engine(choice, scenario)
