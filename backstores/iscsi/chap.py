"""CHAP, one-way and mutual (RFC 7143, clause 12.1.3; RFC 1994).

Every length is checked before anything is decoded, every comparison takes constant time, and a peer that
sends our own challenge back (to have us compute its answer) is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.access import Account

# IANA's PPP authentication algorithm numbers, and hashlib's names.
ALGORITHMS: Final[Mapping[int, str]] = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3_256"}
CHALLENGE_BYTES: Final = 32
MAX_CHALLENGE_BYTES: Final = 1024
MAX_ALGORITHMS_OFFERED: Final = 16

RandomBytes = Callable[[int], bytes]


class ChapError(ProtocolError):
    """An authentication that failed. The text is for our log alone: the peer learns only that it failed."""


def response(algorithm: int, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """Compute what answers a challenge."""
    return hashlib.new(ALGORITHMS[algorithm], bytes([identifier]) + secret + challenge).digest()


def encode(data: bytes) -> str:
    """Write a binary value as hexadecimal (6.1)."""
    return "0x" + data.hex()


def decode(value: str, low: int, high: int) -> bytes:
    """Read a binary value of ``low`` to ``high`` bytes, hexadecimal or base 64.

    Raises:
        ChapError: another length or no such number.
    """
    form, digits = value[:2].lower(), value[2:]
    length = len(digits) // 2 if form == "0x" else len(digits.rstrip("=")) * 3 // 4
    if form not in ("0x", "0b") or not low <= length <= high:
        raise ChapError(f"a binary value is not {low} to {high} bytes long in hexadecimal or base 64")
    try:
        data = bytes.fromhex(digits) if form == "0x" else base64.b64decode(digits, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ChapError("a binary value is neither hexadecimal nor base 64") from error
    if len(data) != length:  # fromhex skips blanks
        raise ChapError("a binary value has blanks in it")
    return data


class ChapExchange:
    """One login's authentication: ``challenge`` answers CHAP_A, ``verify`` what comes back."""

    def __init__(self, account: Account, random_bytes: RandomBytes = secrets.token_bytes) -> None:
        self._account = account
        self._random_bytes = random_bytes
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""

    def challenge(self, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        """Choose the first algorithm of the initiator's list that we know, and ask.

        Raises:
            ChapError: no CHAP_A, or nothing in it that we know.
        """
        offered = pairs.get("CHAP_A", "").split(",")[:MAX_ALGORITHMS_OFFERED]
        known = {str(number): number for number in ALGORITHMS}
        chosen = next((known[text] for text in offered if text in known), None)
        if chosen is None:
            raise ChapError("the initiator offers no CHAP algorithm that we know")
        self._algorithm = chosen
        self._identifier = self._random_bytes(1)[0]
        self._challenge = self._random_bytes(CHALLENGE_BYTES)
        return [
            ("CHAP_A", str(chosen)),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", encode(self._challenge)),
        ]

    def verify(self, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        """Check the initiator's answer; reply to its own challenge if it sent one.

        Raises:
            ChapError: it is wrong, or it asks for a proof that we can't or won't give.
        """
        credentials = self._account.chap
        assert credentials is not None
        size = hashlib.new(ALGORITHMS[self._algorithm]).digest_size
        given = decode(pairs.get("CHAP_R", ""), size, size)
        wanted = response(self._algorithm, self._identifier, credentials.secret, self._challenge)
        name_matches = hmac.compare_digest(pairs.get("CHAP_N", "").encode(), credentials.user.encode())
        if not (hmac.compare_digest(given, wanted) and name_matches):
            raise ChapError("the CHAP name or secret is wrong")
        if "CHAP_I" not in pairs and "CHAP_C" not in pairs:
            return []
        return self._prove(pairs)

    def _prove(self, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        mutual, credentials = self._account.mutual, self._account.chap
        if mutual is None:
            raise ChapError("the initiator asks for mutual CHAP, which its account lacks")
        assert credentials is not None
        if hmac.compare_digest(mutual.secret, credentials.secret):
            raise ChapError("both directions of mutual CHAP have the same secret")  # 9.2.1 forbids it
        identifier = pairs.get("CHAP_I", "")
        if not (identifier.isascii() and identifier.isdigit() and len(identifier) <= 3 and int(identifier) <= 255):
            raise ChapError("CHAP_I is not a number of 0 to 255")
        challenge = decode(pairs.get("CHAP_C", ""), 1, MAX_CHALLENGE_BYTES)
        if challenge == self._challenge:
            raise ChapError("the initiator sent our own challenge back")
        proof = response(self._algorithm, int(identifier), mutual.secret, challenge)
        return [("CHAP_N", mutual.user), ("CHAP_R", encode(proof))]
