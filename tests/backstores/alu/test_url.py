"""URLs of units: what they say, and what is refused (R1, S2)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.alu.url import UnitUrl, is_url, parse_url
from backstores.errors import UsageError
from backstores.iscsi.initiator.endpoint import Endpoint

TARGET = "iqn.2026-11.example:array"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"iscsi://10.0.0.5/{TARGET}/0", UnitUrl((Endpoint("10.0.0.5", 3260),), TARGET, 0)),
        (f"iscsi://array.example:3261/{TARGET}/16383", UnitUrl((Endpoint("array.example", 3261),), TARGET, 16383)),
        (f"iscsi://[fd00::5]:3261/{TARGET}/1", UnitUrl((Endpoint("fd00::5", 3261),), TARGET, 1)),
        (
            f"iscsi://10.0.0.5,10.0.1.5:3261/{TARGET}/1",
            UnitUrl((Endpoint("10.0.0.5"), Endpoint("10.0.1.5", 3261)), TARGET, 1),
        ),
        (
            f"iscsi://sp1@10.0.0.5/{TARGET}/1?secret-file=/etc/tiergate/array",
            UnitUrl((Endpoint("10.0.0.5"),), TARGET, 1, "sp1", "/etc/tiergate/array"),
        ),
        (
            f"iscsi://sp1@h/{TARGET}/1?secret-file=/a&target-user=t&target-secret-file=/b",
            UnitUrl((Endpoint("h"),), TARGET, 1, "sp1", "/a", "t", "/b"),
        ),
        (
            f"iscsi://h/{TARGET}/1?header-digest=yes&data-digest=yes&initiator=iqn.2026-11.example:me",
            UnitUrl((Endpoint("h"),), TARGET, 1, "", "", "", "", True, True, "iqn.2026-11.example:me"),
        ),
    ],
)
def test_what_a_url_says(text: str, wanted: UnitUrl) -> None:
    assert is_url(text)
    assert parse_url(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iscsi://", "no URL of the form"),
        ("iscsi://h", "no URL of the form"),
        (f"iscsi://h/{TARGET}", "no URL of the form"),
        (f"iscsi://h/{TARGET}/", "lun ''"),
        (f"iscsi://h/{TARGET}/16384", "0 to 16383"),
        (f"iscsi://h/{TARGET}/-1", "lun '-1'"),
        (f"iscsi://h/{TARGET}/x", "lun 'x'"),
        (f"iscsi:///{TARGET}/1", "HOST"),
        (f"iscsi://h,/{TARGET}/1", "HOST"),
        (f"iscsi://h:99999/{TARGET}/1", "HOST"),
        (f"iscsi://h:0/{TARGET}/1", "HOST"),
        (f"iscsi://{','.join('h' * 9)}/{TARGET}/1", "9 hosts are more than 8"),
        (f"iscsi://h/a/{TARGET}/1", "no URL of the form"),
        ("iscsi://h/a b/1", "no URL of the form"),
        (f"iscsi://h/{'x' * 224}/1", "no URL of the form"),
        (f"iscsi://h/{TARGET}/1#x", "no URL of the form"),
        (f"iscsi://u:secret@h/{TARGET}/1", "no URL of the form"),
        (f"iscsi://u@h/{TARGET}/1", "secret"),
        (f"iscsi://h/{TARGET}/1?secret-file=/a", "USER@"),
        (f"iscsi://u@h/{TARGET}/1?secret-file=a", "absolute"),
        (f"iscsi://h/{TARGET}/1?target-user=t&target-secret-file=/b", "USER@"),
        (f"iscsi://u@h/{TARGET}/1?secret-file=/a&target-user=t", "its own"),
        (f"iscsi://h/{TARGET}/1?colour=red", "'colour'"),
        (f"iscsi://h/{TARGET}/1?header-digest=maybe", "neither yes nor no"),
        (f"iscsi://h/{TARGET}/1?header-digest=yes&header-digest=no", "once"),
        (f"iscsi://h/{TARGET}/1?{'&'.join(['data-digest=yes'] * 20)}", "no URL of the form"),
    ],
)
def test_what_is_no_url_of_a_unit_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_url(text)
    assert words in str(refused.value)


@given(st.text(), st.text(), st.text())
def test_no_url_raises_anything_but_a_usage_error(host: str, target: str, rest: str) -> None:
    with suppress(UsageError):
        parse_url(f"iscsi://{host}/{target}/{rest}")


@pytest.mark.parametrize("path", ["/dev/sdb", "disk.img", "iscsi:/h/t/1", "ISCSI", ""])
def test_a_path_is_no_url(path: str) -> None:
    assert not is_url(path)
