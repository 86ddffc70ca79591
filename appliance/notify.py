"""Tells the service manager how we are: systemd's sd_notify, which is a datagram to a socket it names.

Without NOTIFY_SOCKET in the environment nobody wants to know, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"


class Notifier:
    """The way to the service manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte that an abstract address begins with.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = environment.get("WATCHDOG_USEC", "")
        self.interval_s = int(watchdog) / 1e6 / 2 if watchdog.isdigit() and int(watchdog) else None

    def say(self, *states: str) -> None:
        """Send states. A service manager that can't be reached is no reason to stop serving."""
        if not self._address:
            return
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way,
            contextlib.suppress(OSError),
        ):
            way.setblocking(False)
            way.sendto("\n".join(states).encode(), self._address)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Say twice in each watchdog interval that the loop turns, while the context lasts."""
        if self.interval_s is None:
            yield
            return
        beats = asyncio.create_task(self._beat(self.interval_s))
        try:
            yield
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)

    async def _beat(self, interval_s: float) -> None:
        while True:
            self.say(ALIVE)
            await asyncio.sleep(interval_s)
