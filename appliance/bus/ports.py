"""What both ends of the bus have in common: events, and what is asked of a hub and of a link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

HUB: Final = "vcm"
"""The hub's name, as links see it."""

T = TypeVar("T")
S = TypeVar("S", contravariant=True)
R = TypeVar("R", covariant=True)  # an event is never changed


class Codec(Protocol[T]):
    """Messages in one direction, as bytes; ``appliance.control.codec`` has those of the system."""

    def encode(self, message: T) -> bytes:
        """Give the bytes of a message.

        Raises:
            ProtocolError: there are too many.
        """

    def decode(self, raw: bytes) -> T:
        """Read a message.

        Raises:
            ProtocolError: it is none of this direction.
        """


@dataclass(frozen=True, slots=True)
class Joined:
    """Someone is there, in this incarnation; an earlier one has gone by it."""

    peer: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Gone:
    """Someone has fallen silent."""

    peer: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The other end will have nothing to do with us; one line says why, and what to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class Heard(Generic[R]):
    """A message of someone who is there."""

    peer: str
    message: R


class Hub(Protocol[S, R]):
    """The end at the VCM. Iterating over it gives the events; it ends when the hub is closed."""

    def __aiter__(self) -> AsyncIterator[Joined | Gone | Heard[R]]:
        """Give events as they come."""

    def send(self, peer: str, message: S) -> bool:
        """Send a message to a peer that is there; False: it is not, or takes nothing in."""

    async def close(self) -> None:
        """End it."""


class Link(Protocol[S, R]):
    """The end at an SP or at the MIC. Iterating over it gives the events; it ends when the link is closed."""

    def __aiter__(self) -> AsyncIterator[Joined | Gone | Refused | Heard[R]]:
        """Give events as they come."""

    def send(self, message: S) -> bool:
        """Send a message to the hub; False: it is not there, or takes nothing in."""

    async def close(self) -> None:
        """End it."""
