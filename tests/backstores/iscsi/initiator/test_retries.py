"""What a target says in place of an answer: that it is busy, or that its units have changed (R12, R15)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from errno import EBUSY, ENODEV
from typing import Any

import pytest

from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16
from backstores.iscsi.initiator.outcome import errno_of
from backstores.iscsi.initiator.target import UnitsChanged
from backstores.scsi import cdb as formats
from backstores.scsi.model import Command, Response, Status
from backstores.scsi.sense import Condition
from backstores.scsi.target import Exposed, TargetNexus
from tests.support.engines import noise
from tests.support.remote import (
    QUICK,
    house,
    make_unit,
    reached,
    reading,
    run,
    ups,
    when,
    writing,
    wwn_of,
)

READY = formats.TestUnitReady.build()


class Answering:
    """Lets the nexuses of a target answer the next commands as a test wants; None: as they would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Response | None) -> None:
        self.left = list(answers)
        self.seen: list[int] = []
        real = TargetNexus.execute

        async def execute(nexus: TargetNexus, lun: int, command: Command) -> Response | None:
            if command.cdb[0] not in (READ_16, WRITE_16):
                return await real(nexus, lun, command)
            self.seen.append(command.cdb[0])
            answer = self.left.pop(0) if self.left else None
            return await real(nexus, lun, command) if answer is None else answer

        monkeypatch.setattr(TargetNexus, "execute", execute)


BUSY, FULL = Response(Status.BUSY), Response(Status.TASK_SET_FULL)
ABORTED = Response(Status.TASK_ABORTED)
ABORTED_COMMAND = Response(Status.CHECK_CONDITION, bytes.fromhex("70000b000000000a00000000470500000000"))


@pytest.mark.parametrize("answer", [BUSY, FULL, ABORTED, ABORTED_COMMAND], ids=["busy", "full", "aborted", "key b"])
def test_a_busy_target_is_asked_again(answer: Response, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while that grows, until it has time."""

    async def scenario() -> None:
        unit = make_unit(1)
        unit.device.immediate = False  # type: ignore[attr-defined]
        async with house({0: unit}) as at, reached(at) as target:
            await target.execute(0, READY)
            answering = Answering(monkeypatch, answer, answer, answer)
            task = await run(target, reading(0, 1))
            assert task.status == Status.GOOD
            assert len(answering.seen) == 4

    asyncio.run(scenario())


def test_a_target_that_stays_busy_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        unit = make_unit(1)
        unit.device.immediate = False  # type: ignore[attr-defined]
        async with house({0: unit}) as at, reached(at, replace(QUICK, deadline_s=0.1)) as target:
            await target.execute(0, READY)
            Answering(monkeypatch, *[BUSY] * 1000)
            assert errno_of(await run(target, reading(0, 1))) == EBUSY

    asyncio.run(scenario())


def test_what_is_busy_was_not_begun_and_may_be_sent_again_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        unit = make_unit(1)
        unit.device.immediate = False  # type: ignore[attr-defined]
        async with house({0: unit}) as at, reached(at) as target:
            await target.execute(0, READY)
            Answering(monkeypatch, BUSY, ABORTED_COMMAND)
            task = await run(target, writing(0, bytes(512), repeatable=False))
            assert task.status == Status.CHECK_CONDITION
            assert task.tries == 1

    asyncio.run(scenario())


def test_a_changed_capacity_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """R12: the command itself is carried out all the same."""

    async def scenario() -> None:
        events: list[Any] = []
        unit = make_unit(1)
        async with house({0: unit}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            unit.device.blocks += 8
            unit.resized()
            assert (await run(target, reading(0, 1))).status == Status.GOOD
            assert UnitsChanged(0, Condition.CAPACITY_CHANGED) in events

    asyncio.run(scenario())


@pytest.mark.parametrize("away", [True, False], ids=["while we were away", "while we were there"])
def test_a_unit_that_is_another_by_now_is_not_written_to(away: bool) -> None:
    """R12: LUN 0 is given to another unit. A write meant for the first one fails, and the other one is untouched."""

    async def scenario() -> None:
        first, other = make_unit(1), make_unit(2)
        async with house({0: first}, portals=1) as at, reached(at) as target:
            target.expect(0, wwn_of(1))
            assert (await run(target, writing(0, noise(512)))).status == Status.GOOD
            if away:
                endpoint = await at.stop(0)
                await when(lambda: not any(ups(target)))
                at.units[0] = Exposed(other, False)
                await at.start(0, endpoint)
            else:
                at.units[0] = Exposed(other, False)
                for session in at.registry:
                    assert isinstance(session.nexus, TargetNexus)
                    session.nexus.set_luns(at.units)
            task = await run(target, writing(0, noise(512)))
            assert errno_of(task) == ENODEV
            assert not any(other.device.content)  # type: ignore[attr-defined]
            target.forget(0)

    asyncio.run(scenario())


def test_a_unit_that_is_there_again_can_be_used_again() -> None:
    """R12: whoever looks for it and finds it says so, and the paths look again."""

    async def scenario() -> None:
        first, other = make_unit(1), make_unit(2)
        async with house({0: first}, portals=1) as at, reached(at) as target:
            target.expect(0, wwn_of(1))
            endpoint = await at.stop(0)
            await when(lambda: not any(ups(target)))
            at.units[0] = Exposed(other, False)
            await at.start(0, endpoint)
            assert errno_of(await run(target, reading(0, 1))) == ENODEV
            assert await target.units() == {wwn_of(2): 0}
            target.expect(0, wwn_of(2))
            target.forget(0)  # of who had the first one open, and has just closed it
            assert (await run(target, reading(0, 1))).status == Status.GOOD

    asyncio.run(scenario())


def test_a_unit_that_makes_no_sense_keeps_no_other_from_being_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: neither when units are looked for, nor when a path comes up."""
    real = TargetNexus.execute

    async def execute(nexus: TargetNexus, lun: int, command: Command) -> Response | None:
        if lun == 1 << 48 and command.cdb[:3] == b"\x12\x01\x83":
            return Response(data_in=b"\0\x83\xff\xff")
        if lun == 1 << 48 and command.cdb[0] == 0:
            return Response(Status.CHECK_CONDITION, bytes.fromhex("700002000000000a00000000040300000000"))
        return await real(nexus, lun, command)

    async def scenario() -> None:
        async with house({0: make_unit(1), 1: make_unit(2)}, portals=1) as at, reached(at) as target:
            target.expect(0, wwn_of(1))
            target.expect(1, wwn_of(2))
            monkeypatch.setattr(TargetNexus, "execute", execute)
            assert await target.units() == {wwn_of(1): 0}
            endpoint = await at.stop(0)
            await when(lambda: not any(ups(target)))
            await at.start(0, endpoint)
            assert (await run(target, reading(0, 1))).status == Status.GOOD

    asyncio.run(scenario())
