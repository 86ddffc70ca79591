"""Hub and links over TCP: who is let in, what is carried, what is noticed when someone goes (S4)."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest

from appliance.bus.ports import HUB, Gone, Heard, Joined, Refused
from appliance.bus.security import make_key_pair
from backstores.errors import UsageError
from tests.support.bus import MOST_BYTES, Event, LoopbackBus, repeating, upcoming


def test_messages_go_both_ways_with_the_name_of_the_key() -> None:
    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub(incarnation=5) as hub, bus.link("sp7", incarnation=3) as link:
            assert await upcoming(aiter(hub)) == Joined("sp7", 3)
            assert await upcoming(aiter(link)) == Joined(HUB, 5)
            assert link.send("hello")
            assert await upcoming(aiter(hub)) == Heard("sp7", "hello")
            assert hub.send("sp7", "welcome")
            assert await upcoming(aiter(link)) == Heard(HUB, "welcome")

    asyncio.run(run())


def test_nothing_is_sent_to_who_is_not_there() -> None:
    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link(addresses=["127.0.0.1:1"]) as link:
            assert not hub.send("sp1", "hello")
            assert not link.send("hello")

    asyncio.run(run())


def test_a_link_may_be_there_before_its_hub() -> None:
    async def run() -> None:
        bus = LoopbackBus()
        async with bus.link() as link, bus.hub() as hub:
            assert await upcoming(aiter(link)) == Joined(HUB, 1)
            assert await upcoming(aiter(hub)) == Joined("sp1", 1)

    asyncio.run(run())


def test_who_falls_silent_is_gone_and_comes_again() -> None:
    """R9: a dead process is noticed by its silence."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub:
            async with bus.link():
                assert await upcoming(aiter(hub)) == Joined("sp1", 1)
            assert await upcoming(aiter(hub)) == Gone("sp1", 1)
            assert not hub.send("sp1", "hello")
            async with bus.link(incarnation=2):
                assert await upcoming(aiter(hub)) == Joined("sp1", 2)

    asyncio.run(run())


def test_a_link_notices_that_the_hub_was_started_anew() -> None:
    """C1: an SP goes on without its VCM, and tells the next one what runs."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.link() as link:
            async with bus.hub(incarnation=1):
                assert await upcoming(aiter(link)) == Joined(HUB, 1)
            async with bus.hub(incarnation=2):
                events = [await upcoming(aiter(link)) for _ in range(2)]
                assert events == [Gone(HUB, 1), Joined(HUB, 2)]

    asyncio.run(run())


def test_a_successor_takes_the_name_and_the_earlier_process_learns_it() -> None:
    """R9: an SP that only slept finds out that another one has taken its place."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link(incarnation=1) as earlier:
            assert await upcoming(aiter(hub)) == Joined("sp1", 1)
            async with bus.link(incarnation=2) as later:
                events = [await upcoming(aiter(hub)) for _ in range(2)]
                assert events == [Gone("sp1", 1), Joined("sp1", 2)]
                told = await upcoming(aiter(earlier), lambda event: isinstance(event, Refused))
                assert "a later process of our name" in str(told)
                earlier.send("i am still here")
                await upcoming(aiter(later), lambda event: isinstance(event, Joined))
                later.send("i am")
                assert await upcoming(aiter(hub)) == Heard("sp1", "i am")
                assert hub.send("sp1", "good")
                assert await upcoming(aiter(later)) == Heard(HUB, "good")

    asyncio.run(run())


def test_another_version_is_refused_with_both_numbers(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub(version=4) as hub, bus.link("old", version=3) as old, bus.link("new", version=4):
            refused = await upcoming(aiter(old))
            assert isinstance(refused, Refused)
            assert "the VCM speaks version 4, this process version 3" in refused.reason
            assert not old.send("hello")
            assert await upcoming(aiter(hub)) == Joined("new", 1)

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "old sends what can't be used: it speaks version 3, this process version 4"
    ]


