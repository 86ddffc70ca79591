"""Requests at the door of a volume that is held: they wait, go on in order, or are told to ask again (D7)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from backstores.block import BlockError, Busy, Offline
from backstores.errors import UsageError
from backstores.volume.door import Door
from backstores.volume.gate import HoldLimits

LONG = HoldLimits(longest_s=3600)


class Site:
    """A door, and a log of what has happened at it."""

    def __init__(self) -> None:
        self.door = Door()
        self.log: list[str] = []
        self.go_on = asyncio.Event()

    async def request(self, name: str, begun: bool = False) -> None:
        try:
            with self.door.visit(7):
                await self.door.begin(7, begun=begun)
                try:
                    self.log.append(f"+{name}")
                    await self.go_on.wait()
                    self.log.append(f"-{name}")
                finally:
                    self.door.end()
        except BlockError as error:
            partly = " in the middle" if isinstance(error, Busy) and error.begun else ""
            self.log.append(f"{name}: {type(error).__name__} at {error.lba}{partly}")

    def start(self, *names: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.request(name)) for name in names]


def at_a_door(scenario: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Site())

    asyncio.run(run())


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_runs_ends_and_what_comes_waits_and_goes_on_in_order() -> None:
    async def scenario(site: Site) -> None:
        running = site.start("a", "b")
        await turns()
        hold = asyncio.create_task(site.door.hold(LONG))
        await turns()
        late = site.start("c", "d", "e")
        await turns()
        assert not hold.done()
        assert site.log == ["+a", "+b"]
        site.go_on.set()
        await hold
        assert not site.door.is_open
        assert site.door.held_for_s > 0
        site.door.resume()
        await asyncio.gather(*running, *late)
        assert site.log[2:] == ["-a", "-b", "+c", "-c", "+d", "-d", "+e", "-e"]
        assert site.door.held_for_s == 0

    at_a_door(scenario)


def test_too_many_are_told_to_ask_again() -> None:
    async def scenario(site: Site) -> None:
        site.go_on.set()
        await site.door.hold(HoldLimits(most_waiting=2, longest_s=3600))
        tasks = site.start("a", "b", "c")
        await turns()
        assert site.log == ["c: Busy at 7"]
        site.door.resume()
        await asyncio.gather(*tasks)

    at_a_door(scenario)


def test_a_hold_that_nobody_ends_expires_and_stays() -> None:
    """Who waits is told to ask again; the volume does not go on by itself."""

    async def scenario(site: Site) -> None:
        site.go_on.set()
        await site.door.hold(HoldLimits(longest_s=0))
        tasks = [*site.start("a"), asyncio.create_task(site.request("b", begun=True))]
        await asyncio.gather(*tasks)
        await asyncio.gather(*site.start("d"))
        assert site.log == ["a: Busy at 7", "b: Busy at 7 in the middle", "d: Busy at 7"]
        assert not site.door.is_open
        opened = asyncio.create_task(site.door.opened())
        await turns()
        assert not opened.done()
        site.door.resume()
        await opened

    at_a_door(scenario)


def test_who_is_cancelled_leaves_the_queue() -> None:
    async def scenario(site: Site) -> None:
        await site.door.hold(HoldLimits(most_waiting=1, longest_s=3600))
        [first] = site.start("a")
        await turns()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        [second] = site.start("b")
        site.go_on.set()
        await turns()
        site.door.resume()
        await second
        assert site.log == ["+b", "-b"]

    at_a_door(scenario)


@pytest.mark.parametrize("cancelled_first", [True, False], ids=["before", "after"])
def test_one_that_is_cancelled_as_it_is_let_in_is_not_at_work(cancelled_first: bool) -> None:
    async def scenario(site: Site) -> None:
        await site.door.hold(LONG)
        [task] = site.start("a")
        await turns()
        for step in (task.cancel, site.door.resume) if cancelled_first else (site.door.resume, task.cancel):
            step()
        await asyncio.gather(task, return_exceptions=True)
        assert not site.log
        await asyncio.wait_for(site.door.hold(LONG), 5)

    at_a_door(scenario)


@pytest.mark.parametrize(("handed_over", "failure"), [(False, Offline), (True, Busy)], ids=["off line", "handed over"])
def test_a_door_that_is_shut_refuses_all(handed_over: bool, failure: type[BlockError]) -> None:
    async def scenario(site: Site) -> None:
        await site.door.hold(LONG)
        tasks = site.start("a")
        await turns()
        site.door.shut(handed_over=handed_over)
        await asyncio.gather(*tasks, *site.start("b"))
        assert site.log == [f"{name}: {failure.__name__} at 7" for name in "ab"]
        site.door.resume()
        assert site.door.is_shut
        await site.door.begin(0, owner=True)
        site.door.end()

    at_a_door(scenario)


@pytest.mark.parametrize("end", [Door.resume, Door.shut], ids=["resumed", "shut"])
def test_who_holds_learns_that_it_came_to_nothing(end: Callable[[Door], None]) -> None:
    async def scenario(site: Site) -> None:
        tasks = site.start("a")
        await turns()
        hold = asyncio.create_task(site.door.hold(LONG))
        await turns()
        end(site.door)
        with pytest.raises(UsageError):
            await hold
        site.go_on.set()
        await asyncio.gather(*tasks)

    at_a_door(scenario)
