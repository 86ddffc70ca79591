"""Messages as bytes: of this version alone, and of bounded size."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from appliance.control.orders import ToSp
from appliance.control.reports import FromSp
from appliance.control.requests import FromMic, ToMic
from backstores.errors import ProtocolError

VERSION: Final = 1
MOST_BYTES: Final = 1 << 20
HEAD_BYTES: Final = 2  # the version, most significant byte first, in front of MessagePack

T = TypeVar("T")


class Codec(Generic[T]):
    """Messages in one direction, as bytes."""

    def __init__(self, kind: object) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)

    def encode(self, message: T) -> bytes:
        """Give the bytes of a message.

        Raises:
            ProtocolError: there are too many.
        """
        raw = VERSION.to_bytes(HEAD_BYTES, "big") + self._encoder.encode(message)
        _require_size(len(raw))
        return raw

    def decode(self, raw: bytes) -> T:
        """Read a message.

        Raises:
            ProtocolError: it is too large, of another version, or none of this direction.
        """
        _require_size(len(raw))
        if len(raw) < HEAD_BYTES:
            raise ProtocolError(f"a message of {len(raw)} bytes is too short: {HEAD_BYTES} are its version alone")
        version = int.from_bytes(raw[:HEAD_BYTES], "big")
        if version != VERSION:
            raise ProtocolError(
                f"a message of version {version} came, this process speaks version {VERSION}: run the same release"
                " on all machines"
            )
        try:
            return self._decoder.decode(raw[HEAD_BYTES:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError("a message does not decode: it is no message of this direction") from error


def _require_size(length_bytes: int) -> None:
    if length_bytes > MOST_BYTES:
        raise ProtocolError(f"a message of {length_bytes} bytes is too large: {MOST_BYTES} are the most")


TO_VCM: Final[Codec[FromSp | FromMic]] = Codec(FromSp | FromMic)
TO_SP: Final[Codec[ToSp]] = Codec(ToSp)
TO_MIC: Final[Codec[ToMic]] = Codec(ToMic)
FROM_SP: Final[Codec[FromSp]] = Codec(FromSp)
FROM_MIC: Final[Codec[FromMic]] = Codec(FromMic)
"""What one kind of process says to the VCM, which understands both."""
