"""Answers to our offers: what the table of keys allows, and nothing else (RFC 7143, clause 6.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.iscsi.initiator.offers import OfferError, accept, offers
from backstores.iscsi.negotiate import KEYS, Kind, Value, answer


@pytest.mark.parametrize(
    ("name", "offered", "answered", "value"),
    [
        ("HeaderDigest", "CRC32C", "CRC32C", "CRC32C"),
        ("HeaderDigest", "None", "None", "None"),
        ("HeaderDigest", "None", "Reject", "None"),
        ("ImmediateData", "Yes", "No", False),
        ("ImmediateData", "Yes", "Yes", True),
        ("InitialR2T", "No", "Yes", True),
        ("InitialR2T", "No", "No", False),
        ("DataPDUInOrder", "Yes", "Yes", True),
        ("MaxBurstLength", "1048576", "1048576", 1048576),
        ("MaxBurstLength", "1048576", "512", 512),
        ("MaxBurstLength", "1048576", "0x200", 512),
        ("MaxBurstLength", "1048576", "Irrelevant", 262144),
        ("DefaultTime2Wait", "2", "20", 20),
        ("ErrorRecoveryLevel", "0", "0", 0),
        ("MaxRecvDataSegmentLength", "262144", "16777215", 16777215),
    ],
)
def test_what_an_offer_allows_holds(name: str, offered: str, answered: str, value: Value) -> None:
    assert accept(name, offered, answered) == value


@pytest.mark.parametrize(
    ("name", "offered", "answered"),
    [
        ("HeaderDigest", "CRC32C", "None"),
        ("HeaderDigest", "CRC32C", "NotUnderstood"),
        ("HeaderDigest", "None", "CRC32C"),
        ("ImmediateData", "Yes", "Maybe"),
        ("DataPDUInOrder", "Yes", "No"),
        ("MaxBurstLength", "1048576", "1048577"),
        ("MaxBurstLength", "1048576", "511"),
        ("MaxBurstLength", "1048576", "-1"),
        ("MaxBurstLength", "1048576", "many"),
        ("DefaultTime2Wait", "2", "1"),
        ("MaxRecvDataSegmentLength", "262144", "16777216"),
    ],
)
def test_what_it_does_not_allow_is_refused(name: str, offered: str, answered: str) -> None:
    """S3: what is refused is not repeated, for it is the target's."""
    with pytest.raises(OfferError) as refused:
        accept(name, offered, answered)
    assert f" {answered}" not in str(refused.value)


@pytest.mark.parametrize("header_digest", [False, True])
@pytest.mark.parametrize("data_digest", [False, True])
def test_our_own_target_answers_every_offer_as_it_may(header_digest: bool, data_digest: bool) -> None:
    """Both sides use one table: what the target answers, the initiator takes."""
    for name, offered in offers(header_digest, data_digest):
        response = answer(name, offered)
        if KEYS[name].kind is not Kind.DECLARED:
            assert response.reply is not None
            assert accept(name, offered, response.reply) == response.value


@given(st.sampled_from([name for name, _ in offers(True, False)]), st.text(max_size=12))
def test_no_answer_does_anything_else_than_hold_or_be_refused(name: str, answered: str) -> None:
    try:
        value = accept(name, dict(offers(True, False))[name], answered)
    except OfferError:
        return
    key = KEYS[name]
    if key.kind in (Kind.MINIMUM, Kind.MAXIMUM, Kind.DECLARED):
        assert key.low <= int(value) <= key.high
