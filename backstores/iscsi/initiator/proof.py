"""CHAP from the initiator's side (RFC 7143, 12.1.3): we prove who we are, and the target may have to, too."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

from backstores.errors import UsageError
from backstores.iscsi.access import Credentials
from backstores.iscsi.chap import (
    ALGORITHMS,
    CHALLENGE_BYTES,
    MAX_CHALLENGE_BYTES,
    ChapError,
    RandomBytes,
    decode,
    encode,
    response,
)

Pairs = list[tuple[str, str]]
_PREFERRED: Final = (8, 6, 5, 7)
"""The strongest first; but SHA-256 last, since tgt (1.0.85) takes it and then has no room for the answer."""


class ChapProof:
    """One login's authentication. ``mutual``: what the target must prove itself with."""

    def __init__(
        self, ours: Credentials, mutual: Credentials | None = None, random_bytes: RandomBytes = secrets.token_bytes
    ) -> None:
        if mutual is not None and hmac.compare_digest(mutual.secret, ours.secret):
            raise UsageError("both directions of mutual CHAP have the same secret; give each its own")  # 9.2.1
        self._ours = ours
        self._mutual = mutual
        self._random_bytes = random_bytes
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""
        self.answered = False
        self.proven = mutual is None  # whether the target has done what we want of it

    def offer(self) -> Pairs:
        """Say which algorithms we know."""
        return [("CHAP_A", ",".join(map(str, _PREFERRED)))]

    def answer(self, pairs: Mapping[str, str]) -> Pairs:
        """Answer the target's challenge, and challenge it if it shall prove itself.

        Raises:
            ChapError: the challenge is none that can be answered.
        """
        algorithm, identifier = _number(pairs, "CHAP_A"), _number(pairs, "CHAP_I")
        if algorithm not in ALGORITHMS:
            raise ChapError("the target chose a CHAP algorithm that was not offered")
        challenge = decode(pairs.get("CHAP_C", ""), 1, MAX_CHALLENGE_BYTES)
        self._algorithm = algorithm
        self.answered = True
        proof = response(algorithm, identifier, self._ours.secret, challenge)
        replies = [("CHAP_N", self._ours.user), ("CHAP_R", encode(proof))]
        if self._mutual is not None:
            self._identifier = self._random_bytes(1)[0]
            self._challenge = self._random_bytes(CHALLENGE_BYTES)
            replies += [("CHAP_I", str(self._identifier)), ("CHAP_C", encode(self._challenge))]
        return replies

    def verify(self, pairs: Mapping[str, str]) -> None:
        """Check the target's proof, where one was asked for.

        Raises:
            ChapError: it is wrong or missing.
        """
        if self._mutual is None or self.proven:
            return
        size = hashlib.new(ALGORITHMS[self._algorithm]).digest_size
        given = decode(pairs.get("CHAP_R", ""), size, size)
        wanted = response(self._algorithm, self._identifier, self._mutual.secret, self._challenge)
        name_matches = hmac.compare_digest(pairs.get("CHAP_N", "").encode(), self._mutual.user.encode())
        if not (hmac.compare_digest(given, wanted) and name_matches):
            raise ChapError("the target's CHAP name or secret is wrong")
        self.proven = True


def _number(pairs: Mapping[str, str], name: str) -> int:
    text = pairs.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255):
        raise ChapError(f"{name} is not a number of 0 to 255")
    return int(text)
