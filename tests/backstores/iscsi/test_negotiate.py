"""Operational keys: what we answer, and what holds afterwards (RFC 7143, clause 13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.iscsi.negotiate import KEYS, Answer, Kind, Parameters, Stage, Value, answer
from backstores.iscsi.text import MAX_VALUE_BYTES

ANSWERS: list[tuple[str, str, str | None, Value | None]] = [
    # key, offered, reply, value
    ("HeaderDigest", "CRC32C,None", "CRC32C", "CRC32C"),
    ("HeaderDigest", "None,CRC32C", "None", "None"),
    ("DataDigest", "MD5,CRC32C", "CRC32C", "CRC32C"),
    ("DataDigest", "MD5", "Reject", None),
    ("MaxConnections", "8", "1", 1),
    ("MaxConnections", "0", "Reject", None),
    ("InitialR2T", "No", "No", False),
    ("InitialR2T", "Yes", "Yes", True),
    ("InitialR2T", "yes", "Reject", None),
    ("ImmediateData", "Yes", "Yes", True),
    ("ImmediateData", "No", "No", False),
    ("MaxRecvDataSegmentLength", "65536", None, 65536),
    ("MaxRecvDataSegmentLength", "0x10000", None, 65536),
    ("MaxRecvDataSegmentLength", "1", None, 512),
    ("MaxRecvDataSegmentLength", "4294967295", None, (1 << 24) - 1),
    ("MaxRecvDataSegmentLength", "-1", "Reject", None),
    ("MaxBurstLength", "16776192", "1048576", 1048576),
    ("MaxBurstLength", "262144", "262144", 262144),
    ("MaxBurstLength", "511", "Reject", None),
    ("FirstBurstLength", "65536", "65536", 65536),
    ("FirstBurstLength", "1048576", "262144", 262144),
    ("DefaultTime2Wait", "0", "2", 2),
    ("DefaultTime2Wait", "5", "5", 5),
    ("DefaultTime2Wait", "3601", "Reject", None),
    ("DefaultTime2Retain", "20", "0", 0),
    ("MaxOutstandingR2T", "16", "1", 1),
    ("DataPDUInOrder", "No", "Yes", True),
    ("DataSequenceInOrder", "No", "Yes", True),
    ("ErrorRecoveryLevel", "2", "0", 0),
    ("ErrorRecoveryLevel", "3", "Reject", None),
    ("TaskReporting", "FastAbort,RFC3720", "RFC3720", "RFC3720"),
    ("TaskReporting", "FastAbort", "Reject", None),
    ("iSCSIProtocolLevel", "2", "1", 1),
    ("iSCSIProtocolLevel", "0", "0", 0),
    ("IFMarker", "Yes", "No", None),
    ("OFMarker", "Yes", "No", None),
    ("IFMarkInt", "2048~65535", "Reject", None),
    ("OFMarkInt", "2048", "Reject", None),
    ("InitiatorAlias", "me", None, "me"),
    ("X#NodeArchitecture", "x86", None, "x86"),
    ("X-com.example.key", "1", "NotUnderstood", None),
    ("TargetPortalGroupTag", "1", "NotUnderstood", None),
]


@pytest.mark.parametrize(("name", "offered", "reply", "value"), ANSWERS, ids=[f"{a[0]}={a[1]}" for a in ANSWERS])
def test_answers(name: str, offered: str, reply: str | None, value: Value | None) -> None:
    """R33: what initiators offer is answered as the standard asks."""
    assert answer(name, offered) == Answer(reply, value)


def test_every_key_of_the_table_is_tried() -> None:
    tried = {row[0] for row in ANSWERS} | {"InitiatorName", "TargetName", "SessionType"}
    assert tried >= KEYS.keys()


@pytest.mark.parametrize("name", ["MaxConnections", "InitialR2T", "MaxBurstLength", "DataPDUInOrder"])
def test_keys_about_data_mean_nothing_in_discovery(name: str) -> None:
    assert answer(name, "1", discovery=True) == Answer("Irrelevant")


@pytest.mark.parametrize("name", sorted(KEYS))
def test_after_login_only_keys_of_any_stage_change(name: str) -> None:
    after = answer(name, "1024", Stage.FULL_FEATURE)
    if Stage.FULL_FEATURE in KEYS[name].stage:
        assert after.value is not None
    else:
        assert after == Answer("Reject")


@given(st.text(max_size=80), st.text(max_size=200))
def test_no_offer_is_repeated(name: str, offered: str) -> None:
    """S3: an answer is one of our own words, or a number in our range."""
    reply = answer(name, offered).reply
    assert reply in (None, "NotUnderstood", "Reject") or name in KEYS


@given(st.sampled_from(sorted(n for n, k in KEYS.items() if k.kind in (Kind.MINIMUM, Kind.MAXIMUM))), st.integers())
def test_numbers_stay_in_their_range(name: str, offered: int) -> None:
    key = KEYS[name]
    result = answer(name, str(offered))
    if key.low <= offered <= key.high:
        assert result.value == int(result.reply or "")
        assert key.low <= int(result.value) <= key.high
    else:
        assert result == Answer("Reject")


def test_defaults_hold_for_what_is_not_negotiated() -> None:
    assert Parameters.from_values({}, declared=False) == Parameters(
        header_digest=False,
        data_digest=False,
        initial_r2t=True,
        immediate_data=True,
        send_segment_bytes=8192,
        receive_segment_bytes=8192,
        max_burst_bytes=262144,
        first_burst_bytes=65536,
    )


def test_a_first_burst_is_no_longer_than_a_burst() -> None:
    values: dict[str, Value] = {"MaxBurstLength": 4096, "FirstBurstLength": 65536}
    assert Parameters.from_values(values, declared=True).first_burst_bytes == 4096


def test_replies_stay_within_our_own_segment_length() -> None:
    values: dict[str, Value] = {"MaxRecvDataSegmentLength": 1 << 23}
    assert Parameters.from_values(values, declared=True).send_segment_bytes == 262144


def test_the_longest_value_takes_a_chap_challenge() -> None:
    assert len("0x") + 2 * 1024 <= MAX_VALUE_BYTES
