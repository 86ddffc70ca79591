"""A bus on loopback, and messages for it that are plain text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from appliance.bus.hub import ZmqHub
from appliance.bus.link import ZmqLink
from appliance.bus.liveness import BEAT_S
from appliance.bus.ports import Gone, Heard, Joined, Refused
from appliance.bus.security import KeyPair, make_key_pair
from backstores.errors import ProtocolError
from tests.support.appliance import free_port

PATIENCE_S: Final = 30  # for what happens at once on a machine that has time
MOST_BYTES: Final = 1 << 16

Event = Joined | Gone | Refused | Heard[str]
TextHub = ZmqHub[str, str]
TextLink = ZmqLink[str, str]


class Words:
    """A codec of text; "nonsense" can't be read."""

    def encode(self, message: str) -> bytes:
        return message.encode()

    def decode(self, raw: bytes) -> str:
        if raw == b"nonsense":
            raise ProtocolError("that was nonsense")
        return raw.decode()


WORDS: Final = Words()


async def upcoming(events: AsyncIterator[Event], wanted: Callable[[Event], bool] = lambda _: True) -> Event:
    """Give the next event that is wanted; others before it are passed over."""
    async with asyncio.timeout(PATIENCE_S):
        async for event in events:
            if wanted(event):
                return event
    raise AssertionError("the events have ended")


@asynccontextmanager
async def repeating(link: TextLink, message: str) -> AsyncIterator[None]:
    """Say something again and again: what is said while a connection breaks may be lost."""

    async def say() -> None:
        while True:
            link.send(message)
            await asyncio.sleep(BEAT_S)

    task = asyncio.create_task(say())
    try:
        yield
    finally:
        task.cancel()


@dataclass
class LoopbackBus:
    """Where a hub listens, and who may speak there."""

    addresses: Sequence[str] = field(default_factory=lambda: [f"127.0.0.1:{free_port()}" for _ in range(2)])
    hub_keys: KeyPair = field(default_factory=make_key_pair)
    names: dict[bytes, str] = field(default_factory=dict)

    @asynccontextmanager
    async def hub(self, incarnation: int = 1, version: int = 1) -> AsyncIterator[TextHub]:
        hub = TextHub(WORDS, lambda _: WORDS, version=version, most_bytes=MOST_BYTES, incarnation=incarnation)
        await hub.start(self.addresses, self.hub_keys, self.names.get)
        try:
            yield hub
        finally:
            await hub.close()

    @asynccontextmanager
    async def link(
        self,
        name: str | None = "sp1",
        incarnation: int = 1,
        version: int = 1,
        addresses: Sequence[str] = (),
        hub_key: bytes = b"",
    ) -> AsyncIterator[TextLink]:
        """A link; None: of nobody whom the hub knows."""
        keys = make_key_pair()
        if name is not None:
            self.names[keys.public] = name
        link = TextLink(WORDS, WORDS, version=version, most_bytes=MOST_BYTES, incarnation=incarnation)
        await link.connect(addresses or self.addresses, keys, hub_key or self.hub_keys.public)
        try:
            yield link
        finally:
            await link.close()
