"""Events between the task that receives and whoever iterates."""

from __future__ import annotations

import asyncio

import pytest

from appliance.bus.inbox import Inbox


def test_who_receives_waits_while_it_is_full() -> None:
    async def run() -> None:
        inbox: Inbox[int] = Inbox(most=2)
        inbox.put(1)
        await inbox.room()
        inbox.put(2)
        waiting = asyncio.create_task(inbox.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await anext(inbox) == 1
        await waiting

    asyncio.run(run())


def test_what_was_put_before_the_end_is_given() -> None:
    async def run() -> None:
        inbox: Inbox[int] = Inbox()
        inbox.put(1)
        inbox.close()
        assert [event async for event in inbox] == [1]

    asyncio.run(run())


def test_a_failure_of_what_feeds_it_is_raised() -> None:
    """A bug in a task must not look like silence."""

    async def fail() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        inbox: Inbox[int] = Inbox()
        inbox.watched(fail())
        with pytest.raises(ZeroDivisionError):
            await anext(inbox)

    asyncio.run(run())
