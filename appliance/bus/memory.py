"""The bus in memory, for tests and simulation: the same interface, codecs included, but no sockets, keys or beats.

Who is there is told by ``MemoryBus.link`` and ``MemoryBus.drop`` in place of silence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from appliance.bus.inbox import Inbox
from appliance.bus.ports import HUB, Codec, Gone, Heard, Joined, Refused

S = TypeVar("S")  # from the hub
R = TypeVar("R")  # to the hub


class MemoryBus(Generic[S, R]):
    """One hub, and links to it by name."""

    def __init__(self, incoming: Codec[R], outgoing: Callable[[str], Codec[S]], incarnation: int = 1) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.incarnation = incarnation
        self.hub: MemoryHub[S, R] = MemoryHub(self)
        self.links: dict[str, MemoryLink[S, R]] = {}

    def link(self, name: str, incarnation: int = 1) -> MemoryLink[S, R]:
        """Connect someone; who had the name before is gone by it."""
        self.drop(name)
        link = self.links[name] = MemoryLink(self, name, incarnation)
        self.hub.inbox.put(Joined(name, incarnation))
        link.inbox.put(Joined(HUB, self.incarnation))
        return link

    def drop(self, name: str) -> None:
        """Have the two ends fall silent for each other."""
        link = self.links.pop(name, None)
        if link is not None:
            self.hub.inbox.put(Gone(name, link.incarnation))
            link.inbox.put(Gone(HUB, self.incarnation))


class MemoryHub(Generic[S, R]):
    """Implements ``appliance.bus.ports.Hub``."""

    def __init__(self, bus: MemoryBus[S, R]) -> None:
        self._bus = bus
        self.inbox: Inbox[Joined | Gone | Heard[R]] = Inbox()

    def __aiter__(self) -> AsyncIterator[Joined | Gone | Heard[R]]:
        return self.inbox

    def send(self, peer: str, message: S) -> bool:
        """Send a message to a peer that is there."""
        codec = self._bus.outgoing(peer)
        link = self._bus.links.get(peer)
        if link is None:
            return False
        link.inbox.put(Heard(HUB, codec.decode(codec.encode(message))))
        return True

    async def close(self) -> None:
        """End it."""
        for name in list(self._bus.links):
            self._bus.drop(name)
        self.inbox.close()


class MemoryLink(Generic[S, R]):
    """Implements ``appliance.bus.ports.Link``."""

    def __init__(self, bus: MemoryBus[S, R], name: str, incarnation: int) -> None:
        self._bus = bus
        self._name = name
        self.incarnation = incarnation
        self.inbox: Inbox[Joined | Gone | Refused | Heard[S]] = Inbox()

    def __aiter__(self) -> AsyncIterator[Joined | Gone | Refused | Heard[S]]:
        return self.inbox

    def send(self, message: R) -> bool:
        """Send a message to the hub, if this is still the link of its name."""
        if self._bus.links.get(self._name) is not self:
            return False
        codec = self._bus.incoming
        self._bus.hub.inbox.put(Heard(self._name, codec.decode(codec.encode(message))))
        return True

    async def close(self) -> None:
        """End it."""
        if self._bus.links.get(self._name) is self:
            self._bus.drop(self._name)
        self.inbox.close()
