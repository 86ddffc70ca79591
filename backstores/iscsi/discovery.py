"""Text requests in the full feature phase: SendTargets above all (RFC 7143, 11.10-11.11 and appendix C).

Both directions may take several PDUs. One exchange runs at a time; its Target Transfer Tag ties the requests
together, and a request with the reserved tag begins anew and forgets what was there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.access import Access, Portal
from backstores.iscsi.limits import TEXT_BYTES
from backstores.iscsi.login import Grant
from backstores.iscsi.negotiate import REJECT, Stage, answer
from backstores.iscsi.pdu import NO_TAG, TextRequest
from backstores.iscsi.text import build_text, parse_text

SEND_TARGETS: Final = "SendTargets"


class TextExchangeError(ProtocolError):
    """A text request that does not fit the exchange that runs."""


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """What a Text Response says. ``ttt`` is the reserved tag at the end of an exchange."""

    text: bytes
    ttt: int = NO_TAG
    more: bool = False  # C: the text goes on


def send_targets(access: Access, grant: Grant, wanted: str) -> str | list[tuple[str, str]]:
    """List targets and their portals, of those that the host may log in to (S2)."""
    discovery = grant.target is None
    if wanted == "All" and not discovery:
        return REJECT
    name = wanted or grant.target
    pairs: list[tuple[str, str]] = []
    for target in access.targets(grant.account):
        # A normal session hears of its own target alone (appendix C).
        if (wanted == "All" or target.name == name) and (discovery or target.name == grant.target):
            pairs.append(("TargetName", target.name))
            pairs += [("TargetAddress", _address(portal)) for portal in target.portals]
    return pairs


def _address(portal: Portal) -> str:
    host = f"[{portal.address}]" if ":" in portal.address else portal.address
    return f"{host}:{portal.port},{portal.group_tag}"


class TextExchange:
    """The text negotiation of one connection."""

    def __init__(self, access: Access, grant: Grant, set_segment_bytes: Callable[[int], None]) -> None:
        self._access = access
        self._grant = grant
        self._set_segment_bytes = set_segment_bytes
        self._ttt = NO_TAG
        self._last_ttt = 0
        self._received = b""
        self._unsent = b""

    def step(self, request: TextRequest, data: bytes, segment_bytes: int) -> TextAnswer:
        """Handle one request; the answer fits ``segment_bytes``.

        Raises:
            TextError: the text breaks the format.
            TextExchangeError: an unknown tag, F together with C, or too much text.
        """
        if request.ttt == NO_TAG:
            self._reset()
        elif request.ttt != self._ttt:
            raise TextExchangeError("the tag of a text request belongs to no exchange")
        if self._unsent:
            return self._next_part(segment_bytes)
        if len(self._received) + len(data) > TEXT_BYTES:
            self._reset()
            raise TextExchangeError(f"more than {TEXT_BYTES} bytes of text")
        if request.more and request.final:
            self._reset()
            raise TextExchangeError("a text request with F and C")
        self._received += data
        if request.more:
            return TextAnswer(b"", self._new_tag())
        text, self._received = self._received, b""
        self._unsent = build_text(self._answers(parse_text(text)))
        return self._next_part(segment_bytes)

    def _reset(self) -> None:
        self._ttt, self._received, self._unsent = NO_TAG, b"", b""

    def _new_tag(self) -> int:
        self._last_ttt = self._last_ttt % (NO_TAG - 1) + 1
        self._ttt = self._last_ttt
        return self._ttt

    def _next_part(self, segment_bytes: int) -> TextAnswer:
        part, self._unsent = self._unsent[:segment_bytes], self._unsent[segment_bytes:]
        if self._unsent:
            return TextAnswer(part, self._new_tag(), more=True)
        self._reset()
        return TextAnswer(part)

    def _answers(self, pairs: dict[str, str]) -> list[tuple[str, str]]:
        replies: list[tuple[str, str]] = []
        for name, offered in pairs.items():
            if name == SEND_TARGETS:
                found = send_targets(self._access, self._grant, offered)
                replies += [(name, found)] if isinstance(found, str) else found
                continue
            response = answer(name, offered, Stage.FULL_FEATURE, self._grant.target is None)
            if name == "MaxRecvDataSegmentLength" and response.value is not None:
                self._set_segment_bytes(int(response.value))
            if response.reply is not None:
                replies.append((name, response.reply))
        return replies
