"""LUN maps: what a nexus sees, and what it hears of changes."""

from __future__ import annotations

import pytest

from backstores.errors import UsageError
from backstores.scsi import lun
from backstores.scsi.cdb import ReportLuns, RequestSense
from backstores.scsi.model import Status
from backstores.scsi.sense import Condition, FixedSense
from backstores.scsi.target import Exposed
from backstores.scsi.transfers import Write10
from tests.support.scsi import BLOCK, Host, memory_unit


def listed(host: Host, select: int = 0, at: int = 0) -> list[int]:
    """Read the LUN list; the fields as numbers."""
    data = host.good(ReportLuns.build(select_report=select, allocation_bytes=1 << 17), lun=at)
    assert int.from_bytes(data[:4]) == len(data) - 8
    return [int.from_bytes(data[first : first + 8]) for first in range(8, len(data), 8)]


def test_report_luns_lists_what_this_nexus_sees() -> None:
    """R15: its own, in ascending order, and nothing else."""
    unit = memory_unit()
    host = Host.at({number: Exposed(unit) for number in (300, 2, 0)})
    assert listed(host) == listed(host, 2) == [0, 2 << 48, 0x412C << 48]
    assert listed(host, 1) == []
    assert host.nexus.luns == (0, 2, 300)


@pytest.mark.parametrize("luns", [(), (7,)])
def test_report_luns_answers_at_lun_0_though_it_is_absent(luns: tuple[int, ...]) -> None:
    """SPC-4 clause 6.33."""
    host = Host.at({number: Exposed(memory_unit()) for number in luns})
    assert listed(host) == [lun.encode(number) for number in luns]


@pytest.mark.parametrize(
    "cdb", [ReportLuns.build(allocation_bytes=15), ReportLuns.build(select_report=3, allocation_bytes=16)]
)
@pytest.mark.parametrize("at", [0, 1], ids=["present", "absent"])
def test_bad_questions(cdb: bytes, at: int) -> None:
    assert Host.at(memory_unit()).refused(cdb, lun=at) is Condition.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("cdb", [bytes(6), Write10.build(blocks=1)])
def test_absent_luns(cdb: bytes) -> None:
    host = Host.at(memory_unit())
    assert host.refused(cdb, bytes(BLOCK), lun=1) is Condition.UNIT_NOT_SUPPORTED


def test_request_sense_to_an_absent_lun() -> None:
    data = Host.at(memory_unit()).good(RequestSense.build(allocation_bytes=18), lun=1)
    assert FixedSense.parse(data).asc == 0x25


def test_an_unknown_command_to_an_absent_lun() -> None:
    assert Host.at(memory_unit()).refused(b"\xff" * 6, lun=1) is Condition.INVALID_OPERATION_CODE


def test_a_change_of_the_map_is_told_to_what_stays() -> None:
    """SPC-4 clause 6.33: REPORTED LUNS DATA HAS CHANGED, until the list has been read."""
    one, two = memory_unit(), memory_unit()
    host = Host.at({0: Exposed(one), 1: Exposed(two)})
    host.nexus.set_luns({0: Exposed(one), 5: Exposed(two)})
    assert host.nexus.fast_read.keys() == set()
    assert host.hear(0) == [Condition.LUNS_CHANGED]
    assert host.hear(5) == [Condition.RESET_OCCURRED]
    assert host.refused(bytes(6), lun=1) is Condition.UNIT_NOT_SUPPORTED
    assert host.nexus.fast_read.keys() == {lun.encode(0), lun.encode(5)}


def test_reading_the_list_is_hearing_of_the_change() -> None:
    unit = memory_unit()
    host = Host.at({0: Exposed(unit), 1: Exposed(memory_unit())})
    host.nexus.set_luns({0: Exposed(unit)})
    listed(host)
    assert host.hear() == []
    assert host.nexus.fast_write


def test_the_same_map_again_is_no_change() -> None:
    unit = memory_unit()
    host = Host.at({0: Exposed(unit)})
    host.nexus.set_luns({0: Exposed(unit)})
    assert host.hear() == []


def test_a_unit_that_becomes_read_only() -> None:
    unit = memory_unit()
    host = Host.at({0: Exposed(unit)})
    host.nexus.set_luns({0: Exposed(unit, read_only=True)})
    host.hear()
    assert host.nexus.fast_read
    assert not host.nexus.fast_write
    assert host.refused(Write10.build(blocks=1), bytes(BLOCK)) is Condition.WRITE_PROTECTED


def test_a_map_with_a_bad_lun_changes_nothing() -> None:
    unit = memory_unit()
    host = Host.at({0: Exposed(unit)})
    with pytest.raises(UsageError, match="lun 16384"):
        host.nexus.set_luns({16384: Exposed(unit)})
    assert host.status(bytes(6)) is Status.GOOD


def test_a_closed_unit_is_not_ready() -> None:
    unit = memory_unit()
    host = Host.at(unit)
    unit.close()
    assert host.refused(bytes(6)) is Condition.CAUSE_NOT_REPORTABLE
