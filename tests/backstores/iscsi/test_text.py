"""key=value texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.iscsi.text import MAX_PAIRS, MAX_VALUE_BYTES, TextError, build_text, is_name, parse_number, parse_text

keys = st.from_regex(r"[A-Za-z][A-Za-z0-9.+@_#/-]{0,62}", fullmatch=True)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)


@given(st.dictionaries(keys, values, max_size=MAX_PAIRS))
def test_what_is_built_is_read_back(pairs: dict[str, str]) -> None:
    assert parse_text(build_text(pairs.items())) == pairs


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"\0\0\0", {}, id="only zeros"),
        pytest.param(b"A=1", {"A": "1"}, id="no final zero (CVE-2026-90011)"),
        pytest.param(b"A=\0", {"A": ""}, id="empty value"),
        pytest.param(b"A=b=c\0", {"A": "b=c"}, id="equals sign in the value"),
        pytest.param(b"X-com.example/k=1\0\0B=2\0", {"X-com.example/k": "1", "B": "2"}, id="vendor key, empty part"),
    ],
)
def test_texts_that_are_read(text: bytes, pairs: dict[str, str]) -> None:
    assert parse_text(text) == pairs


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"Key\0", id="no equals sign"),
        pytest.param(b"=value\0", id="no key"),
        pytest.param(b"K" * 64 + b"=1\0", id="64 bytes of key"),
        pytest.param(b"K\n=1\0", id="control character in the key"),
        pytest.param(b"1K=1\0", id="digit first"),
        pytest.param(b"K=" + b"v" * (MAX_VALUE_BYTES + 1), id="long value"),
        pytest.param(b"K=\xff\0", id="not UTF-8"),
        pytest.param(b"K=1\0K=1\0", id="twice"),
        pytest.param(b"".join(b"K%d=1\0" % n for n in range(MAX_PAIRS + 1)), id="65 keys"),
    ],
)
def test_texts_that_are_refused_without_being_repeated(text: bytes) -> None:
    with pytest.raises(TextError) as caught:
        parse_text(text)
    assert "K" not in str(caught.value).replace("Key", "").replace("UTF-8", "")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("262144", 262144),
        ("0x10", 16),
        ("0XfF", 255),
        *((text, None) for text in ("-1", "", "1e3", "٣", "9" * 21, "1 ", "0x", "+1", "1_0")),
    ],
)
def test_numbers(text: str, number: int | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("iqn.2024-01.example:disk", True),
        ("eui.02004567A425678D", True),
        ("iqn.2024-01.example:größe", True),
        ("x" * 223, True),
        ("x" * 224, False),
        ("ü" * 112, False),
        ("", False),
        ("iqn with blank", False),
        ("iqn\n", False),
        ("iqn\x1b[2J", False),
        ("iqn\u202e.disk", False),  # makes a terminal write from right to left
        ("iqn\u2028.disk", False),
        ("iqn\u3000.disk", False),
    ],
)
def test_names(name: str, good: bool) -> None:
    assert is_name(name) is good
