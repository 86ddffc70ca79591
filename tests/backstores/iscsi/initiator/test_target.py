"""A target over two paths: fail-over, what is sent again, and what is not (R12, R15)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from errno import EBUSY, ENODEV, ENOTCONN
from typing import Any

import pytest

from backstores.errors import UsageError
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.login import LoginFailed
from backstores.iscsi.initiator.outcome import CommandFailed, ConnectionLost, errno_of
from backstores.iscsi.initiator.target import PathDown, PathUp, RemoteTarget, UnitsChanged
from backstores.iscsi.initiator.tasks import EMPTY, Task
from backstores.scsi import cdb as formats
from backstores.scsi.model import Command, Response, Status
from backstores.scsi.sense import Condition
from backstores.scsi.target import Exposed, TargetNexus
from tests.support.cable import Cable, cables
from tests.support.engines import noise
from tests.support.remote import OURS, QUICK, House, house, identity, make_unit, reached, wwn_of

READY = formats.TestUnitReady.build()


async def when(condition: Callable[[], object]) -> None:
    """Wait for what other tasks of this loop bring about; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def run(target: RemoteTarget, make: Callable[[Callable[[Task], None]], Task]) -> Task:
    """Run a task to its end."""
    ended: asyncio.Future[Task] = asyncio.get_running_loop().create_future()
    target.submit(make(ended.set_result))
    return await ended


