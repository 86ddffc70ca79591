"""Logging in to a target: who we are, who it is, and what both work with (R12, S1)."""

from __future__ import annotations

from typing import Any

import pytest

from backstores.iscsi.access import Account, Credentials
from backstores.iscsi.initiator.connection import State
from backstores.iscsi.initiator.login import ROUNDS, TRANSITIONS, Event, Phase
from backstores.iscsi.pdu import NO_TAG, LoginRequest, NopIn
from tests.support.iscsi_pair import OURS, THEIRS, Pair, Puppet, keys_of, sent, who
from tests.support.iscsi_twins import INITIATOR

WRONG = Credentials("host", b"another secret altogether")


@pytest.mark.parametrize(
    ("account", "identity"),
    [
        pytest.param(Account("host"), who(), id="without CHAP"),
        pytest.param(Account("host", OURS), who(chap=OURS), id="CHAP"),
        pytest.param(Account("host", OURS, THEIRS), who(chap=OURS, mutual=THEIRS), id="mutual CHAP"),
        pytest.param(Account("host", OURS, THEIRS), who(chap=OURS), id="CHAP where mutual were possible"),
    ],
)
@pytest.mark.parametrize("header_digest", [False, True], ids=["plain", "header digest"])
@pytest.mark.parametrize("data_digest", [False, True], ids=["plain", "data digest"])
def test_our_own_target_lets_us_in(account: Account, identity: Any, header_digest: bool, data_digest: bool) -> None:
    """R12: with all that both sides can, and the parameters that make transfers large."""
    digests = {"header_digest": header_digest, "data_digest": data_digest}
    pair = Pair(identity=who(chap=identity.chap, mutual=identity.mutual, **digests))
    pair.account(account)
    parameters = pair.login().outbox.parameters
    assert (parameters.header_digest, parameters.data_digest) == (header_digest, data_digest)
    assert (parameters.immediate_data, parameters.initial_r2t) == (True, False)
    assert (parameters.first_burst_bytes, parameters.max_burst_bytes) == (262144, 1 << 20)
    assert (parameters.send_segment_bytes, parameters.receive_segment_bytes) == (262144, 262144)
    session = pair.channel.core.session
    assert session is not None
    assert (session.grant.initiator, session.grant.isid) == (INITIATOR, pair.identity.isid)


@pytest.mark.parametrize(
    ("account", "identity", "words"),
    [
        pytest.param(Account("host", OURS), who(chap=WRONG), "CHAP name or secret", id="a wrong secret"),
        pytest.param(Account("host", OURS), who(), "CHAP name or secret", id="no secret"),
        pytest.param(Account("host"), who(chap=OURS), "CHAP", id="a secret that nobody wants"),
        pytest.param(Account("host", OURS), who(chap=OURS, mutual=THEIRS), "CHAP name or secret", id="no mutual CHAP"),
        pytest.param(
            Account("host", OURS, Credentials("disks", b"of somebody else's")),
            who(chap=OURS, mutual=THEIRS),
            "the target's CHAP name or secret is wrong",
            id="a target that can't prove itself",
        ),
        pytest.param(Account("host"), who(target="iqn.2024-01.example:other"), "no such target", id="no such target"),
        pytest.param(Account("host"), who(initiator="iqn.2024-01.example:x"), "does not let", id="a stranger"),
    ],
)
def test_a_login_that_fails_says_why(account: Account, identity: Any, words: str) -> None:
    pair = Pair(identity=identity)
    pair.account(account)
    pair.pump()
    assert pair.core.state is State.CLOSED
    assert words in pair.core.reason
    assert pair.core.failure is not None


def test_no_secret_is_in_any_text() -> None:
    """S2: neither in what is shown of an identity, nor in what is sent."""
    pair = Pair(identity=who(chap=OURS, mutual=THEIRS))
    pair.account(Account("host", OURS, THEIRS))
    said = b""
    while pair.core.outbox:
        data = sent(pair.core)
        said += data
        pair.channel.send(data)
        pair.receiver.take(pair.channel.receive(len(pair.channel.sent)))
    assert pair.core.state is State.READY
    for secret in (OURS.secret, THEIRS.secret):
        assert secret not in said
        assert secret.hex().encode() not in said
        assert secret.decode() not in repr(pair.identity)


def answered(puppet: Puppet, keys: dict[str, str], stage: int | None, **fields: Any) -> dict[str, str]:
    """Answer the initiator's request and give the keys of the next one."""
    puppet.answer_login(LoginRequest.parse(sent(puppet.core)), keys, **{"next_stage": stage, **fields})
    request = sent(puppet.core)
    puppet.core.outbox.put(request)  # it is looked at once more
    return keys_of(request) if request else {}


def test_a_text_may_come_in_parts() -> None:
    """RFC 7143, 6.2: with the C bit, the text goes on in the next response, and we ask for it by an empty request."""
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None"}, 1)
    assert answered(puppet, {"HeaderDigest": "None"}, None, more=1) == {}
    assert answered(puppet, {"MaxBurstLength": "65536"}, None) == {}
    answered(puppet, {}, 3)
    assert puppet.core.state is State.READY
    assert puppet.core.outbox.parameters.max_burst_bytes == 65536


