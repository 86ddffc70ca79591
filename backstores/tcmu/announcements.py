"""What the kernel announces about TCMU devices, without I/O: that one was added, removed, or set anew.

The messages are those of generic netlink (``linux/netlink.h``, ``linux/genetlink.h``), family ``TCM-USER``. Its
number, and those of its groups, are asked of the controller first. ``netlink`` has the socket.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from backstores.errors import ProtocolError, UsageError
from backstores.wire import Bits, Wire

FAMILY: Final = "TCM-USER"
ALIGNMENT: Final = 4
REQUEST: Final = 1  # nlmsghdr's flags
ERROR: Final = 2  # nlmsghdr's type
CONTROLLER: Final = 16  # the family that knows the others' numbers
GET_FAMILY: Final = 3
NESTED_MASK: Final = 0x3FFF  # the upper bits of an attribute's type are flags
KIND: Final = "tcm-user"


class NetlinkError(ProtocolError):
    """A message that can't be read."""


class Header(Wire, size=16, order="little"):
    """``struct nlmsghdr``: the beginning of a message, whose length counts from here."""

    length = Bits(byte=0, width=32)
    type = Bits(byte=4, width=16)
    flags = Bits(byte=6, width=16)
    sequence = Bits(byte=8, width=32)
    port = Bits(byte=12, width=32)


class GenericHeader(Wire, size=4, order="little"):
    """``struct genlmsghdr``; the attributes follow."""

    command = Bits(byte=0, width=8)
    version = Bits(byte=1, width=8)


class AttributeHeader(Wire, size=4, order="little"):
    """``struct nlattr``; its length counts from here."""

    length = Bits(byte=0, width=16)
    type = Bits(byte=2, width=16)


class ErrorBody(Wire, size=4, order="little"):
    """``struct nlmsgerr``, of which the number matters: minus an errno."""

    number = Bits(byte=0, width=32)


class FamilyAttribute(enum.IntEnum):
    """What the controller says of a family."""

    ID = 1
    NAME = 2
    GROUPS = 7


class GroupAttribute(enum.IntEnum):
    """What it says of a group."""

    NAME = 1
    ID = 2


class Event(enum.IntEnum):
    """What an announcement is of."""

    ADDED = 1
    REMOVED = 2
    RECONFIGURED = 3


class Attribute(enum.IntEnum):
    """What the kernel says of a device."""

    DEVICE = 1
    CONFIG = 4
    SIZE = 5
    WRITE_CACHE = 6


@dataclass(frozen=True, slots=True)
class Announcement:
    """News of one device. Of ``config``, ``size_bytes`` and ``write_cache`` those are set that have changed."""

    event: Event
    hba: int
    name: str
    config: str | None = None
    size_bytes: int | None = None
    write_cache: bool | None = None


class Family(NamedTuple):
    """A family's number, and those of its groups by name."""

    number: int
    groups: Mapping[str, int]


def attributes(body: bytes) -> dict[int, bytes]:
    """Read attributes; of equal ones the last one counts.

    Raises:
        NetlinkError: one is longer than what is left.
    """
    found = {}
    at = 0
    while at + AttributeHeader.SIZE <= len(body):
        header = AttributeHeader.parse(body, at)
        if not AttributeHeader.SIZE <= header.length <= len(body) - at:
            raise NetlinkError(f"attribute of {header.length} bytes, where {len(body) - at} are left")
        found[header.type & NESTED_MASK] = body[at + AttributeHeader.SIZE : at + header.length]
        at += _padded(header.length)
    return found


def messages(datagram: bytes) -> Iterator[tuple[Header, bytes]]:
    """Split a datagram into messages.

    Raises:
        NetlinkError: one is longer than what is left.
    """
    at = 0
    while at + Header.SIZE <= len(datagram):
        header = Header.parse(datagram, at)
        if not Header.SIZE <= header.length <= len(datagram) - at:
            raise NetlinkError(f"message of {header.length} bytes, where {len(datagram) - at} are left")
        yield header, datagram[at + Header.SIZE : at + header.length]
        at += _padded(header.length)


def ask_for_family(name: str) -> bytes:
    """Make the question for a family's numbers."""
    text = name.encode() + b"\0"
    attribute = AttributeHeader.build(length=AttributeHeader.SIZE + len(text), type=FamilyAttribute.NAME) + text
    body = GenericHeader.build(command=GET_FAMILY, version=1) + attribute.ljust(_padded(len(attribute)), b"\0")
    return Header.build(length=Header.SIZE + len(body), type=CONTROLLER, flags=REQUEST) + body


def parse_family(datagram: bytes) -> Family:
    """Read the answer to that question.

    Raises:
        UsageError: there is no such family.
        NetlinkError: the answer can't be read.
    """
    for header, body in messages(datagram):
        if header.type == ERROR:
            number = (1 << 32) - ErrorBody.parse(body).number
            if number == errno.ENOENT:
                raise UsageError(f"the kernel knows no {FAMILY}; load module target_core_user")
            raise NetlinkError(f"the kernel does not say what {FAMILY} is: {os.strerror(number)}")
        said = attributes(body[GenericHeader.SIZE :])
        if FamilyAttribute.ID in said:
            groups = (attributes(group) for group in attributes(said.get(FamilyAttribute.GROUPS, b"")).values())
            numbers = {
                _text(group[GroupAttribute.NAME]): _number(group[GroupAttribute.ID])
                for group in groups
                if GroupAttribute.NAME in group and GroupAttribute.ID in group
            }
            return Family(_number(said[FamilyAttribute.ID]), numbers)
    raise NetlinkError(f"the kernel does not say what {FAMILY} is")


def parse(datagram: bytes, family: int) -> list[Announcement]:
    """Read the announcements in a datagram; messages of other families and sorts are passed over.

    Raises:
        NetlinkError: it can't be read.
    """
    found = []
    for header, body in messages(datagram):
        if header.type != family or len(body) < GenericHeader.SIZE:
            continue
        command = GenericHeader.parse(body).command
        if command in frozenset(Event):
            found.append(_announcement(Event(command), attributes(body[GenericHeader.SIZE :])))
    return found


def _announcement(event: Event, said: Mapping[int, bytes]) -> Announcement:
    kind, _, rest = _text(said.get(Attribute.DEVICE, b"")).partition("/")
    hba, _, rest = rest.partition("/")
    if kind != KIND or not hba.isascii() or not hba.isdigit():
        raise NetlinkError("announcement of no tcm-user device")
    return Announcement(
        event,
        int(hba),
        rest.partition("/")[0],
        _text(said[Attribute.CONFIG]) if Attribute.CONFIG in said else None,
        _number(said[Attribute.SIZE]) if Attribute.SIZE in said else None,
        bool(_number(said[Attribute.WRITE_CACHE])) if Attribute.WRITE_CACHE in said else None,
    )


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")
