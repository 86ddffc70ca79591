"""What both backends build on."""

from __future__ import annotations

import asyncio


class Held(asyncio.Future[int]):
    """The outcome of a transfer, which can't be cancelled.

    The kernel reads or writes the caller's buffer until it has answered. A task that is cancelled meanwhile
    gets its CancelledError only then (asyncio puts it off when the future below refuses), so that nobody
    uses the buffer for something else too early. Errors come as minus an errno, never as an exception,
    since nobody might be left to fetch it.
    """

    def cancel(self, msg: object = None) -> bool:
        return False
