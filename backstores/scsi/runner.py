"""Drives commands: gives them their turn in the task set, and carries out the steps they ask for.

An abort is cooperative. A command that waits for its turn ends at once; one at work stops before its next step.
What a disk is doing meanwhile is waited for, for it can't be called back: when an abort has been answered, the
command will change nothing any more (SAM-5 clause 7.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from functools import partial
from weakref import WeakKeyDictionary

from backstores.block import BlockError, Request, Run
from backstores.device import Submit
from backstores.scsi.model import Command, Response
from backstores.scsi.server import carry_out
from backstores.scsi.steps import Attend, Drain, Exclusive, PassThrough, Persist, Step, Steps, Turn
from backstores.scsi.store import StoreFailed
from backstores.scsi.taskset import Task, TaskState
from backstores.scsi.unit import Attachment, LogicalUnit

_turns: WeakKeyDictionary[LogicalUnit, asyncio.Lock] = WeakKeyDictionary()
"""Whose turn it is to change a unit's state. Kept here, because a unit knows nothing of asyncio."""


async def run(at: Attachment, command: Command) -> Response | None:
    """Carry a command out. None: it was aborted."""
    task = at.unit.enter(at, command)
    try:
        while task.state is TaskState.DORMANT:
            await _change(task)
        if task.aborted:
            return None
        response = await _drive(at.unit, task, carry_out(at, command))
        return None if task.aborted else response
    finally:
        at.unit.leave(task)


async def _change(task: Task) -> None:
    changed = asyncio.Event()
    task.watch(changed.set)
    await changed.wait()


async def drained(tasks: Collection[Task]) -> None:
    """Wait until tasks have ended."""
    for task in tasks:
        while task.state is not TaskState.ENDED:
            await _change(task)


async def _drive(unit: LogicalUnit, task: Task, steps: Steps) -> Response | None:
    """Carry out steps one after the other. None: the command was aborted on the way."""
    storage: Submit = unit.device
    go_on: Callable[[], Step] = partial(next, steps)
    async with AsyncExitStack() as held:
        first = True
        while True:
            try:
                step = go_on()
            except StopIteration as end:
                return _response(end)
            if not first:
                # A long command is many requests, all of which a cache may answer at once: let others in between.
                await asyncio.sleep(0)
            first = False
            if task.aborted:
                steps.close()
                return None
            if isinstance(step, Turn):
                return await asyncio.shield(asyncio.ensure_future(_in_turn(unit, task, steps)))
            runs: list[Run] = []
            try:
                match step:
                    case Request():
                        runs = await storage.submit(step)
                    case Exclusive():
                        storage = await held.enter_async_context(unit.device.hold(step.lba, step.blocks))
                    case Attend():
                        await _attended(task, step)
                    case PassThrough():
                        assert unit.passer is not None
                        step.answer = await unit.passer.send(step)
                    case _:
                        raise AssertionError(f"{type(step).__name__} before its turn")
            except BlockError as failure:
                go_on = partial(steps.throw, failure)
            else:
                go_on = partial(steps.send, runs)


async def _attended(task: Task, step: Attend) -> None:
    """Wait for something, or until the command is aborted: no disk is at work that would have to be waited for."""
    work = asyncio.ensure_future(step.work())

    def stop() -> None:
        work.cancel()

    task.watch(stop)
    try:
        await asyncio.wait([work])
    finally:
        stop()
    if not work.cancelled():
        work.result()


async def _in_turn(unit: LogicalUnit, task: Task, steps: Steps) -> Response | None:
    """Carry out the steps of a command that changes the unit's state, one such command at a time."""
    async with AsyncExitStack() as turn:
        await turn.enter_async_context(_turns.setdefault(unit, asyncio.Lock()))
        if task.aborted:
            steps.close()
            return None
        go_on: Callable[[], Step] = partial(steps.send, [])
        while True:
            try:
                step = go_on()
            except StopIteration as end:
                return _response(end)
            try:
                match step:
                    case Persist():
                        await unit.store.save(unit.identity.wwn, step.state)
                    case Drain():
                        # The change is made. Aborted commands may be waiting for their turn: let them have it.
                        await turn.aclose()
                        await drained(step.tasks)
                    case _:
                        raise AssertionError(f"{type(step).__name__} in a turn")
            except StoreFailed as failure:
                go_on = partial(steps.throw, failure)
            else:
                go_on = partial(steps.send, [])


def _response(end: StopIteration) -> Response:
    response: Response = end.value
    return response
