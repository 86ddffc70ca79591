"""The login phase of one connection (RFC 7143, clauses 6.3 and 11.12-11.13).

``Login.step`` takes one Login Request and gives what its response says; it decides who the initiator is and
what the connection works with, but opens nothing: a session and its nexus come to be only after the
step that carries a ``Grant`` (S1). Whatever goes wrong ends in one status of 11.13.5 and in the phase
REFUSED; the reason is for our log.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.access import Access, Account
from backstores.iscsi.chap import ChapError, ChapExchange
from backstores.iscsi.limits import MAX_SEGMENT_BYTES, TEXT_BYTES
from backstores.iscsi.negotiate import REJECT, Parameters, Value, answer
from backstores.iscsi.pdu import LoginRequest
from backstores.iscsi.text import TextError, build_text, is_name, parse_text


class LoginStatus(enum.IntEnum):
    """Status-Class and Status-Detail (11.13.5)."""

    SUCCESS = 0x0000
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class LoginRefused(ProtocolError):
    """A login that ends here. The message is for our log, the status for the initiator."""

    def __init__(self, status: LoginStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Phase(enum.Enum):
    """Where a login stands."""

    START = "start"
    SECURITY = "security negotiation"
    OPERATIONAL = "operational negotiation"
    FULL_FEATURE = "full feature"
    REFUSED = "refused"


class Event(enum.Enum):
    """What moves a login on."""

    BEGIN_SECURITY = "first request, CSG 0"
    BEGIN_OPERATIONAL = "first request, CSG 1"
    TO_OPERATIONAL = "transit, NSG 1"
    TO_FULL_FEATURE = "transit, NSG 3"
    REFUSE = "refuse"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.START: {
        Event.BEGIN_SECURITY: Phase.SECURITY,
        Event.BEGIN_OPERATIONAL: Phase.OPERATIONAL,
        Event.REFUSE: Phase.REFUSED,
    },
    Phase.SECURITY: {
        Event.TO_OPERATIONAL: Phase.OPERATIONAL,
        Event.TO_FULL_FEATURE: Phase.FULL_FEATURE,
        Event.REFUSE: Phase.REFUSED,
    },
    Phase.OPERATIONAL: {
        Event.TO_FULL_FEATURE: Phase.FULL_FEATURE,
        Event.REFUSE: Phase.REFUSED,
    },
    Phase.FULL_FEATURE: {
        Event.REFUSE: Phase.REFUSED,  # the session could not be opened after all
    },
    Phase.REFUSED: {},
}

_STAGES: Final[Mapping[int, Phase]] = {0: Phase.SECURITY, 1: Phase.OPERATIONAL}
_BEGIN: Final[Mapping[int, Event]] = {0: Event.BEGIN_SECURITY, 1: Event.BEGIN_OPERATIONAL}
_TRANSIT: Final[Mapping[int, Event]] = {1: Event.TO_OPERATIONAL, 3: Event.TO_FULL_FEATURE}
_SECURITY_KEYS: Final = frozenset({"AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"})


@dataclass(frozen=True, slots=True)
class Grant:
    """A login that has succeeded. ``target`` is None for a discovery session."""

    account: Account
    initiator: str
    target: str | None
    isid: bytes
    tsih: int  # what the initiator asked for: 0 for a new session
    cid: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """What a Login Response says beyond serial numbers."""

    text: bytes = b""
    transit: bool = False
    status: LoginStatus = LoginStatus.SUCCESS
    grant: Grant | None = None
    reason: str = ""  # why it was refused


class Login:
    """One connection's way from its first byte to the full feature phase."""

    def __init__(self, access: Access, group_tag: int) -> None:
        self.phase = Phase.START
        self.initiator = ""
        self._access = access
        self._group_tag = group_tag
        self._account: Account | None = None
        self._target: str | None = None
        self._discovery = False
        self._identity = (b"", 0, 0)  # ISID, TSIH, CID: the same in every request
        self._text = b""
        self._text_bytes = 0  # of the whole login
        self._values: dict[str, Value] = {}
        self._offered: set[str] = set()
        self._chap: ChapExchange | None = None
        self._challenged = False
        self._authenticated = False
        self._declared = False  # our MaxRecvDataSegmentLength

    def step(self, request: LoginRequest, data: bytes) -> LoginAnswer:
        """Handle one request; ``data`` is its data segment."""
        try:
            return self._step(request, data)
        except LoginRefused as refused:
            return self.refuse(refused)

    def refuse(self, refused: LoginRefused) -> LoginAnswer:
        """End the login with a status."""
        self._move(Event.REFUSE)
        return LoginAnswer(status=refused.status, reason=str(refused))

    def _move(self, event: Event) -> None:
        self.phase = TRANSITIONS[self.phase][event]

    def _step(self, request: LoginRequest, data: bytes) -> LoginAnswer:
        self._check_header(request)
        self._text_bytes += len(data)
        if self._text_bytes > TEXT_BYTES:  # S1: keys are remembered, so that none is negotiated twice
            raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"more than {TEXT_BYTES} bytes of login text")
        self._text += data
        if request.more:
            return LoginAnswer()
        text, self._text = self._text, b""
        try:
            pairs = parse_text(text)
        except TextError as error:
            raise LoginRefused(LoginStatus.INITIATOR_ERROR, str(error)) from error
        replies: list[tuple[str, str]] = []
        account = self._account
        if account is None:
            account = self._identify(pairs)
            if self._target is not None:
                replies.append(("TargetPortalGroupTag", str(self._group_tag)))  # 13.9
        if self.phase is Phase.SECURITY:
            replies += self._authenticate(account, pairs)
        elif not self._authenticated:
            raise LoginRefused(LoginStatus.AUTHENTICATION_FAILURE, "the initiator skips authentication")
        replies += self._negotiate(pairs)
        transit = bool(request.transit) and (self.phase is Phase.OPERATIONAL or self._may_leave_security())
        if transit:
            self._move(_TRANSIT[request.next_stage])
        grant = self._grant(account) if self.phase is Phase.FULL_FEATURE else None
        return LoginAnswer(build_text(replies), transit, grant=grant)

    def _check_header(self, request: LoginRequest) -> None:
        """Hold a request against 11.12 and against the requests before it."""
        identity = (request.isid, request.tsih, request.cid)
        if request.version_min > 0:
            raise LoginRefused(LoginStatus.UNSUPPORTED_VERSION, "the initiator takes no version 0")
        if request.ahs_words or not request.immediate or (request.more and request.transit):
            raise LoginRefused(LoginStatus.INITIATOR_ERROR, "a login request with an AHS, not immediate, or T and C")
        if request.current_stage not in _STAGES:
            raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"CSG {request.current_stage} is not 0 or 1")
        if request.transit and not (request.next_stage in _TRANSIT and request.next_stage > request.current_stage):
            raise LoginRefused(
                LoginStatus.INITIATOR_ERROR, f"NSG {request.next_stage} can't follow CSG {request.current_stage}"
            )
        if self.phase is Phase.START:
            self._identity = identity
            self._move(_BEGIN[request.current_stage])
        elif self._identity != identity or self.phase is not _STAGES[request.current_stage]:
            raise LoginRefused(LoginStatus.INITIATOR_ERROR, "ISID, TSIH, CID or CSG changed during the login")

    def _identify(self, pairs: Mapping[str, str]) -> Account:
        """Find out who logs in to what, from the keys that must be in the first request (6.3.1)."""
        initiator = pairs.get("InitiatorName", "")
        if not is_name(initiator):
            raise LoginRefused(LoginStatus.MISSING_PARAMETER, "no valid InitiatorName")
        self.initiator = initiator
        session_type = pairs.get("SessionType", "Normal")
        if session_type not in ("Normal", "Discovery"):
            raise LoginRefused(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, "SessionType is neither Normal nor Discovery")
        self._discovery = session_type == "Discovery"
        # S2: who has no account learns neither names nor that there are any, in discovery as elsewhere.
        account = self._access.account(initiator)
        if account is None:
            raise LoginRefused(LoginStatus.AUTHORIZATION_FAILURE, "no host has this initiator name")
        if not self._discovery:
            self._target = self._find_target(account, pairs)
        self._authenticated = account.chap is None
        self._account = account
        return account

    def _find_target(self, account: Account, pairs: Mapping[str, str]) -> str:
        name = pairs.get("TargetName", "")
        if not name:
            raise LoginRefused(LoginStatus.MISSING_PARAMETER, "a normal session without TargetName")
        for target in self._access.targets(account):
            if target.name == name and any(portal.group_tag == self._group_tag for portal in target.portals):
                return name
        raise LoginRefused(LoginStatus.NOT_FOUND, "no such target for this host at this portal")

    def _authenticate(self, account: Account, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        """Handle the keys of the security stage (12.1)."""
        replies: list[tuple[str, str]] = []
        if "AuthMethod" in pairs:
            method = "None" if account.chap is None else "CHAP"
            if self._chap is not None or method not in pairs["AuthMethod"].split(","):
                raise LoginRefused(LoginStatus.AUTHENTICATION_FAILURE, f"the initiator does not offer {method}")
            if account.chap is not None:
                self._chap = ChapExchange(account)
            replies.append(("AuthMethod", method))
        if not any(name.startswith("CHAP_") for name in pairs):
            return replies
        if self._chap is None or self._authenticated:
            raise LoginRefused(LoginStatus.AUTHENTICATION_FAILURE, "a CHAP key that nothing asked for")
        try:
            if self._challenged:
                replies += self._chap.verify(pairs)
                self._authenticated = True
            else:
                replies += self._chap.challenge(pairs)
                self._challenged = True
        except ChapError as error:
            raise LoginRefused(LoginStatus.AUTHENTICATION_FAILURE, str(error)) from error
        return replies

    def _may_leave_security(self) -> bool:
        if not self._authenticated and self._chap is None:
            raise LoginRefused(LoginStatus.AUTHENTICATION_FAILURE, "the initiator skips authentication")
        return self._authenticated

    def _negotiate(self, pairs: Mapping[str, str]) -> list[tuple[str, str]]:
        """Answer the operational keys."""
        replies: list[tuple[str, str]] = []
        security = self.phase is Phase.SECURITY
        for name, offered in pairs.items():
            if name in _SECURITY_KEYS:
                if not security:
                    replies.append((name, REJECT))
                continue
            if name in self._offered:
                raise LoginRefused(LoginStatus.INITIATOR_ERROR, "a key is negotiated twice")  # 6.3
            self._offered.add(name)
            response = answer(name, offered, discovery=self._discovery)
            if response.value is not None:
                self._values[name] = response.value
            if response.reply is not None:
                replies.append((name, response.reply))
        if not security and not self._declared:
            self._declared = True
            replies.append(("MaxRecvDataSegmentLength", str(MAX_SEGMENT_BYTES)))
        return replies

    def _grant(self, account: Account) -> Grant:
        """Let the initiator in, unless its host was changed or deleted while it logged in (S2)."""
        if self._access.account(self.initiator) != account:
            raise LoginRefused(LoginStatus.AUTHORIZATION_FAILURE, "the initiator's host was changed during the login")
        isid, tsih, cid = self._identity
        parameters = Parameters.from_values(self._values, self._declared)
        return Grant(account, self.initiator, self._target, isid, tsih, cid, parameters)
