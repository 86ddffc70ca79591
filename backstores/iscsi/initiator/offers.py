"""What an initiator offers, and what it takes for an answer: the table of ``negotiate`` seen from the other side.

An answer outside of what was offered is a violation: a target that says MaxBurstLength=2000000 to an offer of
1048576 would later ask for more than we have set aside (S3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.negotiate import IRRELEVANT, KEYS, NOT_UNDERSTOOD, REJECT, Key, Kind, Value
from backstores.iscsi.text import parse_number

NO_ANSWERS: Final = frozenset({NOT_UNDERSTOOD, REJECT, IRRELEVANT})
DIGESTS: Final[Mapping[bool, str]] = {True: "CRC32C", False: "None"}

_OFFERED: Final = (
    "MaxConnections",
    "InitialR2T",
    "ImmediateData",
    "MaxRecvDataSegmentLength",
    "MaxBurstLength",
    "FirstBurstLength",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "MaxOutstandingR2T",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "ErrorRecoveryLevel",
)


class OfferError(ProtocolError):
    """A target's answer to a key that we can't take."""


def offers(header_digest: bool, data_digest: bool) -> list[tuple[str, str]]:
    """List the operational keys of a login request."""
    pairs = [("HeaderDigest", DIGESTS[header_digest]), ("DataDigest", DIGESTS[data_digest])]
    return pairs + [(name, _text(KEYS[name].ours)) for name in _OFFERED]


def _text(value: Value) -> str:
    return {True: "Yes", False: "No"}[value] if isinstance(value, bool) else str(value)


def accept(name: str, offered: str, answered: str) -> Value:
    """Give the value that holds after a target has answered an offer of ours, or declared a value of its own.

    Raises:
        OfferError: it is no answer to this offer.
    """
    key = KEYS[name]
    if answered in NO_ANSWERS:
        if key.kind is Kind.LIST and offered != key.default:
            raise OfferError(f"the target has no {name}={offered}")
        return key.default
    match key.kind:
        case Kind.LIST:
            if answered != offered:
                raise OfferError(f"the target has no {name}={offered}")
            return answered
        case Kind.AND | Kind.OR:
            # AND can only take away from a Yes, OR from a No (6.2.2): what ends a negotiation never goes against us.
            fixed = "No" if key.kind is Kind.AND else "Yes"
            if answered in (offered, fixed):
                return answered == "Yes"
        case Kind.MINIMUM | Kind.MAXIMUM | Kind.DECLARED:
            return _number(name, key, offered, answered)
        case _:
            return answered
    raise OfferError(f"the answer to {name}={offered} is none that it allows")


def _number(name: str, key: Key, offered: str, answered: str) -> int:
    low, high = key.low, key.high
    if key.kind is Kind.MINIMUM:
        high = int(offered)
    elif key.kind is Kind.MAXIMUM:
        low = int(offered)
    number = parse_number(answered)
    if number is None or not low <= number <= high:
        raise OfferError(f"the answer to {name} is no number of {low} to {high}")
    return number
