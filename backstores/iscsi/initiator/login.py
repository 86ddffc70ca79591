"""The login phase from the initiator's side (RFC 7143, clauses 6.3 and 11.12-11.13), without I/O.

Two stages. In the first the initiator says who it is and proves it (CHAP), or that there is nothing to prove; in
the second all operational keys are offered at once. A target may answer in pieces and go on asking; how
much of that is listened to is bounded in text and in rounds (S3).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.offers import accept, offers
from backstores.iscsi.initiator.proof import ChapProof, Pairs
from backstores.iscsi.limits import TEXT_BYTES
from backstores.iscsi.negotiate import KEYS, Parameters, Value, answer
from backstores.iscsi.pdu import LoginResponse
from backstores.iscsi.text import build_text, parse_text

ROUNDS: Final = 16  # of request and response; an ordinary login with CHAP takes four
ITT: Final = 0  # of all login requests; tasks begin with 1
FIRST_CMD_SN: Final = 1
SECURITY_STAGE, OPERATIONAL_STAGE, FULL_FEATURE_STAGE = 0, 1, 3

REFUSALS: Final[Mapping[int, str]] = {
    0x0101: "the target has moved for now",
    0x0102: "the target has moved for good",
    0x0200: "the target finds fault with our request",
    0x0201: "the target refuses our CHAP name or secret",
    0x0202: "the target does not let this initiator name in",
    0x0203: "there is no such target there",
    0x0204: "the target was removed",
    0x0205: "the target speaks another version of iSCSI",
    0x0206: "the target takes no more connections",
    0x0207: "the target misses a key",
    0x0209: "the target knows no such type of session",
    0x020A: "the target does not know the session any more",
    0x0300: "the target has failed",
    0x0301: "the target is out of service at the moment",
    0x0302: "the target is out of resources at the moment",
}
"""Status-Class and Status-Detail (11.13.5)."""


class LoginFailed(ProtocolError):
    """A login that did not come about. ``status``: of 11.13.5, where it was the target that refused."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logs in to what, and how. ``chap`` is ours, ``mutual`` what the target must prove itself with."""

    initiator: str
    target: str
    isid: bytes
    chap: Credentials | None = None
    mutual: Credentials | None = None
    header_digest: bool = False
    data_digest: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What the next Login Request says beyond serial numbers."""

    pairs: Pairs = field(repr=False)
    stage: int = SECURITY_STAGE
    next_stage: int | None = None  # None: T is 0

    @property
    def text(self) -> bytes:
        """The data segment."""
        return build_text(self.pairs)

    @property
    def fields(self) -> dict[str, int]:
        """What the header says of the stages."""
        transit = self.next_stage is not None
        return {"current_stage": self.stage, "transit": int(transit), "next_stage": self.next_stage or 0}


class Phase(enum.Enum):
    """Where a login stands."""

    INTRODUCING = "introducing ourselves"
    CHALLENGED = "asking for a challenge"
    PROVING = "proving who we are"
    OFFERING = "operational negotiation"
    DONE = "full feature"
    FAILED = "failed"


class Event(enum.Enum):
    """What moves a login on."""

    CHAP_AGREED = "AuthMethod=CHAP"
    PROOF_SENT = "our proof is on its way"
    STAGE_LEFT = "the security stage is over"
    LOGGED_IN = "the operational stage is over"
    FAIL = "fail"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.INTRODUCING: {
        Event.CHAP_AGREED: Phase.CHALLENGED,
        Event.STAGE_LEFT: Phase.OFFERING,
        Event.FAIL: Phase.FAILED,
    },
    Phase.CHALLENGED: {Event.PROOF_SENT: Phase.PROVING, Event.FAIL: Phase.FAILED},
    Phase.PROVING: {Event.STAGE_LEFT: Phase.OFFERING, Event.FAIL: Phase.FAILED},
    Phase.OFFERING: {Event.LOGGED_IN: Phase.DONE, Event.FAIL: Phase.FAILED},
    Phase.DONE: {},
    Phase.FAILED: {},
}


class Login:
    """One login: ``first`` gives the first request, ``step`` takes a response and gives the next one or None."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.phase = Phase.INTRODUCING
        self.tsih = 0
        self.rounds = 0  # requests so far
        self._proof = None if identity.chap is None else ChapProof(identity.chap, identity.mutual)
        self._offered: dict[str, str] = {}
        self._values: dict[str, Value] = {}
        self._text = b""
        self._text_bytes = 0
        self._last = Request([])

    @property
    def parameters(self) -> Parameters:
        """What the connection works with once the login is done."""
        return Parameters.from_values(self._values, declared=True)

    def first(self) -> Request:
        """Introduce ourselves; without CHAP the security stage is over with that."""
        identity = self.identity
        names = [
            ("InitiatorName", identity.initiator),
            ("TargetName", identity.target),
            ("SessionType", "Normal"),
            ("AuthMethod", "None" if self._proof is None else "CHAP"),
        ]
        return self._say(Request(names, SECURITY_STAGE, OPERATIONAL_STAGE if self._proof is None else None))

    def step(self, answered: LoginResponse, text: bytes) -> Request | None:
        """Take a response; give the next request, or None once we are logged in.

        Raises:
            ProtocolError: the login has failed.
        """
        try:
            return self._step(answered, text)
        except ProtocolError:
            self._move(Event.FAIL)
            raise

    def _move(self, event: Event) -> None:
        self.phase = TRANSITIONS[self.phase][event]

    def _say(self, request: Request) -> Request:
        self.rounds += 1
        if self.rounds > ROUNDS:
            raise LoginFailed(f"the target does not come to an end within {ROUNDS} login requests")
        self._last = request
        return request

    def _step(self, answered: LoginResponse, text: bytes) -> Request | None:
        if answered.status:
            raise LoginFailed(REFUSALS.get(answered.status, f"login status {answered.status:#06x}"), answered.status)
        asked = self._last
        if answered.itt != ITT or answered.isid != self.identity.isid or answered.version_active:
            raise LoginFailed("a login response that belongs to another login, or to another version of iSCSI")
        if answered.current_stage != asked.stage or (answered.transit and answered.next_stage != asked.next_stage):
            raise LoginFailed(f"a login response of stage {answered.current_stage} to a request of {asked.stage}")
        self._text_bytes += len(text)
        if self._text_bytes > TEXT_BYTES:
            raise LoginFailed(f"more than {TEXT_BYTES} bytes of login text")
        self._text += text
        if answered.more:
            return self._say(Request([], asked.stage))
        whole, self._text = self._text, b""
        pairs = parse_text(whole)
        if self.phase is Phase.OFFERING:
            return self._offering(answered, pairs)
        return self._security(answered, pairs)

    # The security stage

    def _security(self, answered: LoginResponse, pairs: Mapping[str, str]) -> Request | None:
        proof = self._proof
        if self.phase is Phase.INTRODUCING and proof is not None:
            if pairs.get("AuthMethod") != "CHAP" or answered.transit:
                raise LoginFailed("the target does not ask for CHAP, though a CHAP name and secret are set for it")
            self._move(Event.CHAP_AGREED)
            return self._say(Request(proof.offer()))
        if self.phase is Phase.CHALLENGED and proof is not None:
            replies = proof.answer(pairs)
            self._move(Event.PROOF_SENT)
            return self._say(Request(replies, SECURITY_STAGE, OPERATIONAL_STAGE))
        if self.phase is Phase.PROVING and proof is not None:
            proof.verify(pairs)
        elif pairs.get("AuthMethod", "None") != "None":
            raise LoginFailed("the target asks for CHAP; set a CHAP name and secret for it")
        if not answered.transit:
            return self._say(Request([], SECURITY_STAGE, OPERATIONAL_STAGE))
        self._move(Event.STAGE_LEFT)
        self._offered = dict(offers(self.identity.header_digest, self.identity.data_digest))
        return self._say(Request(list(self._offered.items()), OPERATIONAL_STAGE, FULL_FEATURE_STAGE))

    # The operational stage

    def _offering(self, answered: LoginResponse, pairs: Mapping[str, str]) -> Request | None:
        replies: Pairs = []
        for name, value in pairs.items():
            if name in self._values:
                raise LoginFailed("the target answers a key twice")
            if name in self._offered:
                self._values[name] = accept(name, self._offered[name], value)
            elif name not in _TARGETS_OWN:
                response = answer(name, value)
                if response.value is not None:
                    self._values[name] = response.value
                if response.reply is not None:
                    replies.append((name, response.reply))
        if not answered.transit:
            return self._say(Request(replies, OPERATIONAL_STAGE, FULL_FEATURE_STAGE))
        if replies:
            raise LoginFailed("the target ends the login with a question")
        self._check_digests()
        self.tsih = answered.tsih
        self._move(Event.LOGGED_IN)
        return None

    def _check_digests(self) -> None:
        for name in ("HeaderDigest", "DataDigest"):
            if self._values.get(name, KEYS[name].default) != self._offered[name]:
                raise LoginFailed(f"the target did not answer {name}={self._offered[name]}")


_TARGETS_OWN: Final = frozenset({"TargetAlias", "TargetAddress", "TargetPortalGroupTag"})
