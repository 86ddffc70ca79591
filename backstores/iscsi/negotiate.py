"""Operational keys (RFC 7143, clause 13): one table, and one pure function that answers an offer.

The target only responds: it never offers a key of its own but MaxRecvDataSegmentLength, which each side
declares for itself. So a key that the initiator leaves out keeps its default.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from backstores.iscsi.limits import FIRST_BURST_BYTES, LOGIN_SEGMENT_BYTES, MAX_BURST_BYTES, MAX_SEGMENT_BYTES
from backstores.iscsi.text import parse_number

NOT_UNDERSTOOD: Final = "NotUnderstood"
REJECT: Final = "Reject"
IRRELEVANT: Final = "Irrelevant"


class Kind(enum.Enum):
    """How the result of two sides' values comes about (6.2)."""

    LIST = enum.auto()  # the first of the initiator's that we know
    AND = enum.auto()
    OR = enum.auto()
    MINIMUM = enum.auto()
    MAXIMUM = enum.auto()
    DECLARED = enum.auto()  # a number that needs no answer, clamped to its range
    INFORMATION = enum.auto()  # a text that needs no answer
    OBSOLETE = enum.auto()  # the answer is always the same (13.25, 13.26)


class Stage(enum.Flag):
    """When the initiator may send a key."""

    LOGIN = enum.auto()
    FULL_FEATURE = enum.auto()
    ANY = LOGIN | FULL_FEATURE


Value = str | int | bool


@dataclass(frozen=True, slots=True)
class Key:
    """A row of the table. ``ours`` is our side's value; ``low`` and ``high`` bound numbers."""

    kind: Kind
    default: Value = ""
    ours: Value = ""
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    stage: Stage = Stage.LOGIN
    in_discovery: bool = True  # False: means nothing in a discovery session


_SEGMENT_LIMIT: Final = (1 << 24) - 1
_DIGESTS: Final = ("CRC32C", "None")

