"""LUN fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.errors import UsageError
from backstores.scsi import lun

GOLDEN = [(0, 0), (1, 0x0001 << 48), (255, 0x00FF << 48), (256, 0x4100 << 48), (16383, 0x7FFF << 48)]


@pytest.mark.parametrize(("number", "field"), GOLDEN)
def test_both_ways(number: int, field: int) -> None:
    """SAM-5 clause 4.7: peripheral addressing up to 255, flat space beyond."""
    assert lun.encode(number) == field
    assert lun.decode(field) == number


@given(st.integers(0, lun.LIMIT - 1))
def test_every_lun_comes_back(number: int) -> None:
    assert lun.decode(lun.encode(number)) == number


def test_a_low_lun_may_come_in_flat_addressing() -> None:
    assert lun.decode(0x4005 << 48) == 5


@pytest.mark.parametrize(
    "field",
    [0x0100 << 48, 0x8000 << 48, 0xC101 << 48, 1, 0x0001_0001 << 32],
    ids=["bus 1", "logical unit addressing", "well-known", "deepest level", "second level"],
)
def test_what_is_none_of_ours(field: int) -> None:
    assert lun.decode(field) is None


@pytest.mark.parametrize("number", [-1, lun.LIMIT])
def test_out_of_range(number: int) -> None:
    with pytest.raises(UsageError, match=f"lun {number} is not between 0 and 16383"):
        lun.encode(number)
