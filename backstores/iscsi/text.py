"""Text of login and text PDUs: key=value pairs, each ended by a zero byte (RFC 7143, clause 6.1).

Parsing goes by length, so that a text without its last zero byte is read to its end and no further. Keys
are checked before anything else looks at them, because "NotUnderstood" has to repeat them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from backstores.errors import ProtocolError

MAX_PAIRS: Final = 64
MAX_KEY_BYTES: Final = 63
MAX_VALUE_BYTES: Final = 2100  # the longest legal one is a CHAP challenge: 1,024 bytes in hexadecimal
MAX_NAME_BYTES: Final = 223

_KEY = re.compile(rb"[A-Za-z][A-Za-z0-9.+@_#/-]{0,62}")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


class TextError(ProtocolError):
    """A text that breaks the format; nothing of it is repeated."""


def parse_text(text: bytes) -> dict[str, str]:
    """Take a text apart.

    Raises:
        TextError: too many pairs, no "=", an illegal or repeated key, an overlong or undecodable value.
    """
    pairs: dict[str, str] = {}
    for number, part in enumerate(filter(None, text.split(b"\0")), 1):
        if number > MAX_PAIRS:
            raise TextError(f"more than {MAX_PAIRS} keys in one text")
        key, separator, value = part.partition(b"=")
        if not separator or not _KEY.fullmatch(key):
            raise TextError(f"key {number} is not 1 to {MAX_KEY_BYTES} legal characters followed by =")
        if len(value) > MAX_VALUE_BYTES:
            raise TextError(f"value {number} has {len(value)} bytes (limit {MAX_VALUE_BYTES})")
        name = key.decode("ascii")
        if name in pairs:
            raise TextError(f"key {number} is there twice")
        try:
            pairs[name] = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TextError(f"value {number} is not UTF-8") from error
    return pairs


def build_text(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Put pairs together."""
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def parse_number(value: str) -> int | None:
    """Read a decimal or hexadecimal number; None when it is none."""
    if not _NUMBER.fullmatch(value):
        return None
    return int(value, 16 if value[:2].lower() == "0x" else 10)


def is_name(value: str) -> bool:
    """Tell whether a value can be an iSCSI name: 1 to 223 bytes (4.2.7.1), without blanks and control characters."""
    return 0 < len(value.encode()) <= MAX_NAME_BYTES and value.isprintable() and " " not in value
