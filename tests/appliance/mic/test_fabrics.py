"""Fabrics, and faults that are made on purpose."""

from __future__ import annotations

import pytest

from appliance.mic.commands import CommandError
from backstores.errors import UsageError
from tests.appliance.mic.conftest import Site


def test_a_part_that_was_failed_is_listed_until_it_is_restored(furnished: Site) -> None:
    """R19: each part can be failed and restored by a command."""
    assert furnished.do("/faults", "inject", part="link:sp1/int1").message == "link:sp1/int1 has failed"
    assert furnished.sp.failed == {"link:sp1/int1"}
    assert [fault.part for fault in furnished.do("/faults", "list")] == ["link:sp1/int1"]
    assert not furnished.do("/faults", "inject", part="link:sp1/int1").changed
    furnished.do("/faults", "restore", part="link:sp1/int1")
    assert furnished.sp.failed == set()
    assert furnished.do("/faults", "list") == ()


def test_a_part_that_can_not_be_failed_is_not_listed(furnished: Site) -> None:
    furnished.sp.fail = "fault"
    with pytest.raises(Exception, match="on purpose"):
        furnished.do("/faults", "inject", part="sp:sp1")
    assert furnished.do("/faults", "list") == ()


def test_only_what_was_failed_is_restored(furnished: Site) -> None:
    furnished.do("/faults", "inject", part="blade:b1")
    with pytest.raises(UsageError, match="sp:sp9 was not failed on purpose; what was: blade:b1"):
        furnished.do("/faults", "restore", part="sp:sp9")


@pytest.mark.parametrize("text", ["sp1", "cpu:sp1", "sp:", "sp:a b", "link:sp1/int1/x", ""])
def test_what_can_be_no_part_is_refused(furnished: Site, text: str) -> None:
    with pytest.raises(CommandError, match="part"):
        furnished.do("/faults", "inject", part=text)


def test_an_appliance_of_one_storage_processor_has_no_fabrics(furnished: Site) -> None:
    assert furnished.do("/fabrics", "list") == ()
