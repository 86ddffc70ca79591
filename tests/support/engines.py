"""Engines and ALUs for tests: each backend that works here, and loop devices where root may make them."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest

from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine

T = TypeVar("T")

_NO_RING = importlib.util.find_spec("backstores.engine._ring") is None
BACKENDS = [
    pytest.param(BackendChoice.THREADS, id="threads"),
    pytest.param(
        BackendChoice.IO_URING,
        id="io_uring",
        marks=pytest.mark.skipif(_NO_RING, reason="the io_uring extension is not built"),
    ),
]


def with_engine(choice: BackendChoice, scenario: Callable[[Engine], Awaitable[T]]) -> T:
    """Run a scenario in a new event loop with an engine that is closed at the end."""

    async def run() -> T:
        async with Engine(choice) as engine:
            return await scenario(engine)

    return asyncio.run(run())


def view(content: bytes) -> memoryview:
    """Put bytes where they may be overwritten."""
    return memoryview(bytearray(content))


def noise(length: int, seed: int = 1) -> bytes:
    """Give bytes that no two places share."""
    return b"".join((seed << 32 | word).to_bytes(8, "little") for word in range(-(-length // 8)))[:length]


@contextmanager
def disk_folder() -> Iterator[Path]:
    """Make a folder on a disk: /tmp is in memory on some systems, and O_DIRECT or eviction mean nothing there."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@contextmanager
def loop_device(backing: Path, size_bytes: int, sector_bytes: int = 512) -> Iterator[str]:
    """Make a loop device over a new file; skips where that can't be done."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    backing.touch(0o600)
    os.truncate(backing, size_bytes)
    command = ["losetup", "--find", "--show", "--sector-size", str(sector_bytes), str(backing)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount a file system; skips where that can't be done."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder.mkdir()
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
