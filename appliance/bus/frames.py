"""What stands in front of every message on the bus. Its layout never changes: any two releases understand it."""

from __future__ import annotations

import enum
from typing import Final

from backstores.wire import Bits, Bytes, Wire

MOST_INCARNATION: Final = (1 << 63) - 1


class Kind(enum.IntEnum):
    """What a frame is for."""

    MESSAGE = 0  # a message is behind it
    BEAT = 1  # I live, and this is the way by which I speak
    PROBE = 2  # I live; answer, but go on speaking to me by the other way
    WRONG_VERSION = 3  # your release is another one than mine
    SUPERSEDED = 4  # a later process has your name


class Head(Wire, size=16):
    """The head."""

    magic = Bytes(byte=0, length=4, value=b"TGB\0")
    kind = Bits(byte=4, width=8)
    version = Bits(byte=6, width=16, doc="version of the messages that the sender speaks")
    incarnation = Bits(byte=8, width=64, doc="the sender's")


def head(kind: Kind, version: int, incarnation: int) -> bytes:
    """Build a head."""
    return Head.build(kind=kind, version=version, incarnation=incarnation)
