"""Values as people type them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.mic import values
from backstores.errors import UsageError


@pytest.mark.parametrize(
    ("text", "length_bytes"),
    [
        ("1", 1),
        ("4096", 4096),
        ("64K", 65536),
        ("64k", 65536),
        ("512M", 512 << 20),
        ("10G", 10 << 30),
        ("10GiB", 10 << 30),
        ("10gib", 10 << 30),
        ("1T", 1 << 40),
        ("1.5T", 3 << 39),
        ("0.5K", 512),
        ("7E", 7 << 60),
        (str((1 << 63) - 1), (1 << 63) - 1),
    ],
)
def test_sizes_are_read_in_powers_of_1024(text: str, length_bytes: int) -> None:
    assert values.parse_size(text) == length_bytes


@pytest.mark.parametrize(
    "text",
    ["", "0", "0K", "-1", "G", "10X", "10GB", "10 G", "1,5G", "1e9", "0x10", "8E", "9" * 40, "0.3K", "١٢", "1.G"],
)
def test_what_is_no_size_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        values.parse_size(text)
    assert text[:20] in str(refused.value)


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=values.LARGEST_BYTES))
def test_an_exact_size_reads_back_as_itself(length_bytes: int) -> None:
    assert values.parse_size(values.exact_size(length_bytes)) == length_bytes


@pytest.mark.parametrize(
    ("length_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        ((20 << 30) - 1, "19.99 GiB"),
        (20 << 30, "20 GiB"),
        (3 << 29, "1.5 GiB"),
        ((1 << 63) - 1, "7.99 EiB"),
    ],
)
def test_sizes_for_people_never_promise_more_than_there_is(length_bytes: int, text: str) -> None:
    assert values.human_size(length_bytes) == text


@pytest.mark.parametrize(
    "text",
    [
        "iqn.1993-08.org.debian:01:abc",
        "iqn.1993-08.org.debian",
        "IQN.1993-08.ORG.DEBIAN:01",
        "eui.02004567a425678d",
        "naa.52004567ba64678d",
        "naa.62004567ba64678d0123456789abcdef",
        "*",
        "iqn.*",
        "iqn.1993-08.org.debian:*",
        "iqn.1993-0?.org.debian:host?",
        "?qn.1993-08.org.debian:01",
    ],
)
def test_iscsi_names_and_patterns_are_taken_in_lower_case(text: str) -> None:
    """R33: names by RFC 7143, 4.2.7; wildcards are ours."""
    assert values.parse_iscsi_pattern(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web1",
        "iqn.1993-13.org.debian:01",
        "iqn.93-08.org.debian:01",
        "iqn.1993-08.org.debian:a b",
        "iqn.1993-08.org.debian:",
        "eui.0200",
        "naa.xyz",
        "web*",
        "iqn.[ab]*",
        "iqn.1993-08.org." + "a" * 210,
        "iqn.1993-08.org.debian:ä",
    ],
)
def test_what_is_no_iscsi_name_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        values.parse_iscsi_pattern(text)
    assert repr(text.lower())[:20].rstrip("'") in str(refused.value).lower()


@pytest.mark.parametrize("text", ["", "-x", ".x", "a b", "a/b", "a" * 64, "ä", "a\n", "*"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no name"):
        values.parse_name(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("255", 255)])
def test_luns_are_0_to_255(text: str, number: int) -> None:
    assert values.parse_lun(text) == number


@pytest.mark.parametrize("text", ["256", "-1", "", "1.0", "99999999999", "²"])
def test_what_is_no_lun_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="0 to 255"):
        values.parse_lun(text)


@pytest.mark.parametrize("text", ["a,,b", "a,", ",", "a b"])
def test_a_list_has_no_holes(text: str) -> None:
    with pytest.raises(UsageError, match="is no name"):
        values.parse_names(text)


def test_a_list_has_no_name_twice() -> None:
    with pytest.raises(UsageError, match="a0 stands more than once"):
        values.parse_names("a0,a1,a0")


@settings(deadline=None)
@given(st.text())
def test_an_error_line_shows_no_control_character_of_a_value(text: str) -> None:
    assert values.shown(text).isprintable()
    assert len(values.shown(text)) <= 10 * values.SHOWN_LENGTH + 2


KINDS = (
    *(values.SIZE, values.YES_NO, values.NAME, values.PATH, values.LOCATION, values.COUNT, values.LUN, values.IQN),
    *(values.USER, values.LAYOUT, values.BLOCK_BYTES, values.ALUS, values.PART),
)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.text())
def test_no_text_whatever_makes_a_parser_raise_anything_but_a_usage_error(kind: values.Kind, text: str) -> None:
    with suppress(UsageError):
        kind.parse(text)
