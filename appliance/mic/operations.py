"""Carries commands out: one change at a time, reads at any time, and remembers how changes ended (C2, R14)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from appliance.mic.commands import Call
from appliance.mic.state import Clock
from appliance.mic.views import Outcome, ProgressReport
from backstores.errors import TiergateError

if TYPE_CHECKING:
    from appliance.mic.management import Management

log = logging.getLogger(__name__)

KEPT_OPERATIONS: Final = 200
RUNNING: Final = "running"


class Operation(msgspec.Struct, kw_only=True):
    """A change: what was asked, and how it went. Its arguments are not kept: they may name secrets' files."""

    number: int
    started: str
    command: str
    state: str
    message: str
    ended: str = ""


class History:
    """The latest changes, the newest last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._operations: deque[Operation] = deque(maxlen=KEPT_OPERATIONS)
        self._count = 0

    async def rows(self) -> tuple[Operation, ...]:
        """List the changes that are remembered."""
        return tuple(self._operations)

    def begin(self, call: Call) -> Operation:
        """Remember that a change has begun."""
        self._count += 1
        command = f"{call.path} {call.command.name}"
        named = call.arguments.get("name")
        if named is not None and not call.path.endswith(f"/{named}"):
            command += f" name={named}"
        operation = Operation(number=self._count, started=self._now(), command=command, state=RUNNING, message="")
        self._operations.append(operation)
        return operation

    def end(self, operation: Operation, state: str, message: str) -> None:
        """Remember how it ended."""
        operation.state, operation.message, operation.ended = state, message, self._now()
        log.info("%s: %s: %s", operation.command, state, message)

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")


class Dispatcher:
    """Runs commands on the management. A change goes on even if whoever asked has gone."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self._one_change = asyncio.Lock()
        self._changes: set[asyncio.Task[object]] = set()

    async def run(self, call: Call, progress: ProgressReport) -> object:
        """Carry a command out and give its result; one that comes early waits until the settings are there.

        Raises:
            TiergateError: it was refused, or it failed.
        """
        await self._management.started.wait()
        if not call.command.changes:
            return await self._carry_out(call, progress)
        task = asyncio.create_task(self._change(call, progress))
        self._changes.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until the changes under way have ended."""
        await asyncio.gather(*self._changes, return_exceptions=True)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: the history has it, if nobody waits for it any more

    async def _change(self, call: Call, progress: ProgressReport) -> object:
        history = self._management.history
        operation = history.begin(call)

        def report(text: str, done: int, total: int) -> None:
            operation.message = text
            progress(text, done, total)

        try:
            async with self._one_change:
                result = await self._carry_out(call, report)
        except TiergateError as error:
            history.end(operation, "refused", str(error))
            raise
        except BaseException as error:  # an error of ours, or the appliance ends: say so, and let it go on
            history.end(operation, "failed", type(error).__name__)
            raise
        history.end(operation, "done", result.message if isinstance(result, Outcome) else "")
        return result

    async def _carry_out(self, call: Call, progress: ProgressReport) -> object:
        arguments = dict(call.arguments)
        if call.command.reports:
            arguments["progress"] = progress
        return await call.command.api(self._management)(**arguments)