KEYS: Final[Mapping[str, Key]] = {
    "HeaderDigest": Key(Kind.LIST, "None", choices=_DIGESTS),
    "DataDigest": Key(Kind.LIST, "None", choices=_DIGESTS),
    "MaxConnections": Key(Kind.MINIMUM, 1, 1, 1, 65535, in_discovery=False),
    "InitiatorName": Key(Kind.INFORMATION),
    "InitiatorAlias": Key(Kind.INFORMATION, stage=Stage.ANY),
    "TargetName": Key(Kind.INFORMATION),
    "SessionType": Key(Kind.INFORMATION, "Normal"),
    "InitialR2T": Key(Kind.OR, True, False, in_discovery=False),
    "ImmediateData": Key(Kind.AND, True, True, in_discovery=False),
    "MaxRecvDataSegmentLength": Key(
        Kind.DECLARED, LOGIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES, 512, _SEGMENT_LIMIT, stage=Stage.ANY
    ),
    "MaxBurstLength": Key(Kind.MINIMUM, 262144, MAX_BURST_BYTES, 512, _SEGMENT_LIMIT, in_discovery=False),
    "FirstBurstLength": Key(Kind.MINIMUM, 65536, FIRST_BURST_BYTES, 512, _SEGMENT_LIMIT, in_discovery=False),
    "DefaultTime2Wait": Key(Kind.MAXIMUM, 2, 2, 0, 3600),
    "DefaultTime2Retain": Key(Kind.MINIMUM, 20, 0, 0, 3600),
    "MaxOutstandingR2T": Key(Kind.MINIMUM, 1, 1, 1, 65535, in_discovery=False),
    "DataPDUInOrder": Key(Kind.OR, True, True, in_discovery=False),
    "DataSequenceInOrder": Key(Kind.OR, True, True, in_discovery=False),
    "ErrorRecoveryLevel": Key(Kind.MINIMUM, 0, 0, 0, 2),
    "TaskReporting": Key(Kind.LIST, "RFC3720", choices=("RFC3720",), in_discovery=False),
    "iSCSIProtocolLevel": Key(Kind.MINIMUM, 1, 1, 0, 31),
    "X#NodeArchitecture": Key(Kind.INFORMATION, stage=Stage.ANY),
    "IFMarker": Key(Kind.OBSOLETE, ours="No"),
    "OFMarker": Key(Kind.OBSOLETE, ours="No"),
    "IFMarkInt": Key(Kind.OBSOLETE, ours=REJECT),
    "OFMarkInt": Key(Kind.OBSOLETE, ours=REJECT),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What to reply (None: nothing), and the value that holds from now on (None: it does not change)."""

    reply: str | None = None
    value: Value | None = None


def answer(name: str, offered: str, stage: Stage = Stage.LOGIN, discovery: bool = False) -> Answer:
    """Respond to one key that the initiator sent."""
    key = KEYS.get(name)
    if key is None:
        return Answer(NOT_UNDERSTOOD)
    if stage not in key.stage:
        return Answer(REJECT)
    if discovery and not key.in_discovery:
        return Answer(IRRELEVANT)
    match key.kind:
        case Kind.INFORMATION:
            return Answer(value=offered)
        case Kind.OBSOLETE:
            return Answer(str(key.ours))
        case Kind.LIST:
            return _answer_list(key, offered)
        case Kind.AND | Kind.OR:
            return _answer_boolean(key, offered)
        case Kind.MINIMUM | Kind.MAXIMUM | Kind.DECLARED:
            return _answer_number(key, offered)
        case _:
            assert_never(key.kind)


def _answer_list(key: Key, offered: str) -> Answer:
    for choice in offered.split(","):
        if choice in key.choices:
            return Answer(choice, choice)
    return Answer(REJECT)


def _answer_boolean(key: Key, offered: str) -> Answer:
    if offered not in ("Yes", "No"):
        return Answer(REJECT)
    theirs = offered == "Yes"
    result = bool(theirs and key.ours if key.kind is Kind.AND else theirs or key.ours)
    return Answer("Yes" if result else "No", result)


def _answer_number(key: Key, offered: str) -> Answer:
    theirs = parse_number(offered)
    if theirs is None:
        return Answer(REJECT)
    if key.kind is Kind.DECLARED:
        return Answer(value=max(key.low, min(theirs, key.high)))
    if not key.low <= theirs <= key.high:
        return Answer(REJECT)
    result = (min if key.kind is Kind.MINIMUM else max)(theirs, int(key.ours))
    return Answer(str(result), result)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a connection and its session work with: the outcome of a login."""

    header_digest: bool
    data_digest: bool
    initial_r2t: bool
    immediate_data: bool
    send_segment_bytes: int  # the initiator's MaxRecvDataSegmentLength, no more than ours
    receive_segment_bytes: int
    max_burst_bytes: int
    first_burst_bytes: int

    @classmethod
    def from_values(cls, values: Mapping[str, Value], declared: bool) -> Parameters:
        """Take the results of a negotiation; ``declared``: the initiator has heard our segment length."""
        chosen = {name: values.get(name, key.default) for name, key in KEYS.items()}
        max_burst_bytes = int(chosen["MaxBurstLength"])
        return cls(
            header_digest=chosen["HeaderDigest"] == "CRC32C",
            data_digest=chosen["DataDigest"] == "CRC32C",
            initial_r2t=bool(chosen["InitialR2T"]),
            immediate_data=bool(chosen["ImmediateData"]),
            send_segment_bytes=min(int(chosen["MaxRecvDataSegmentLength"]), MAX_SEGMENT_BYTES),
            receive_segment_bytes=MAX_SEGMENT_BYTES if declared else LOGIN_SEGMENT_BYTES,
            max_burst_bytes=max_burst_bytes,
            # 13.14: FirstBurstLength must not exceed MaxBurstLength.
            first_burst_bytes=min(int(chosen["FirstBurstLength"]), max_burst_bytes),
        )


LOGIN_PARAMETERS: Final = Parameters.from_values({}, declared=False)
