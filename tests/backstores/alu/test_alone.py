"""A range of an ALU that one task of one process has at a time (M5)."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backstores.alu.alone import Alone
from backstores.alu.base import AluError
from backstores.engine.choice import BackendChoice, make_backend

HOLD = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi0q", fcntl.F_WRLCK, 0, 4096, 4096, 0))
print("locked", flush=True)
input()
"""


def made(path: Path) -> int:
    path.write_bytes(bytes(16384))
    return os.open(path, os.O_RDWR)


def test_two_tasks_take_turns(tmp_path: Path) -> None:
    """The kernel would let both pass: its lock is the descriptor's."""

    async def scenario() -> list[str]:
        alone = Alone(made(tmp_path / "a"), "a", make_backend(BackendChoice.AUTO))
        seen: list[str] = []

        async def task(name: str) -> None:
            async with alone.hold(4096, 4096):
                seen.append(f"{name} begins")
                await asyncio.sleep(0)
                seen.append(f"{name} ends")

        await asyncio.gather(task("one"), task("other"))
        return seen

    assert asyncio.run(scenario()) == ["one begins", "one ends", "other begins", "other ends"]


def test_two_descriptors_of_one_process_take_turns(tmp_path: Path) -> None:
    """Closing one of them would drop a lock that belonged to the process."""
    path = tmp_path / "a"
    first, second = made(path), os.open(path, os.O_RDWR)

    async def scenario() -> None:
        backend = make_backend(BackendChoice.AUTO)
        one, other = Alone(first, "a", backend), Alone(second, "a", backend)
        async with one.hold(4096, 4096):
            os.close(os.open(path, os.O_RDWR))
            waiting = asyncio.ensure_future(enter(other))
            async with Alone(os.open(path, os.O_RDWR), "a", backend).hold(0, 4096):  # beside it nobody waits
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not waiting.done()
        await waiting

    async def enter(alone: Alone) -> None:
        async with alone.hold(4096, 4096):
            pass

    asyncio.run(scenario())


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    fd = made(path)

    async def scenario() -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            alone = Alone(fd, "a", make_backend(BackendChoice.AUTO))
            entered = asyncio.Event()

            async def enter() -> None:
                async with alone.hold(4096, 4096):
                    entered.set()

            waiting = asyncio.ensure_future(enter())
            await asyncio.sleep(0)
            assert not entered.is_set()
            other.stdin.write(b"\n")
            other.stdin.flush()
            await waiting
            assert entered.is_set()

    asyncio.run(scenario())


def test_a_file_system_without_such_locks_is_told(tmp_path: Path) -> None:
    """A descriptor that may not be written stands for it."""
    path = tmp_path / "a"
    os.close(made(path))
    fd = os.open(path, os.O_RDONLY)

    async def scenario() -> None:
        alone = Alone(fd, "a", make_backend(BackendChoice.AUTO))
        with pytest.raises(AluError, match="lock at byte 4096 of a") as caught:
            async with alone.hold(4096, 4096):
                raise AssertionError("it was let in")
        assert caught.value.errno == errno.EBADF

    asyncio.run(scenario())
