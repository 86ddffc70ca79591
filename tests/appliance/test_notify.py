"""What the service manager is told, by a socket of our own in its place."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.notify import ALIVE, READY, STOPPING, Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket as systemd's; its address is in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(10)
        yield found


def environment(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_states_reach_it_in_one_datagram(manager: socket.socket) -> None:
    Notifier(environment(manager)).say(READY, "STATUS=serving")
    assert manager.recv(100) == b"READY=1\nSTATUS=serving"


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses an abstract address
        manager.settimeout(10)
        address = manager.getsockname()
        Notifier({"NOTIFY_SOCKET": "@" + address[1:].decode()}).say(STOPPING)
        assert manager.recv(100) == STOPPING.encode()


@pytest.mark.parametrize("values", [{}, {"NOTIFY_SOCKET": "/nonexistent/socket"}], ids=["unset", "nobody there"])
def test_without_a_manager_nothing_happens(values: dict[str, str]) -> None:
    Notifier(values).say(READY)


def test_the_watchdog_hears_of_us_while_we_turn(manager: socket.socket) -> None:
    async def scenario() -> None:
        async with Notifier(environment(manager, WATCHDOG_USEC="20000")).watched():
            for _ in range(3):
                assert await asyncio.to_thread(manager.recv, 100) == ALIVE.encode()

    asyncio.run(scenario())


@pytest.mark.parametrize("usec", ["", "0", "soon"], ids=["unset", "zero", "no number"])
def test_without_a_watchdog_there_is_no_beat(manager: socket.socket, usec: str) -> None:
    assert Notifier(environment(manager, WATCHDOG_USEC=usec)).interval_s is None
