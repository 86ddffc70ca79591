"""What the kernel announces, read without a socket; a guest's test hears a real kernel."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.errors import ProtocolError, UsageError
from backstores.tcmu.announcements import (
    CONTROLLER,
    ERROR,
    FAMILY,
    GET_FAMILY,
    Announcement,
    Attribute,
    AttributeHeader,
    ErrorBody,
    Event,
    Family,
    FamilyAttribute,
    GenericHeader,
    GroupAttribute,
    Header,
    NetlinkError,
    ask_for_family,
    attributes,
    messages,
    parse,
    parse_family,
)

NUMBER = 29


def attribute(kind: int, value: bytes | str | int, width: int = 4) -> bytes:
    """Make an attribute, padded."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    raw = value if isinstance(value, bytes) else value.to_bytes(width, "little")
    whole = AttributeHeader.build(length=AttributeHeader.SIZE + len(raw), type=kind) + raw
    return whole.ljust(-(-len(whole) // 4) * 4, b"\0")


def message(kind: int, command: int, *said: bytes) -> bytes:
    """Make a generic message."""
    body = GenericHeader.build(command=command, version=2) + b"".join(said)
    return Header.build(length=Header.SIZE + len(body), type=kind) + body


DEVICE = attribute(Attribute.DEVICE, "tcm-user/7/db/tiergate/db")
ANNOUNCEMENTS = {
    "added": (message(NUMBER, Event.ADDED, DEVICE), [Announcement(Event.ADDED, 7, "db")]),
    "removed": (message(NUMBER, Event.REMOVED, DEVICE), [Announcement(Event.REMOVED, 7, "db")]),
    "resized": (
        message(NUMBER, Event.RECONFIGURED, DEVICE, attribute(Attribute.SIZE, 1 << 40, 8)),
        [Announcement(Event.RECONFIGURED, 7, "db", size_bytes=1 << 40)],
    ),
    "write-cache-off": (
        message(NUMBER, Event.RECONFIGURED, DEVICE, attribute(Attribute.WRITE_CACHE, 0, 1)),
        [Announcement(Event.RECONFIGURED, 7, "db", write_cache=False)],
    ),
    "other-config": (
        message(NUMBER, Event.RECONFIGURED, DEVICE, attribute(Attribute.CONFIG, "tiergate/new")),
        [Announcement(Event.RECONFIGURED, 7, "db", config="tiergate/new")],
    ),
    "two-at-once": (
        message(NUMBER, Event.ADDED, DEVICE) + message(NUMBER, Event.REMOVED, DEVICE),
        [Announcement(Event.ADDED, 7, "db"), Announcement(Event.REMOVED, 7, "db")],
    ),
    "other-family": (message(NUMBER + 1, Event.ADDED, DEVICE), []),
    "a-reply": (message(NUMBER, 4, DEVICE), []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("datagram", "expected"), ANNOUNCEMENTS.values(), ids=ANNOUNCEMENTS)
def test_announcements(datagram: bytes, expected: list[Announcement]) -> None:
    assert parse(datagram, NUMBER) == expected


BROKEN = {
    "message-too-long": (Header.build(length=400, type=NUMBER), "message of 400 bytes, where 16 are left"),
    "message-too-short": (Header.build(length=8, type=NUMBER), "message of 8 bytes, where 16 are left"),
    "attribute-too-long": (
        message(NUMBER, Event.ADDED, AttributeHeader.build(length=60, type=1)),
        "attribute of 60 bytes, where 4 are left",
    ),
    "attribute-too-short": (
        message(NUMBER, Event.ADDED, AttributeHeader.build(length=0, type=1)),
        "attribute of 0 bytes, where 4 are left",
    ),
    "no-device": (message(NUMBER, Event.ADDED), "announcement of no tcm-user device"),
    "other-device": (
        message(NUMBER, Event.ADDED, attribute(Attribute.DEVICE, "tcm-user/x/db")),
        "announcement of no tcm-user device",
    ),
}


@pytest.mark.parametrize(("datagram", "complaint"), BROKEN.values(), ids=BROKEN)
def test_what_can_not_be_read_is_refused(datagram: bytes, complaint: str) -> None:
    """S3: lengths are checked, though only a kernel writes them."""
    with pytest.raises(NetlinkError, match=complaint):
        parse(datagram, NUMBER)


@given(st.binary(max_size=200))
def test_random_bytes_give_announcements_or_a_protocol_error(raw: bytes) -> None:
    try:
        parse(message(NUMBER, Event.RECONFIGURED, raw) + raw, NUMBER)
        parse_family(message(CONTROLLER, 1, raw))
    except ProtocolError:
        return


def test_the_question_names_the_family() -> None:
    ((header, body),) = messages(ask_for_family(FAMILY))
    assert header.type == CONTROLLER
    assert GenericHeader.parse(body).command == GET_FAMILY
    assert attributes(body[GenericHeader.SIZE :]) == {FamilyAttribute.NAME: b"TCM-USER\0"}


def test_the_answer_names_the_groups() -> None:
    group = attribute(GroupAttribute.NAME, "config") + attribute(GroupAttribute.ID, 12)
    answer = message(
        CONTROLLER,
        1,
        attribute(FamilyAttribute.ID, NUMBER, 2),
        attribute(FamilyAttribute.GROUPS | 0x8000, attribute(1 | 0x8000, group)),
    )
    assert parse_family(answer) == Family(NUMBER, {"config": 12})


@pytest.mark.parametrize(
    ("number", "kind", "complaint"),
    [
        (errno.ENOENT, UsageError, "the kernel knows no TCM-USER; load module target_core_user"),
        (errno.EPERM, NetlinkError, "does not say what TCM-USER is: Operation not permitted"),
    ],
    ids=["no-such-family", "not-permitted"],
)
def test_an_error_says_what_to_do(number: int, kind: type[Exception], complaint: str) -> None:
    body = ErrorBody.build(number=(1 << 32) - number)
    with pytest.raises(kind, match=complaint):
        parse_family(Header.build(length=Header.SIZE + len(body), type=ERROR) + body)


def test_an_answer_without_the_family_is_refused() -> None:
    with pytest.raises(NetlinkError, match="does not say what TCM-USER is"):
        parse_family(message(CONTROLLER, 1))
