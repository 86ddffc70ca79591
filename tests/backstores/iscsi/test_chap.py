"""CHAP by itself."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest

from backstores.iscsi.access import Account, Credentials
from backstores.iscsi.chap import ALGORITHMS, ChapError, ChapExchange, decode, encode, response

USER = Credentials("alice", b"alice's secret")
TARGET = Credentials("disks", b"the disks' secret")
ACCOUNT = Account("host", USER, TARGET)

counter = itertools.count()


def numbered(length: int) -> bytes:
    return bytes([next(counter) % 256]) * length


def challenged(account: Account = ACCOUNT, algorithm: str = "5") -> tuple[ChapExchange, dict[str, str]]:
    exchange = ChapExchange(account, numbered)
    return exchange, dict(exchange.challenge({"CHAP_A": algorithm}))


def right_answer(asked: dict[str, str], secret: bytes = USER.secret) -> dict[str, str]:
    proof = response(int(asked["CHAP_A"]), int(asked["CHAP_I"]), secret, decode(asked["CHAP_C"], 1, 1024))
    return {"CHAP_N": USER.user, "CHAP_R": encode(proof)}


def test_the_answer_is_that_of_rfc_1994() -> None:
    """A hash over the identifier, the secret and the challenge."""
    assert response(5, 1, b"secret", b"challenge") == hashlib.md5(b"\x01secretchallenge").digest()


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=ALGORITHMS.values())
def test_each_algorithm_lets_the_right_secret_in(algorithm: int) -> None:
    """R33: CHAP."""
    exchange, asked = challenged(algorithm=str(algorithm))
    assert asked["CHAP_A"] == str(algorithm)
    assert exchange.verify(right_answer(asked)) == []


def test_the_first_known_algorithm_of_the_list_is_taken() -> None:
    assert challenged(algorithm="99,7,5")[1]["CHAP_A"] == "7"


@pytest.mark.parametrize("offered", ["", "4", "5x", " 5", "1," * 16 + "5"])
def test_no_known_algorithm_is_refused(offered: str) -> None:
    with pytest.raises(ChapError):
        challenged(algorithm=offered)


def test_challenges_differ() -> None:
    first, second = (dict(ChapExchange(ACCOUNT).challenge({"CHAP_A": "5"})) for _ in range(2))
    assert first["CHAP_C"] != second["CHAP_C"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"CHAP_N": "bob"}, id="another name"),
        pytest.param({"CHAP_N": ""}, id="no name"),
        pytest.param({"CHAP_R": "0x" + "00" * 16}, id="wrong response"),
        pytest.param({"CHAP_R": "0x" + "00" * 15}, id="short response"),
        pytest.param({"CHAP_R": "0x" + "00" * 1000}, id="long response (CVE-2018-14633)"),
        pytest.param({"CHAP_R": ""}, id="no response"),
        pytest.param({"CHAP_R": "0x" + "zz" * 16}, id="no hexadecimal"),
        pytest.param({"CHAP_R": "12"}, id="no prefix"),
        pytest.param({"CHAP_R": "0x" + " " * 32}, id="blanks for digits"),
        pytest.param({"CHAP_R": "0b" + "!" * 22}, id="no base 64"),
    ],
)
def test_wrong_answers_are_refused(change: dict[str, str]) -> None:
    exchange, asked = challenged()
    with pytest.raises(ChapError) as caught:
        exchange.verify({**right_answer(asked), **change})
    assert "secret's" not in str(caught.value)


def test_base_64_is_read_too() -> None:
    exchange, asked = challenged()
    answer = right_answer(asked)
    answer["CHAP_R"] = "0b" + base64.b64encode(bytes.fromhex(answer["CHAP_R"][2:])).decode()
    assert exchange.verify(answer) == []


def test_we_prove_ourselves_when_asked() -> None:
    """R33: mutual CHAP."""
    exchange, asked = challenged()
    replies = dict(exchange.verify({**right_answer(asked), "CHAP_I": "200", "CHAP_C": encode(b"prove it")}))
    assert replies == {"CHAP_N": "disks", "CHAP_R": encode(response(5, 200, TARGET.secret, b"prove it"))}


def test_our_own_challenge_is_not_answered() -> None:
    """Else an initiator that knows no secret would have us compute its answer."""
    exchange, asked = challenged()
    with pytest.raises(ChapError, match="our own challenge"):
        exchange.verify({**right_answer(asked), "CHAP_I": "1", "CHAP_C": asked["CHAP_C"]})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"CHAP_I": "256", "CHAP_C": "0x01"}, id="identifier too large"),
        pytest.param({"CHAP_I": "-1", "CHAP_C": "0x01"}, id="negative identifier"),
        pytest.param({"CHAP_I": "²", "CHAP_C": "0x01"}, id="a digit that is no digit"),
        pytest.param({"CHAP_C": "0x01"}, id="no identifier"),
        pytest.param({"CHAP_I": "1"}, id="no challenge"),
        pytest.param({"CHAP_I": "1", "CHAP_C": "0x"}, id="empty challenge"),
        pytest.param({"CHAP_I": "1", "CHAP_C": "0x  "}, id="a challenge of blanks"),
        pytest.param({"CHAP_I": "1", "CHAP_C": "0x" + "00" * 1025}, id="1,025 bytes of challenge"),
    ],
)
def test_bad_challenges_are_refused(change: dict[str, str]) -> None:
    exchange, asked = challenged()
    with pytest.raises(ChapError):
        exchange.verify({**right_answer(asked), **change})


@pytest.mark.parametrize(
    "account",
    [
        pytest.param(Account("host", USER), id="no secret of ours"),
        pytest.param(Account("host", USER, Credentials("disks", USER.secret)), id="one secret for both"),
    ],
)
def test_mutual_chap_needs_a_secret_of_its_own(account: Account) -> None:
    exchange, asked = challenged(account)
    with pytest.raises(ChapError):
        exchange.verify({**right_answer(asked), "CHAP_I": "1", "CHAP_C": "0x01"})


def test_secrets_stay_out_of_reprs() -> None:
    assert "secret" not in repr(ACCOUNT).replace("secret=", "")
