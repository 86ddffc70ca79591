"""Commands in flight: order, task management functions, and what an aborted command does not do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from backstores.block import Request, Run
from backstores.device import MemoryDevice
from backstores.scsi import cdb as c
from backstores.scsi import transfers as t
from backstores.scsi.model import Attribute, Function, FunctionResponse, Response, Status
from backstores.scsi.persistent import Out
from backstores.scsi.reservations import ReservationType
from backstores.scsi.sense import Condition
from backstores.scsi.store import MemoryStore, UnitState
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wwn import Wwn
from tests.support.reservations import out_command
from tests.support.scsi import BLOCK, IQN, WWN, Host, condition, memory_unit

READ = t.Read10.build(lba=0, blocks=1)


class SlowDevice(MemoryDevice):
    """Carries a request out when the test lets it."""

    def __init__(self) -> None:
        super().__init__(64)
        self.begun: list[Request] = []
        self.gates: asyncio.Queue[None] = asyncio.Queue()

    async def submit(self, request: Request) -> list[Run]:
        self.begun.append(request)
        await self.gates.get()
        return await super().submit(request)

    def let(self, count: int = 1) -> None:
        """Let requests go on."""
        for _ in range(count):
            self.gates.put_nowait(None)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(30):
        await asyncio.sleep(0)


class Scene:
    """Two hosts at a slow unit."""

    def __init__(self) -> None:
        self.device = SlowDevice()
        self.unit = LogicalUnit(self.device, Identity(WWN))
        self.one, self.other = (Host.at(self.unit, name, greet=False) for name in "ab")

    async def start(self, command: Coroutine[Any, Any, Response | None]) -> asyncio.Task[Response | None]:
        """Have a command begin."""
        task = asyncio.ensure_future(command)
        await settle()
        return task

    async def greet(self) -> None:
        """Have both hosts hear the first unit attention."""
        for host in (self.one, self.other):
            await host.execute(bytes(6))

    async def manage(self, function: Function, tag: int = 0) -> asyncio.Task[FunctionResponse]:
        """Have a task management function of the first host begin."""
        task = asyncio.ensure_future(self.one.nexus.manage(function, 0, tag))
        await settle()
        return task

    async def hear(self, host: Host) -> Condition | None:
        """Give what the next command hears."""
        response = await host.execute(bytes(6))
        assert response is not None
        return condition(response)


def test_an_ordered_command_waits_and_is_waited_for() -> None:
    """SAM-5 clause 8.6.3; the hot path is closed meanwhile."""

    async def play() -> None:
        scene = Scene()
        await scene.greet()
        simple = await scene.start(scene.one.execute(READ, tag=1))
        assert scene.one.nexus.fast_read
        ordered = await scene.start(scene.one.execute(READ, tag=2, attribute=Attribute.ORDERED))
        late = await scene.start(scene.other.execute(READ, tag=3))
        assert len(scene.device.begun) == 1
        assert not scene.one.nexus.fast_read
        assert not scene.other.nexus.fast_write
        for expected, task in enumerate((simple, ordered, late), 1):
            assert len(scene.device.begun) == expected
            scene.device.let()
            response = await task
            assert response is not None
            assert response.status is Status.GOOD
            await settle()
        assert scene.one.nexus.fast_read
        assert scene.other.nexus.fast_write

    asyncio.run(play())


def test_aca_is_not_supported() -> None:
    async def play() -> None:
        scene = Scene()
        await scene.greet()
        response = await scene.one.execute(READ, attribute=Attribute.ACA)
        assert response is not None
        assert condition(response) is Condition.INVALID_INFORMATION_UNIT

    asyncio.run(play())


def test_an_abort_is_answered_when_the_disk_is_done() -> None:
    """SAM-5 clause 7.2: then the command changes nothing any more, and has no answer."""

    async def play() -> None:
        scene = Scene()
        await scene.greet()
        command = await scene.start(scene.one.execute(t.Write10.build(blocks=1), b"x" * BLOCK, tag=7))
        function = await scene.manage(Function.ABORT_TASK, tag=7)
        assert not function.done()
        scene.device.let()
        assert await function is FunctionResponse.COMPLETE
        assert await command is None
        assert scene.device.content[:1] == b"x"

    asyncio.run(play())


def test_an_aborted_command_does_not_take_its_next_step() -> None:
    async def play() -> None:
        scene = Scene()
        await scene.greet()
        data = bytes(BLOCK) + b"x" * BLOCK
        command = await scene.start(scene.one.execute(t.CompareAndWrite.build(blocks=1), data, tag=7))
        function = await scene.manage(Function.ABORT_TASK_SET)
        scene.device.let()
        assert await function is FunctionResponse.COMPLETE
        assert await command is None
        assert len(scene.device.begun) == 1
        assert scene.device.content[:1] == b"\0"

    asyncio.run(play())


def test_an_aborted_command_that_waits_ends_at_once() -> None:
    async def play() -> None:
        scene = Scene()
        await scene.greet()
        first = await scene.start(scene.one.execute(READ, tag=1))
        waiting = await scene.start(scene.one.execute(READ, tag=2, attribute=Attribute.ORDERED))
        assert await (await scene.manage(Function.ABORT_TASK, tag=2)) is FunctionResponse.COMPLETE
        assert await waiting is None
        assert scene.one.nexus.fast_read
        scene.device.let()
        assert await first is not None

    asyncio.run(play())


@pytest.mark.parametrize(
    ("function", "others_too", "heard"),
    [
        (Function.ABORT_TASK_SET, False, (None, None)),
        (Function.CLEAR_TASK_SET, True, (None, Condition.COMMANDS_CLEARED)),
        (Function.LOGICAL_UNIT_RESET, True, (Condition.UNIT_RESET_OCCURRED,) * 2),
        (Function.TARGET_WARM_RESET, True, (Condition.BUS_RESET_OCCURRED,) * 2),
        (Function.TARGET_COLD_RESET, True, (Condition.POWER_ON_OCCURRED,) * 2),
    ],
)
def test_whose_commands_end(function: Function, others_too: bool, heard: tuple[Condition | None, ...]) -> None:
    """SAM-5 clause 7: and who hears of it by a unit attention."""

    async def play() -> None:
        scene = Scene()
        await scene.greet()
        mine = await scene.start(scene.one.execute(READ, tag=1))
        theirs = await scene.start(scene.other.execute(READ, tag=1))
        answer = await scene.manage(function)
        scene.device.let(2)
        assert await answer is FunctionResponse.COMPLETE
        assert await mine is None
        assert (await theirs is None) is others_too
        assert (await scene.hear(scene.one), await scene.hear(scene.other)) == heard

    asyncio.run(play())


def test_a_reset_frees_what_was_held() -> None:
    """SAM-5 clause 6.3.3: RESERVE and PREVENT end; persistent reservations stay."""
    unit = memory_unit(removable=True)
    one, other = Host.at(unit, "a"), Host.at(unit, "b")
    one.good(c.Reserve6.build())
    one.good(c.PreventAllow.build(prevent=1))
    other.manage(Function.LOGICAL_UNIT_RESET)
    assert other.hear() == [Condition.UNIT_RESET_OCCURRED]
    other.good(c.StartStopUnit.build(load_eject=1))
    assert other.refused(bytes(6)) is Condition.MEDIUM_NOT_PRESENT


@pytest.mark.parametrize(
    ("function", "lun", "answer"),
    [
        (Function.ABORT_TASK_SET, 5, FunctionResponse.LUN_DOES_NOT_EXIST),
        (Function.LOGICAL_UNIT_RESET, 5, FunctionResponse.LUN_DOES_NOT_EXIST),
        (Function.CLEAR_ACA, 0, FunctionResponse.NOT_SUPPORTED),
        (Function.TASK_REASSIGN, 0, FunctionResponse.NOT_SUPPORTED),
        (Function.ABORT_TASK, 0, FunctionResponse.COMPLETE),
    ],
)
def test_answers(function: Function, lun: int, answer: FunctionResponse) -> None:
    assert Host.at(memory_unit()).manage(function, 99, lun) is answer


def test_a_target_reset_leaves_units_of_other_hosts_alone() -> None:
    """R15: a host has no power over what it does not see."""
    target = TargetDevice(IQN)
    mine, theirs = memory_unit(), memory_unit()
    one = Host(target.open_nexus("iqn.x:a,i,0x1", {0: Exposed(mine)}))
    other = Host(target.open_nexus("iqn.x:b,i,0x1", {0: Exposed(theirs)}))
    one.hear(), other.hear()
    one.manage(Function.TARGET_WARM_RESET)
    assert (one.hear(), other.hear()) == ([Condition.BUS_RESET_OCCURRED], [])


def test_preempt_and_abort_waits_for_the_victims_commands() -> None:
    """SPC-4 clause 5.12.11.3: and is not held up by one that waits for its turn itself."""

    async def play() -> None:
        scene = Scene()
        await scene.greet()
        for host, key in ((scene.one, 1), (scene.other, 2)):
            await host.execute(*out_command(Out.REGISTER, 0, key))
        victim = await scene.start(scene.other.execute(READ, tag=1))
        type_ = ReservationType.EXCLUSIVE_ACCESS
        preempt = await scene.start(scene.one.execute(*out_command(Out.PREEMPT_AND_ABORT, 1, 2, type_)))
        assert not preempt.done()
        scene.device.let()
        response = await preempt
        assert response is not None
        assert await victim is None
        assert await scene.hear(scene.other) is Condition.REGISTRATIONS_PREEMPTED

    asyncio.run(play())


def test_preempt_and_abort_is_not_held_up_by_a_victim_behind_it() -> None:
    """A victim's own PERSISTENT RESERVE OUT waits for its turn, which comes when it has been aborted."""

    class SlowStore(MemoryStore):
        gate: asyncio.Event | None = None

        async def save(self, wwn: Wwn, state: UnitState) -> None:
            if self.gate is not None:
                await self.gate.wait()
            await super().save(wwn, state)

    async def play() -> None:
        store = SlowStore()
        unit = memory_unit(store=store)
        one, other = (Host.at(unit, name, greet=False) for name in "ab")
        for host, key in ((one, 1), (other, 2)):
            await host.execute(bytes(6))
            await host.execute(*out_command(Out.REGISTER, 0, key, persist=True))
        store.gate = asyncio.Event()
        type_ = ReservationType.EXCLUSIVE_ACCESS
        preempt = asyncio.ensure_future(one.execute(*out_command(Out.PREEMPT_AND_ABORT, 1, 2, type_)))
        await settle()
        victim = asyncio.ensure_future(other.execute(*out_command(Out.REGISTER, 2, 3, persist=True)))
        await settle()
        store.gate.set()
        response = await asyncio.wait_for(preempt, 10)
        assert response is not None
        assert await victim is None
        assert list(unit.reservations.keys.values()) == [1]

    asyncio.run(play())


def test_a_lost_nexus_has_no_answers() -> None:
    async def play() -> None:
        scene = Scene()
        await scene.greet()
        command = await scene.start(scene.one.execute(READ))
        scene.one.nexus.close()
        scene.device.let()
        assert await command is None
        assert scene.one.nexus.fast_read == {}
        assert len(scene.unit.tasks) == 0

    asyncio.run(play())
