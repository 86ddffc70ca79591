"""The lead unit: HOLD and FREE on the wire, who the follower is, and what becomes of a nexus (D4)."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence

import pytest

from backstores.block import Busy, OutOfRange
from backstores.scsi import cdb as formats
from backstores.scsi import transfers as t
from backstores.scsi.lead import (
    MOST_RETURNS,
    Free,
    Hold,
    LeadUnit,
    Return,
    Wanted,
    free_parameters,
    hold_parameters,
    lead_wwn,
)
from backstores.scsi.model import Function, Response, Status
from backstores.scsi.sense import Condition
from tests.support.scsi import WWN, Host, wait

FOLLOWER = "iqn.2026-11.example:a"
RETURNS = [Return(3, True), Return(1 << 63, False)]


class Door:
    """Notes what comes."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.failure: Exception | None = None
        self.grant = asyncio.Event()
        self.grant.set()

    async def hold(self, follower: str, nexus: Hashable, wanted: Wanted, returns: Sequence[Return]) -> None:
        self.log.append((follower, wanted, list(returns)))
        await self.grant.wait()
        if self.failure is not None:
            raise self.failure

    def free(self, follower: str, returns: Sequence[Return]) -> None:
        self.log.append((follower, list(returns)))

    def lose(self, nexus: Hashable) -> None:
        self.log.append("lost")


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def host(door: Door) -> Host:
    return Host.at(LeadUnit(WWN, door), greet=False)


def hold(host: Host, parameters: bytes, length: int | None = None) -> Response:
    return host.send(Hold.build(parameter_bytes=len(parameters) if length is None else length), parameters)


def free(host: Host, parameters: bytes) -> Response:
    return host.send(Free.build(parameter_bytes=len(parameters)), parameters)


def test_hold_carries_a_range_and_what_is_given_back(host: Host, door: Door) -> None:
    wanted = Wanted((1 << 64) - 1, 1 << 40, 1 << 31)
    assert hold(host, hold_parameters(wanted, RETURNS)).status is Status.GOOD, "unit attentions don't hold it up"
    assert door.log == [(FOLLOWER, wanted, RETURNS)]


def test_free_carries_what_is_given_back(host: Host, door: Door) -> None:
    assert free(host, free_parameters(RETURNS)).status is Status.GOOD
    assert door.log == [(FOLLOWER, RETURNS)]


GOLDEN = {
    "hold": (
        hold_parameters(Wanted(1, 0x0203, 4), [Return(5, True)]),
        "0000000000000001 0000000000000203 00000004 00000000 0000000000000005 01 00000000000000",
    ),
    "free": (free_parameters([Return(7, False)]), "0000000000000007 00 00000000000000"),
    "HOLD": (Hold.build(parameter_bytes=40), "c0 000000000000000000 00000028 0000"),
    "FREE": (Free.build(parameter_bytes=16), "c1 000000000000000000 00000010 0000"),
}


@pytest.mark.parametrize(("built", "golden"), GOLDEN.values(), ids=GOLDEN)
def test_the_bytes_on_the_wire(built: bytes, golden: str) -> None:
    assert built == bytes.fromhex(golden)


MALFORMED = {
    "no header": (hold, b"", Condition.PARAMETER_LIST_LENGTH_ERROR),
    "half a header": (hold, bytes(12), Condition.PARAMETER_LIST_LENGTH_ERROR),
    "half a descriptor": (hold, bytes(24 + 15), Condition.PARAMETER_LIST_LENGTH_ERROR),
    "too many": (free, bytes(16 * (MOST_RETURNS + 1)), Condition.PARAMETER_LIST_LENGTH_ERROR),
    "a part": (free, bytes(17), Condition.PARAMETER_LIST_LENGTH_ERROR),
}


@pytest.mark.parametrize(("send", "parameters", "found"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_whole(
    host: Host, door: Door, send: object, parameters: bytes, found: Condition
) -> None:
    """S3: nothing of it reaches the lead."""
    cdb = (Hold if send is hold else Free).build(parameter_bytes=len(parameters))
    assert host.refused(cdb, parameters) is found
    assert not door.log


def test_data_of_another_length_than_announced_is_refused(host: Host, door: Door) -> None:
    assert host.refused(Hold.build(parameter_bytes=40), bytes(24)) is Condition.INVALID_FIELD_IN_CDB
    assert not door.log


@pytest.mark.parametrize(
    ("failure", "status", "sense"),
    [
        (Busy("held"), Status.BUSY, None),
        (OutOfRange(1, 2, 2), Status.CHECK_CONDITION, Condition.LBA_OUT_OF_RANGE),
    ],
    ids=["busy", "no such range"],
)
def test_what_the_lead_refuses(host: Host, door: Door, failure: Exception, status: Status, sense: object) -> None:
    door.failure = failure
    response = hold(host, hold_parameters(Wanted(1, 2, 3), []))
    assert response.status is status
    assert (response.sense == b"") == (sense is None)


def test_a_nexus_that_ends_is_lost(host: Host, door: Door) -> None:
    host.nexus.close()
    assert door.log == ["lost"]


def test_a_hold_that_waits_ends_at_once_when_it_is_aborted(host: Host, door: Door) -> None:
    """Else an abort would wait for other writers. The follower gives the range back by its number, granted or not."""

    async def scenario() -> None:
        door.grant = asyncio.Event()
        parameters = hold_parameters(Wanted(1, 2, 3), [])
        task = asyncio.create_task(host.execute(Hold.build(parameter_bytes=len(parameters)), parameters, tag=9))
        while not door.log:
            await asyncio.sleep(0)
        await host.nexus.manage(Function.ABORT_TASK, 0, 9)
        assert await task is None

    wait(scenario())


def test_no_other_command_gets_through(host: Host) -> None:
    """It has no blocks, and says so by not knowing what reads and writes them."""
    host.hear()
    for cdb in (t.Read10.build(blocks=1), t.Write10.build(blocks=1), formats.ReadCapacity16.build(allocation_bytes=32)):
        assert host.refused(cdb, bytes(512)) is Condition.INVALID_OPERATION_CODE


def test_it_is_found_by_its_name(host: Host) -> None:
    page = host.good(formats.Inquiry.build(vital_product_data=1, page=0x83, allocation_bytes=255))
    assert bytes.fromhex(lead_wwn(WWN)) in page
    assert lead_wwn(WWN) != WWN
    assert lead_wwn(WWN)[:7] == WWN[:7], "it is of the same company"