def test_a_target_may_offer_keys_of_its_own() -> None:
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None", "TargetPortalGroupTag": "1"}, 1)
    replies = answered(puppet, {"TargetAlias": "x", "X-com.example": "1", "iSCSIProtocolLevel": "2"}, None)
    assert replies == {"X-com.example": "NotUnderstood", "iSCSIProtocolLevel": "1"}
    answered(puppet, {}, 3)
    assert puppet.core.state is State.READY


@pytest.mark.parametrize("first", [0, 1, 0xFFFFFFFE, 0xFFFFFFFF])
def test_the_target_begins_with_the_stat_sn_it_likes(first: int) -> None:
    puppet = Puppet()
    puppet.stat_sn = first
    answered(puppet, {"AuthMethod": "None"}, 1)
    answered(puppet, {"DataDigest": "None"}, 3, stat_sn=(first + 1) % (1 << 32))
    assert puppet.core.state is State.READY
    assert puppet.core.serials.exp_stat_sn == (first + 2) % (1 << 32)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"status": 0x0201}, "CHAP name or secret", id="refused"),
        pytest.param({"status": 0x0201, "stat_sn": 0}, "CHAP name or secret", id="refused, without a StatSN"),
        pytest.param({"status": 0x0101}, "moved", id="moved"),
        pytest.param({"status": 0x7777}, "0x7777", id="a status that is none"),
        pytest.param({"isid": b"other1"}, "another login", id="another ISID"),
        pytest.param({"itt": 5}, "another login", id="another tag"),
        pytest.param({"version_active": 1}, "version", id="another version"),
        pytest.param({"current_stage": 1}, "stage", id="another stage"),
        pytest.param({"next_stage": 3}, "stage", id="a stage that nobody asked for"),
        pytest.param({"stat_sn": 7}, "", id="any StatSN"),
    ],
)
def test_the_header_of_a_response_is_checked(fields: dict[str, Any], words: str) -> None:
    """S3: each makes the login fail, but the first StatSN, which is the target's to choose."""
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None"}, 1, **fields)
    assert words in puppet.core.reason
    assert (puppet.core.state is State.CLOSED) == bool(words)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        pytest.param({"AuthMethod": "CHAP"}, "set a CHAP name", id="CHAP"),
        pytest.param({"AuthMethod": "Reject"}, "set a CHAP name", id="a rejection"),
    ],
)
def test_the_security_stage_ends_as_it_was_offered(keys: dict[str, str], words: str) -> None:
    puppet = Puppet()
    answered(puppet, keys, 1)
    assert words in puppet.core.reason


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"MaxBurstLength": "1048577"}, id="more than was offered"),
        pytest.param({"HeaderDigest": "CRC32C"}, id="a digest that was not offered"),
        pytest.param({"MaxRecvDataSegmentLength": "511"}, id="segments below the least"),
        pytest.param({"ErrorRecoveryLevel": "1"}, id="recovery that was not offered"),
        pytest.param({"DataPDUInOrder": "No"}, id="disorder"),
        pytest.param({"X-question": "1"}, id="a question at the end"),
    ],
)
def test_answers_outside_of_an_offer_end_the_login(keys: dict[str, str]) -> None:
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None"}, 1)
    answered(puppet, keys, 3)
    assert puppet.core.state is State.CLOSED


def test_a_key_is_answered_once() -> None:
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None"}, 1)
    answered(puppet, {"MaxBurstLength": "65536"}, None)
    answered(puppet, {"MaxBurstLength": "65536"}, None)
    assert "twice" in puppet.core.reason


def test_a_digest_that_we_need_must_be_confirmed() -> None:
    """R12: a session without header digests must not come about where they are asked for."""
    puppet = Puppet(who(header_digest=True))
    answered(puppet, {"AuthMethod": "None"}, 1)
    answered(puppet, {}, 3)
    assert "HeaderDigest=CRC32C" in puppet.core.reason


@pytest.mark.parametrize("more", [0, 1], ids=["no progress", "endless text"])
def test_a_login_comes_to_an_end(more: int) -> None:
    """S1: a target that never transits, or never ends its text, is left."""
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None"}, 1)
    for _ in range(ROUNDS):
        if puppet.core.state is State.LOGGING_IN:
            answered(puppet, {}, None, more=more)
    assert str(ROUNDS) in puppet.core.reason


def test_the_text_of_a_login_is_bounded() -> None:
    puppet = Puppet()
    answered(puppet, {"AuthMethod": "None"}, 1)
    for number in range(10):
        if puppet.core.state is State.LOGGING_IN:
            answered(puppet, {f"X-{number}-{n}": "x" * 1000 for n in range(5)}, None)
    assert "bytes of login text" in puppet.core.reason


def test_nothing_but_login_responses_comes_before_the_login() -> None:
    puppet = Puppet()
    sent(puppet.core)
    puppet.say(NopIn, itt=NO_TAG, ttt=1)
    assert puppet.core.state is State.CLOSED


def test_every_phase_can_fail_and_the_last_ones_are_final() -> None:
    for phase, moves in TRANSITIONS.items():
        assert (Event.FAIL in moves) == (phase not in (Phase.DONE, Phase.FAILED))