def writing(lba: int, data: bytes, **options: Any) -> Callable[[Callable[[Task], None]], Task]:
    cdb = transfer(WRITE_16, lba, len(data) // 512)
    return lambda done: Task(0, cdb, done, EMPTY, memoryview(data), **options)


def reading(lba: int, blocks: int) -> Callable[[Callable[[Task], None]], Task]:
    return lambda done: Task(0, transfer(READ_16, lba, blocks), done, memoryview(bytearray(blocks * 512)))


def ups(target: RemoteTarget) -> list[bool]:
    return [path.up for path in target.paths()]


def actives(target: RemoteTarget) -> list[bool]:
    return [path.active for path in target.paths()]


def test_both_paths_come_up_and_one_is_active() -> None:
    async def scenario() -> None:
        events: list[Any] = []
        async with house({0: make_unit(1)}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            assert sum(actives(target)) == 1
            assert sorted(events, key=str) == [PathUp(0), PathUp(1)]
            isids = {session.grant.isid for session in at.registry}
            assert len(isids) == 2

    asyncio.run(scenario())


def test_one_path_is_enough_to_begin() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at:
            endpoints = at.endpoints
            await at.stop(0)
            async with reached(endpoints) as target:
                await target.execute(0, READY)
                assert ups(target) == [False, True]
                assert "no connection" in target.paths()[0].trouble

    asyncio.run(scenario())


def test_no_path_at_all_is_an_error() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at:
            with pytest.raises(LoginFailed, match="secret"):
                async with reached(at, who=replace(identity(), chap=replace(OURS, secret=b"wrong as can be"))):
                    pass
            endpoints = [await at.stop(0), await at.stop(1)]
            with pytest.raises(ConnectionLost):
                async with reached(endpoints):
                    pass

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["cut", "frozen", "portal stopped", "session dropped"])
def test_what_a_dying_path_leaves_unanswered_goes_by_the_other(how: str) -> None:
    """R12: verified reads and writes without a break, while the active path dies in the middle of them, twice."""

    async def scenario() -> None:
        unit = make_unit(1)
        async with (
            house({0: unit}) as at,
            cables(at.endpoints) as ways,
            reached([cable.near for cable in ways]) as target,
        ):
            await when(lambda: all(ups(target)))
            over = asyncio.Event()
            rounds = [0] * 8
            work = [asyncio.create_task(_verify(target, n, over, rounds)) for n in range(8)]
            for _ in range(2):
                await when(lambda: min(rounds) > 3)
                number = actives(target).index(True)
                await _harm(how, at, ways, number)
                await when(lambda n=number: not ups(target)[n] and any(ups(target)))
                rounds[:] = [0] * 8
                await when(lambda: min(rounds) > 3)
                await _mend(how, at, ways, number)
                await when(lambda: all(ups(target)))
            over.set()
            await asyncio.gather(*work)

    asyncio.run(scenario())


async def _verify(target: RemoteTarget, lane: int, over: asyncio.Event, rounds: list[int]) -> None:
    """Write blocks of one's own, and read them back, over and over."""
    seed = lane
    while not over.is_set():
        seed += 8
        data = noise(32768, seed)
        assert (await run(target, writing(lane * 64, data))).status == Status.GOOD
        task = await run(target, reading(lane * 64, 64))
        assert task.status == Status.GOOD
        assert bytes(task.into) == data
        rounds[lane] += 1


async def _harm(how: str, at: House, ways: list[Cable], number: int) -> None:
    match how:
        case "cut":
            await ways[number].unplug()
        case "frozen":
            ways[number].freeze()
        case "portal stopped":
            await at.stop(number)
        case _:
            ways[number].freeze()
            for session in list(at.registry):
                at.registry.end(session, "dropped")


async def _mend(how: str, at: House, ways: list[Cable], number: int) -> None:
    match how:
        case "cut":
            await ways[number].plug()
        case "portal stopped":
            await at.start(number, ways[number].far)
        case _:
            ways[number].thaw()


def test_fencing_goes_on_by_whatever_path_is_there() -> None:
    """Both paths have carried commands. The first dies, can't be fenced by the second, and that dies too."""

    async def scenario() -> None:
        async with (
            house({0: make_unit(1)}) as at,
            cables(at.endpoints) as ways,
            reached([cable.near for cable in ways]) as target,
        ):
            target._patience = replace(QUICK, first_wait_s=0.3)  # paths come back while it waits to fence again
            await when(lambda: all(ups(target)))
            for number in (1, 0):
                target.prefer(number)
                await target.execute(0, READY)
            await _refuse_new(ways[1])
            await ways[0].unplug()
            await when(lambda: not ups(target)[0])
            ways[1].cut()
            await when(lambda: not ups(target)[1])
            await ways[0].plug()
            await target.execute(0, READY)
            await ways[1].plug()
            await when(lambda: all(ups(target)))

    asyncio.run(scenario())


async def _refuse_new(cable: Cable) -> None:
    """Let connections be as they are, and no new one be made."""
    assert cable._server is not None
    cable._server.close()


def test_a_path_that_stays_away_is_told_once() -> None:
    async def scenario() -> None:
        events: list[Any] = []
        async with house({0: make_unit(1)}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            endpoint = await at.stop(0)
            await when(lambda: "no connection" in target.paths()[0].trouble)
            await at.start(0, endpoint)
            await when(lambda: all(ups(target)))
            assert [type(event) for event in events if event.path == 0] == [PathUp, PathDown, PathUp]

    asyncio.run(scenario())


def test_without_a_path_commands_wait_and_then_go() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at, reached(at) as target:
            await when(lambda: all(ups(target)))
            endpoints = [await at.stop(0), await at.stop(1)]
            await when(lambda: not any(ups(target)))
            waiting = asyncio.ensure_future(target.execute(0, READY))
            await asyncio.sleep(0)
            assert not waiting.done()
            await at.start(1, endpoints[1])
            await waiting
            assert actives(target) == [False, True]

    asyncio.run(scenario())


def test_a_command_has_its_time() -> None:
    """R12: no path within the deadline: an error, and not before; one that came later has its own time."""

    async def scenario() -> None:
        patience = replace(QUICK, deadline_s=0.2)
        async with house({0: make_unit(1)}) as at, reached(at, patience) as target:
            await at.stop(0)
            await at.stop(1)
            await when(lambda: not any(ups(target)))
            first = await run(target, writing(0, bytes(512)))
            assert first.lost
            assert errno_of(first) == ENOTCONN
            with pytest.raises(ConnectionLost):
                await target.execute(0, READY)

    asyncio.run(scenario())


def test_commands_of_a_unit_that_is_given_up_do_not_wait() -> None:
    """R12: those that wait already end at once, others' go on waiting; and again when it is taken back."""

    async def scenario() -> None:
        async with house({0: make_unit(1), 1: make_unit(2)}) as at, reached(at) as target:
            endpoints = [await at.stop(0), await at.stop(1)]
            await when(lambda: not any(ups(target)))
            waiting = [asyncio.ensure_future(target.execute(number, READY)) for number in (0, 1)]
            await asyncio.sleep(0)
            target.hurry(0)
            with pytest.raises(ConnectionLost):
                await waiting[0]
            again = asyncio.ensure_future(target.execute(0, READY))
            await when(again.done)
            assert not waiting[1].done()
            target.hurry(0, False)
            waiting.append(asyncio.ensure_future(target.execute(0, READY)))
            await at.start(0, endpoints[0])
            await asyncio.gather(*waiting[1:])
            with pytest.raises(ConnectionLost):
                await again

    asyncio.run(scenario())


def test_what_must_not_be_repeated_ends_lost() -> None:
    """Vendor commands: who sent it decides. It is not known whether it was carried out."""

    async def scenario() -> None:
        unit = make_unit(1)
        unit.device.immediate = False  # type: ignore[attr-defined]
        async with (
            house({0: unit}) as at,
            cables(at.endpoints) as ways,
            reached([cable.near for cable in ways]) as target,
        ):
            await when(lambda: all(ups(target)))
            number = actives(target).index(True)
            ways[number].freeze()
            outcomes = [
                asyncio.ensure_future(run(target, writing(0, bytes(512), repeatable=False))),
                asyncio.ensure_future(run(target, writing(8, bytes(512)))),
            ]
            once, again = await asyncio.gather(*outcomes)
            assert once.lost
            assert again.status == Status.GOOD
            with pytest.raises(ConnectionLost):
                await asyncio.gather(
                    target.execute(0, READY, repeatable=False), _cut(ways[actives(target).index(True)])
                )

    asyncio.run(scenario())


async def _cut(cable: Cable) -> None:
    cable.freeze()
    await asyncio.sleep(0.01)
    cable.cut()


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


def test_a_path_can_be_preferred() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at, reached(at) as target:
            await when(lambda: all(ups(target)))
            for number in (1, 0, 1):
                target.prefer(number)
                assert actives(target).index(True) == number
                await target.execute(0, READY)
            with pytest.raises(UsageError, match="path 2 of 2"):
                target.prefer(2)
            await at.stop(0)
            await when(lambda: not ups(target)[0])
            with pytest.raises(UsageError, match="not up"):
                target.prefer(0)

    asyncio.run(scenario())


def test_the_end_of_a_path_is_told_with_its_reason() -> None:
    async def scenario() -> None:
        events: list[Any] = []
        async with house({0: make_unit(1)}) as at, reached(at, events=events) as target:
            await when(lambda: all(ups(target)))
            await at.stop(0)
            await when(lambda: not ups(target)[0])
            [down] = [event for event in events if isinstance(event, PathDown)][:1]
            assert (down.path, "drops the session" in down.reason) == (0, True)

    asyncio.run(scenario())


def test_after_its_end_a_target_carries_nothing() -> None:
    async def scenario() -> None:
        async with house({0: make_unit(1)}) as at:
            async with reached(at) as target:
                await at.stop(0)
                await at.stop(1)
                await when(lambda: not any(ups(target)))
                waiting = asyncio.ensure_future(target.execute(0, READY))
                await asyncio.sleep(0)
            with pytest.raises(ConnectionLost):
                await waiting
            with pytest.raises(CommandFailed):
                await target.execute(0, READY)
            assert len(at.registry) == 0

    asyncio.run(scenario())
