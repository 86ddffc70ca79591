"""Unit attention conditions: who hears what, when, and how often."""

from __future__ import annotations

import pytest

from backstores.scsi.attention import Attentions
from backstores.scsi.cdb import Inquiry, ReportLuns, RequestSense
from backstores.scsi.model import Status
from backstores.scsi.sense import Condition, FixedSense
from tests.support.scsi import Host, memory_unit


def drain(attentions: Attentions) -> list[Condition]:
    """Take all that waits."""
    return list(iter(attentions.take, None))


def test_each_waits_once_in_the_order_of_arrival() -> None:
    attentions = Attentions()
    for condition in (Condition.CAPACITY_CHANGED, Condition.LUNS_CHANGED, Condition.CAPACITY_CHANGED):
        attentions.establish(condition)
    assert drain(attentions) == [Condition.CAPACITY_CHANGED, Condition.LUNS_CHANGED]
    assert not attentions


def test_a_reset_takes_the_place_of_what_waited() -> None:
    """SAM-5 clause 5.14.2."""
    attentions = Attentions()
    attentions.establish(Condition.CAPACITY_CHANGED)
    attentions.establish(Condition.UNIT_RESET_OCCURRED)
    attentions.establish(Condition.LUNS_CHANGED)
    assert drain(attentions) == [Condition.UNIT_RESET_OCCURRED, Condition.LUNS_CHANGED]


@pytest.mark.parametrize("order", [1, -1])
def test_the_strongest_reset_stays(order: int) -> None:
    attentions = Attentions()
    for condition in [Condition.POWER_ON_OCCURRED, Condition.UNIT_RESET_OCCURRED][::order]:
        attentions.establish(condition)
    assert drain(attentions) == [Condition.POWER_ON_OCCURRED]


def test_the_first_command_hears_of_a_reset_once() -> None:
    host = Host.at(memory_unit(), greet=False)
    assert not host.nexus.fast_read
    assert host.refused(bytes(6)) is Condition.RESET_OCCURRED
    assert host.status(bytes(6)) is Status.GOOD
    assert host.nexus.fast_read


def test_an_unknown_command_hears_it_too() -> None:
    host = Host.at(memory_unit(), greet=False)
    assert host.refused(b"\xff" * 6) is Condition.RESET_OCCURRED
    assert host.refused(b"\xff" * 6) is Condition.INVALID_OPERATION_CODE


@pytest.mark.parametrize("cdb", [Inquiry.build(allocation_bytes=96), ReportLuns.build(allocation_bytes=64)])
def test_some_commands_let_it_wait(cdb: bytes) -> None:
    """SAM-5 clause 5.14: INQUIRY and REPORT LUNS run, and clear nothing."""
    host = Host.at(memory_unit(), greet=False)
    host.good(cdb)
    assert host.hear() == [Condition.RESET_OCCURRED]


@pytest.mark.parametrize("descriptor", [0, 1])
def test_request_sense_tells_it_as_data(descriptor: int) -> None:
    """SPC-4 clause 6.39."""
    host = Host.at(memory_unit(), greet=False)
    data = host.good(RequestSense.build(descriptor=descriptor, allocation_bytes=252))
    assert data[0] == (0x72 if descriptor else 0x70)
    assert bytes.fromhex("2900") in data
    assert host.hear() == []
    assert host.nexus.fast_read
    assert FixedSense.parse(host.good(RequestSense.build(allocation_bytes=18))).asc == 0


def test_a_grown_unit_tells_all() -> None:
    unit = memory_unit()
    hosts = [Host.at(unit, name) for name in "ab"]
    unit.resized()
    assert not any(host.nexus.fast_read for host in hosts)
    assert [host.hear() for host in hosts] == [[Condition.CAPACITY_CHANGED]] * 2
    assert all(host.nexus.fast_write for host in hosts)