def test_an_unknown_key_is_turned_away_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """S4: and it learns why."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link(None) as stranger, bus.link(None) as another:
            for link in (stranger, another):
                refused = await upcoming(aiter(link))
                assert isinstance(refused, Refused)
                assert "does not know our key" in refused.reason
            async with bus.link("sp1"):
                assert await upcoming(aiter(hub)) == Joined("sp1", 1)

    asyncio.run(run())
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["turned away a connection from 127.0.0.1: its key is not known (1 so far)"]


def test_a_hub_with_another_key_is_not_believed() -> None:
    """S4: whoever answers at the address proves that it is the VCM."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link("sp1", hub_key=make_key_pair().public) as link, bus.link("sp2"):
            assert await upcoming(aiter(hub)) == Joined("sp2", 1)
            refused = await upcoming(aiter(link))
            assert isinstance(refused, Refused)
            assert "does not have the key that ours belongs to" in refused.reason

    asyncio.run(run())


def test_when_one_fabric_is_silent_the_other_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """R19: nobody seems to have died meanwhile."""

    async def run() -> None:
        bus = LoopbackBus()
        silent = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
        async with silent, bus.hub() as hub:
            port = silent.sockets[0].getsockname()[1]
            async with bus.link(addresses=[f"127.0.0.1:{port}", bus.addresses[1]]) as link:
                assert await upcoming(aiter(hub)) == Joined("sp1", 1)
                assert await upcoming(aiter(link)) == Joined(HUB, 1)
                assert link.send("by the other one")
                assert await upcoming(aiter(hub)) == Heard("sp1", "by the other one")
                assert hub.send("sp1", "so do i")
                assert await upcoming(aiter(link), lambda event: isinstance(event, Heard)) == Heard(HUB, "so do i")

    asyncio.run(run())
    assert "silent at" in caplog.text


def news(said: Heard[str], event: Event) -> bool:
    """Whether an event is what was said now, or none of what was said before."""
    return event == said or not isinstance(event, Heard)


def test_a_way_that_is_cut_is_not_used_until_it_is_mended() -> None:
    """R19: and nobody seems to have died meanwhile."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link() as link:
            await upcoming(aiter(hub))
            for ways in ({0}, {1}, set[int]()):
                link.cut(ways)
                said = Heard("sp1", f"without {ways}")
                async with repeating(link, said.message):
                    assert await upcoming(aiter(hub), partial(news, said)) == said

    asyncio.run(run())


def test_what_can_not_be_read_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """S3: it is told of once, and nothing of it is shown."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link() as link:
            await upcoming(aiter(link))
            for word in ("nonsense", "nonsense", "sense"):
                assert link.send(word)
            assert await upcoming(aiter(hub), lambda event: isinstance(event, Heard)) == Heard("sp1", "sense")

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "sp1 sends what can't be used: that was nonsense"
    ]


def test_a_message_over_its_size_does_not_arrive_and_the_rest_goes_on() -> None:
    """S3: the connection is cut, and made again."""

    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub() as hub, bus.link() as link, bus.link("sp2") as other:
            for end in (link, other):
                await upcoming(aiter(end))
            assert link.send("x" * (MOST_BYTES + 1))
            assert other.send("meanwhile")
            assert await upcoming(aiter(hub), lambda e: isinstance(e, Heard)) == Heard("sp2", "meanwhile")
            async with repeating(link, "small"):
                assert await upcoming(aiter(hub), lambda e: isinstance(e, Heard)) == Heard("sp1", "small")

    asyncio.run(run())


def test_an_address_that_is_taken_is_told() -> None:
    async def run() -> None:
        bus = LoopbackBus()
        async with bus.hub():
            with pytest.raises(UsageError, match=f"can't listen on {bus.addresses[0]}: Address already in use"):
                async with bus.hub():
                    pass

    asyncio.run(run())
