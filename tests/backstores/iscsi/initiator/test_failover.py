"""Fail-over between two paths: what is sent again, what waits, and what is not (R12)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from errno import ENOTCONN

import pytest

from backstores.iscsi.initiator.outcome import ConnectionLost, errno_of
from backstores.iscsi.initiator.target import RemoteTarget
from backstores.scsi import cdb as formats
from backstores.scsi.model import Status
from tests.support.cable import Cable, cables
from tests.support.engines import noise
from tests.support.remote import (
    QUICK,
    House,
    actives,
    house,
    make_unit,
    reached,
    reading,
    run,
    ups,
    when,
    writing,
)

READY = formats.TestUnitReady.build()


@pytest.mark.parametrize("how", ["cut", "frozen", "portal stopped", "session dropped"])
def test_what_a_dying_path_leaves_unanswered_goes_by_the_other(how: str) -> None:
    """R12: verified reads and writes without a break, while the active path dies in the middle of them, twice."""

    async def scenario() -> None:
        unit = make_unit(1)
        async with (
            house({0: unit}) as at,
            cables(at.endpoints) as ways,
            reached([cable.near for cable in ways]) as target,
        ):
            await when(lambda: all(ups(target)))
            over = asyncio.Event()
            rounds = [0] * 8
            work = [asyncio.create_task(_verify(target, n, over, rounds)) for n in range(8)]
            for _ in range(2):
                await when(lambda: min(rounds) > 3)
                number = actives(target).index(True)
                await _harm(how, at, ways, number)
                await when(lambda n=number: not ups(target)[n] and any(ups(target)))
                rounds[:] = [0] * 8
                await when(lambda: min(rounds) > 3)
                await _mend(how, at, ways, number)
                await when(lambda: all(ups(target)))
            over.set()
            await asyncio.gather(*work)

    asyncio.run(scenario())


async def _verify(target: RemoteTarget, lane: int, over: asyncio.Event, rounds: list[int]) -> None:
    """Write blocks of one's own, and read them back, over and over."""
    seed = lane
    while not over.is_set():
        seed += 8
        data = noise(32768, seed)
        assert (await run(target, writing(lane * 64, data))).status == Status.GOOD
        task = await run(target, reading(lane * 64, 64))
        assert task.status == Status.GOOD
        assert bytes(task.into) == data
        rounds[lane] += 1


async def _harm(how: str, at: House, ways: list[Cable], number: int) -> None:
    match how:
        case "cut":
            await ways[number].unplug()
        case "frozen":
            ways[number].freeze()
        case "portal stopped":
            await at.stop(number)
        case _:
            ways[number].freeze()
            for session in list(at.registry):
                at.registry.end(session, "dropped")


async def _mend(how: str, at: House, ways: list[Cable], number: int) -> None:
    match how:
        case "cut":
            await ways[number].plug()
        case "portal stopped":
            await at.start(number, ways[number].far)
        case _:
            ways[number].thaw()


def test_fencing_goes_on_by_whatever_path_is_there() -> None:
    """Both paths have carried commands. The first dies, can't be fenced by the second, and that dies too."""

    async def scenario() -> None:
        async with (
            house({0: make_unit(1)}) as at,
            cables(at.endpoints) as ways,
            reached([cable.near for cable in ways]) as target,
        ):
            target._patience = replace(QUICK, first_wait_s=0.3)  # paths come back while it waits to fence again
            await when(lambda: all(ups(target)))
            for number in (1, 0):
                target.prefer(number)
                await target.execute(0, READY)
            await _refuse_new(ways[1])
            await ways[0].unplug()
            await when(lambda: not ups(target)[0])
            ways[1].cut()
            await when(lambda: not ups(target)[1])
            await ways[0].plug()
            await target.execute(0, READY)
            await ways[1].plug()
            await when(lambda: all(ups(target)))

    asyncio.run(scenario())


async def _refuse_new(cable: Cable) -> None:
    """Let connections be as they are, and no new one be made."""
    assert cable._server is not None
    cable._server.close()


def test_without_a_path_commands_wait_and_then_go() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at, reached(at) as target:
            await when(lambda: all(ups(target)))
            endpoints = [await at.stop(0), await at.stop(1)]
            await when(lambda: not any(ups(target)))
            waiting = asyncio.ensure_future(target.execute(0, READY))
            await asyncio.sleep(0)
            assert not waiting.done()
            await at.start(1, endpoints[1])
            await waiting
            assert actives(target) == [False, True]

    asyncio.run(scenario())


def test_a_command_has_its_time() -> None:
    """R12: no path within the deadline: an error, and not before; one that came later has its own time."""

    async def scenario() -> None:
        patience = replace(QUICK, deadline_s=0.2)
        async with house({0: make_unit(1)}) as at, reached(at, patience) as target:
            await at.stop(0)
            await at.stop(1)
            await when(lambda: not any(ups(target)))
            first = await run(target, writing(0, bytes(512)))
            assert first.lost
            assert errno_of(first) == ENOTCONN
            with pytest.raises(ConnectionLost):
                await target.execute(0, READY)

    asyncio.run(scenario())


def test_commands_of_a_unit_that_is_given_up_do_not_wait() -> None:
    """R12: those that wait already end at once, others' go on waiting; and again when it is taken back."""

    async def scenario() -> None:
        async with house({0: make_unit(1), 1: make_unit(2)}) as at, reached(at) as target:
            endpoints = [await at.stop(0), await at.stop(1)]
            await when(lambda: not any(ups(target)))
            waiting = [asyncio.ensure_future(target.execute(number, READY)) for number in (0, 1)]
            await asyncio.sleep(0)
            target.hurry(0)
            with pytest.raises(ConnectionLost):
                await waiting[0]
            again = asyncio.ensure_future(target.execute(0, READY))
            await when(again.done)
            assert not waiting[1].done()
            target.hurry(0, False)
            waiting.append(asyncio.ensure_future(target.execute(0, READY)))
            await at.start(0, endpoints[0])
            await asyncio.gather(*waiting[1:])
            with pytest.raises(ConnectionLost):
                await again

    asyncio.run(scenario())


def test_what_must_not_be_repeated_ends_lost() -> None:
    """Vendor commands: who sent it decides. It is not known whether it was carried out."""

    async def scenario() -> None:
        unit = make_unit(1)
        unit.device.immediate = False  # type: ignore[attr-defined]
        async with (
            house({0: unit}) as at,
            cables(at.endpoints) as ways,
            reached([cable.near for cable in ways]) as target,
        ):
            await when(lambda: all(ups(target)))
            number = actives(target).index(True)
            ways[number].freeze()
            outcomes = [
                asyncio.ensure_future(run(target, writing(0, bytes(512), repeatable=False))),
                asyncio.ensure_future(run(target, writing(8, bytes(512)))),
            ]
            once, again = await asyncio.gather(*outcomes)
            assert once.lost
            assert again.status == Status.GOOD
            with pytest.raises(ConnectionLost):
                await asyncio.gather(
                    target.execute(0, READY, repeatable=False), _cut(ways[actives(target).index(True)])
                )

    asyncio.run(scenario())


async def _cut(cable: Cable) -> None:
    cable.freeze()
    await asyncio.sleep(0.01)
    cable.cut()
