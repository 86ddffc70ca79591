"""The bus in memory behaves as the real one does."""

from __future__ import annotations

import asyncio

from appliance.bus.memory import MemoryBus
from appliance.bus.ports import HUB, Gone, Heard, Joined
from tests.support.bus import WORDS, upcoming


def test_messages_go_both_ways() -> None:
    async def run() -> None:
        bus = MemoryBus(WORDS, lambda _: WORDS, incarnation=5)
        link = bus.link("sp1", incarnation=3)
        assert await upcoming(aiter(bus.hub)) == Joined("sp1", 3)
        assert await upcoming(aiter(link)) == Joined(HUB, 5)
        assert link.send("hello")
        assert bus.hub.send("sp1", "welcome")
        assert await upcoming(aiter(bus.hub)) == Heard("sp1", "hello")
        assert await upcoming(aiter(link)) == Heard(HUB, "welcome")

    asyncio.run(run())


def test_who_is_dropped_is_gone_for_both() -> None:
    async def run() -> None:
        bus = MemoryBus(WORDS, lambda _: WORDS)
        link = bus.link("sp1")
        bus.drop("sp1")
        assert not link.send("hello")
        assert not bus.hub.send("sp1", "hello")
        assert [await upcoming(aiter(bus.hub)) for _ in range(2)] == [Joined("sp1", 1), Gone("sp1", 1)]
        assert [await upcoming(aiter(link)) for _ in range(2)] == [Joined(HUB, 1), Gone(HUB, 1)]

    asyncio.run(run())


def test_a_successor_takes_the_name() -> None:
    async def run() -> None:
        bus = MemoryBus(WORDS, lambda _: WORDS)
        earlier, later = bus.link("sp1", 1), bus.link("sp1", 2)
        assert not earlier.send("hello")
        assert later.send("hello")
        events = [await upcoming(aiter(bus.hub)) for _ in range(4)]
        assert events == [Joined("sp1", 1), Gone("sp1", 1), Joined("sp1", 2), Heard("sp1", "hello")]

    asyncio.run(run())


def test_a_hub_that_ends_leaves_nobody_connected() -> None:
    async def run() -> None:
        bus = MemoryBus(WORDS, lambda _: WORDS)
        link = bus.link("sp1")
        await bus.hub.close()
        assert not link.send("hello")
        assert [event async for event in bus.hub] == [Joined("sp1", 1), Gone("sp1", 1)]
        await link.close()
        assert [event async for event in link] == [Joined(HUB, 1), Gone(HUB, 1)]

    asyncio.run(run())
