"""What the supervisor and its children say to each other, over a socket pair for each child."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import msgspec

from backstores.errors import ProtocolError

MOST_BYTES: Final = 4096


class Word(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What all have in common."""


class Ready(Word, frozen=True):
    """The child does its work; ``text`` is for people."""

    text: str = ""


class Hold(Word, frozen=True):
    """End a process at once, and leave it so."""

    name: str


class Freeze(Word, frozen=True):
    """Stop a process where it stands (SIGSTOP)."""

    name: str


class Release(Word, frozen=True):
    """Undo that."""

    name: str


class End(Word, frozen=True):
    """End a process at once, if it is still this one (0: whichever); it is forked again.

    ``Ended`` says that it is dead, of one, too, that does not run any more.
    """

    name: str
    incarnation: int


class Started(Word, frozen=True):
    """A process was forked."""

    name: str
    incarnation: int


class Ended(Word, frozen=True):
    """A process has ended; ``status`` is its exit status, or a signal's number below zero."""

    name: str
    incarnation: int
    status: int


FromChild = Ready | Hold | Freeze | Release | End
ToChild = Started | Ended

_FROM_CHILD: Final[msgspec.msgpack.Decoder[FromChild]] = msgspec.msgpack.Decoder(FromChild)
_TO_CHILD: Final[msgspec.msgpack.Decoder[ToChild]] = msgspec.msgpack.Decoder(ToChild)


def encode(word: FromChild | ToChild) -> bytes:
    """Give a word's bytes, one packet."""
    return msgspec.msgpack.encode(word)


def from_child(raw: bytes) -> FromChild:
    """Read what a child says.

    Raises:
        ProtocolError: it is no word of ours.
    """
    try:
        return _FROM_CHILD.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError("a child says what is no word") from error


@dataclass(frozen=True, slots=True)
class Child:
    """A child's own view: who it is, and its line to the supervisor."""

    name: str
    incarnation: int
    line: socket.socket

    def say(self, word: FromChild) -> None:
        """Tell the supervisor something."""
        self.line.send(encode(word))

    async def words(self) -> AsyncIterator[ToChild]:
        """Give what the supervisor tells: first of all processes that run, then of each that ends or starts."""
        self.line.setblocking(False)
        loop = asyncio.get_running_loop()
        while raw := await loop.sock_recv(self.line, MOST_BYTES):
            yield _TO_CHILD.decode(raw)
