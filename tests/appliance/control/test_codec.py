"""Messages are of this version alone and of bounded size, and show no secret (R9, S2, S3)."""

from __future__ import annotations

import msgspec
import pytest

from appliance.control.codec import HEAD_BYTES, MOST_BYTES, TO_MIC, TO_SP, TO_VCM, VERSION
from appliance.control.orders import Follow, MakeT1, Ordered, Scan, ToSp, WhoIsThere
from appliance.control.reports import Beat, Done, FromSp, Held
from appliance.control.requests import Answer, Ask, Attach, FromMic, Look, ToMic
from appliance.control.values import Access, Grant
from backstores.errors import ProtocolError
from backstores.objects import Extent, PartitionObject
from backstores.wwn import Wwn

PARTITION = PartitionObject(wwn=Wwn("6" * 32), volume=Wwn("6" * 32), alu=Wwn("5" * 16), extent=Extent(0, 1 << 20))

MESSAGES = {
    "an order": (TO_SP, ToSp(1, 2, Ordered(number=3, settled=1, order=Scan(paths=("a0", "a1"))))),
    "an order with objects": (
        TO_SP,
        ToSp(
            1,
            2,
            Ordered(
                number=4,
                settled=1,
                order=MakeT1(volume=PARTITION.volume, generation=1, block_bytes=512, objects=(PARTITION,)),
            ),
        ),
    ),
    "no order": (TO_SP, ToSp(1, 0, WhoIsThere())),
    "an answer": (TO_VCM, FromSp("sp1", 2, 1, Done(number=3, result=Held(after_s=0.25)))),
    "a beat": (TO_VCM, FromSp("sp1", 2, 1, Beat(load=0.5, epoch=7))),
    "a request": (TO_VCM, FromMic(1, Ask(number=1, request=Attach(path="a0")))),
    "a question": (TO_VCM, FromMic(1, Look())),
    "an answer for people": (TO_MIC, ToMic(1, 1, 9, Answer(number=1, error="no such volume", usage=True))),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_was_encoded_is_decoded(name: str) -> None:
    codec, message = MESSAGES[name]
    assert codec.decode(codec.encode(message)) == message  # type: ignore[attr-defined]  # a codec of its direction


def test_another_version_is_refused_with_both_numbers() -> None:
    raw = (VERSION + 6).to_bytes(HEAD_BYTES, "big") + b"whatever that version means"
    with pytest.raises(ProtocolError, match=f"version {VERSION + 6} came, this process speaks version {VERSION}"):
        TO_VCM.decode(raw)


def test_what_is_too_large_is_not_sent() -> None:
    message = ToSp(1, 2, Ordered(number=3, settled=1, order=Scan(paths=("a" * 4000,) * 300)))
    with pytest.raises(ProtocolError, match=rf"a message of 12\d{{5}} bytes is too large: {MOST_BYTES}"):
        TO_SP.encode(message)


def test_what_is_too_large_is_not_looked_at() -> None:
    with pytest.raises(ProtocolError, match=f"{MOST_BYTES + 1} bytes is too large: {MOST_BYTES}"):
        TO_VCM.decode(bytes(MOST_BYTES + 1))


HEAD = VERSION.to_bytes(HEAD_BYTES, "big")
TOO_LONG = msgspec.to_builtins(FromSp("sp1", 2, 1, Beat(load=0.5, epoch=7)))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD, id="a head alone"),
        pytest.param(HEAD + b"\x91" * 5000, id="deeper than any message"),
        pytest.param(HEAD + msgspec.msgpack.encode({"type": "FromSp"}), id="fields missing"),
        pytest.param(HEAD + msgspec.msgpack.encode({**TOO_LONG, "sp": "x" * 65}), id="a name too long"),
        pytest.param(HEAD + msgspec.msgpack.encode({**TOO_LONG, "incarnation": -1}), id="a number below zero"),
        pytest.param(HEAD + msgspec.msgpack.encode({**TOO_LONG, "more": 1}), id="a field nobody knows"),
        pytest.param(TO_SP.encode(ToSp(1, 0, WhoIsThere())), id="the other direction"),
    ],
)
def test_what_is_no_message_is_refused_and_not_echoed(raw: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^a message (of 0 bytes is too short|does not decode)"):
        TO_VCM.decode(raw)


@pytest.mark.parametrize(
    "value", [Grant("sp1", "geheim"), Access("sp1", ("127.0.0.1:3260",), "geheim")], ids=["grant", "access"]
)
def test_no_secret_is_shown(value: Grant | Access) -> None:
    order = Follow(epoch=1, grant=value) if isinstance(value, Grant) else value
    assert "sp1" in repr(order)
    assert "geheim" not in repr(order)
