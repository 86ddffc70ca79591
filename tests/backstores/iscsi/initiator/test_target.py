"""A target over two paths: how they come up, which one is active, and their end (R12)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from backstores.errors import UsageError
from backstores.iscsi.initiator.login import LoginFailed
from backstores.iscsi.initiator.outcome import CommandFailed, ConnectionLost
from backstores.iscsi.initiator.target import PathDown, PathUp
from backstores.scsi import cdb as formats
from tests.support.remote import (
    OURS,
    actives,
    house,
    identity,
    make_unit,
    reached,
    ups,
    when,
)

READY = formats.TestUnitReady.build()


def test_both_paths_come_up_and_one_is_active() -> None:
    async def scenario() -> None:
        events: list[Any] = []
        async with house({0: make_unit(1)}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            assert sum(actives(target)) == 1
            assert sorted(events, key=str) == [PathUp(0), PathUp(1)]
            isids = {session.grant.isid for session in at.registry}
            assert len(isids) == 2

    asyncio.run(scenario())


def test_one_path_is_enough_to_begin() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at:
            endpoints = at.endpoints
            await at.stop(0)
            async with reached(endpoints) as target:
                await target.execute(0, READY)
                assert ups(target) == [False, True]
                assert "no connection" in target.paths()[0].trouble

    asyncio.run(scenario())


def test_no_path_at_all_is_an_error() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at:
            with pytest.raises(LoginFailed, match="secret"):
                async with reached(at, who=replace(identity(), chap=replace(OURS, secret=b"wrong as can be"))):
                    pass
            endpoints = [await at.stop(0), await at.stop(1)]
            with pytest.raises(ConnectionLost):
                async with reached(endpoints):
                    pass

    asyncio.run(scenario())


def test_a_path_can_be_preferred() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at, reached(at) as target:
            await when(lambda: all(ups(target)))
            for number in (1, 0, 1):
                target.prefer(number)
                assert actives(target).index(True) == number
                await target.execute(0, READY)
            with pytest.raises(UsageError, match="path 2 of 2"):
                target.prefer(2)
            await at.stop(0)
            await when(lambda: not ups(target)[0])
            with pytest.raises(UsageError, match="not up"):
                target.prefer(0)

    asyncio.run(scenario())


def test_the_end_of_a_path_is_told_with_its_reason() -> None:
    async def scenario() -> None:
        events: list[Any] = []
        async with house({0: make_unit(1)}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            await at.stop(0)
            await when(lambda: not ups(target)[0])
            [down] = [event for event in events if isinstance(event, PathDown)][:1]
            assert (down.path, "drops the session" in down.reason) == (0, True)

    asyncio.run(scenario())


def test_after_its_end_a_target_carries_nothing() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at:
            async with reached(at) as target:
                await at.stop(0)
                await at.stop(1)
                await when(lambda: not any(ups(target)))
                waiting = asyncio.ensure_future(target.execute(0, READY))
                await asyncio.sleep(0)
            with pytest.raises(ConnectionLost):
                await waiting
            with pytest.raises(CommandFailed):
                await target.execute(0, READY)
            assert len(at.registry) == 0

    asyncio.run(scenario())


def test_a_path_that_stays_away_is_told_once() -> None:
    async def scenario() -> None:
        events: list[Any] = []
        async with house({0: make_unit(1)}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            endpoint = await at.stop(0)
            await when(lambda: "no connection" in target.paths()[0].trouble)
            await at.start(0, endpoint)
            await when(lambda: all(ups(target)))
            assert [type(event) for event in events if event.path == 0] == [PathUp, PathDown, PathUp]

    asyncio.run(scenario())
