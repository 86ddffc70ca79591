"""The handler in its loop, on a simulated device: commands reach the unit, and each is given back once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from struct import pack

import pytest

from backstores.block import Op, Request, Run
from backstores.device import BlockDevice, MemoryDevice
from backstores.errors import TiergateError
from backstores.scsi.model import Command, FunctionResponse, Response, Status
from backstores.scsi.model import Function as ModelFunction
from backstores.scsi.sense import Condition, FixedSense, Key, key_of
from backstores.scsi.store import MemoryStore
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.tcmu.formats import Function, Mailbox
from backstores.tcmu.handler import Handler, hear_attentions
from backstores.tcmu.ring import RingError
from backstores.tcmu.uio import DeviceGone
from tests.support.scsi import IQN, WWN
from tests.support.tcmu_kernel import Outcome, SimulatedDevice, SimulatedKernel

TEST_UNIT_READY = bytes(6)
INQUIRY = bytes([0x12, 0, 0, 0, 255, 0])
BLOCKS = 256
PATTERN = bytes(range(256)) * 8


def read_10(lba: int, blocks: int) -> bytes:
    return pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write_10(lba: int, blocks: int) -> bytes:
    return pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


async def turns() -> None:
    """Let the loop do all that it can do now: each turn looks at the device, too."""
    for _ in range(20):
        await asyncio.sleep(0)


class StuckDevice(MemoryDevice):
    """A device whose requests wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__(BLOCKS)
        self.immediate = False
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.requests = 0

    async def submit(self, request: Request) -> list[Run]:
        self.requests += request.op in (Op.READ, Op.WRITE)
        self.entered.set()
        await self.go.wait()
        return await super().submit(request)


@dataclass
class Served:
    """A handler at work on a simulated device."""

    kernel: SimulatedKernel
    shared: SimulatedDevice
    device: BlockDevice
    unit: LogicalUnit
    nexus: TargetNexus
    handler: Handler
    losses: list[TiergateError] = field(default_factory=list)

    def queue(self, cdb: bytes, data: bytes = b"", data_in_bytes: int = 0) -> int:
        """Put a command into the ring, without waking the handler."""
        number = self.kernel.command(cdb, data, data_in_bytes)
        assert number is not None
        return number

    async def outcome(self, number: int) -> Outcome:
        """Wait until a command has been given back."""
        while number not in self.kernel.outcomes:
            await asyncio.sleep(0)
        return self.kernel.outcomes[number]

    async def send(self, cdb: bytes, data: bytes = b"", data_in_bytes: int = 0) -> Outcome:
        """Put a command into the ring, wake the handler, and wait for its end."""
        number = self.queue(cdb, data, data_in_bytes)
        self.shared.wake()
        return await self.outcome(number)


@asynccontextmanager
async def serving(
    device: BlockDevice | None = None, queued: Sequence[tuple[bytes, bytes, int]] = (), ring_bytes: int = 16384
) -> AsyncIterator[Served]:
    """Serve a unit; ``queued`` is in the ring before the handler starts."""
    kernel = SimulatedKernel(ring_bytes=ring_bytes, random=Random(4))
    for cdb, data, data_in_bytes in queued:
        assert kernel.command(cdb, data, data_in_bytes) is not None
    shared = SimulatedDevice(kernel)
    device = device or MemoryDevice(BLOCKS)
    unit = LogicalUnit(device, Identity(WWN), MemoryStore())
    nexus = TargetDevice(IQN).open_nexus("iqn.2026-11.example:lio,i,0x0", {0: Exposed(unit)})
    await hear_attentions(nexus)
    losses: list[TiergateError] = []
    handler = Handler(shared, nexus, losses.append)
    yield Served(kernel, shared, device, unit, nexus, handler, losses)
    await handler.close()
    assert shared.closed


def with_served(
    work: Callable[[Served], Awaitable[None]], make_device: Callable[[], BlockDevice] = lambda: MemoryDevice(BLOCKS)
) -> None:
    """Run a test in a loop of its own."""

    async def main() -> None:
        async with serving(make_device()) as served:
            await work(served)

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("immediate", [True, False], ids=["hot-path", "general-path"])
def test_what_was_written_is_read_back(immediate: bool) -> None:
    """R31: the ring leads to the same unit as the portal."""

    async def work(served: Served) -> None:
        assert isinstance(served.device, MemoryDevice)
        served.device.immediate = immediate
        assert (await served.send(write_10(9, 4), PATTERN)).status == Status.GOOD
        outcome = await served.send(read_10(9, 4), data_in_bytes=2048)
        assert (outcome.status, outcome.data_in) == (Status.GOOD, PATTERN)
        assert served.device.content[9 * 512 : 13 * 512] == PATTERN

    with_served(work)


def test_an_answer_shorter_than_its_room_says_so() -> None:
    async def work(served: Served) -> None:
        outcome = await served.send(INQUIRY, data_in_bytes=255)
        assert outcome.data_in[8:16] == b"TIERGATE"
        assert len(outcome.data_in) < 255

    with_served(work)


def test_sense_data_reaches_the_kernel() -> None:
    async def work(served: Served) -> None:
        outcome = await served.send(read_10(BLOCKS, 1), data_in_bytes=512)
        assert outcome.status == Status.CHECK_CONDITION
        assert FixedSense.parse(outcome.sense.ljust(18, b"\0")).asc == Condition.LBA_OUT_OF_RANGE.value[1]

    with_served(work)


def test_a_host_does_not_hear_that_the_handler_has_started() -> None:
    """The kernel tells every host of a power-on itself; ours would reach whichever host comes first."""

    async def work(served: Served) -> None:
        assert (await served.send(TEST_UNIT_READY)).status == Status.GOOD

    with_served(work)


def test_a_host_hears_that_the_volume_has_grown() -> None:
    async def work(served: Served) -> None:
        served.unit.resized()
        outcome = await served.send(TEST_UNIT_READY)
        assert key_of(outcome.sense.ljust(18, b"\0")) == Key.UNIT_ATTENTION
        assert (await served.send(TEST_UNIT_READY)).status == Status.GOOD

    with_served(work)


def test_what_is_in_the_ring_at_the_start_needs_no_wake_up() -> None:
    """A fresh open of the device sees no event for it."""

    async def main() -> None:
        async with serving(queued=[(write_10(0, 1), PATTERN[:512], 0), (TEST_UNIT_READY, b"", 0)]) as served:
            assert (await served.outcome(1)).status == Status.GOOD
            assert (await served.outcome(2)).status == Status.GOOD

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_batch_is_one_kick() -> None:
    async def work(served: Served) -> None:
        numbers = [served.queue(write_10(lba, 1), PATTERN[:512]) for lba in range(30)]
        served.shared.wake()
        for number in numbers:
            await served.outcome(number)
        assert served.kernel.kicks == 1

    with_served(work)


def test_general_commands_that_end_together_are_one_kick() -> None:
    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        numbers = [served.queue(write_10(lba, 1), PATTERN[:512]) for lba in range(30)]
        served.shared.wake()
        while served.device.requests < 30:
            await asyncio.sleep(0)
        served.device.go.set()
        for number in numbers:
            await served.outcome(number)
        assert served.kernel.kicks == 1

    with_served(work, StuckDevice)


def test_more_than_a_batch_is_taken_without_another_wake_up() -> None:
    async def main() -> None:
        many = [(TEST_UNIT_READY, b"", 0)] * 300
        async with serving(queued=many, ring_bytes=300 * 120 + 8) as served:
            for number in range(1, 301):
                await served.outcome(number)

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    "function", [Function.ABORT_TASK, Function.ABORT_TASK_SET, Function.PREEMPT_AND_ABORT], ids=lambda f: f.name.lower()
)
def test_aborted_commands_end_task_aborted_and_others_go_on(function: Function) -> None:
    """The kernel answers the host when they have been given back, and they may change nothing afterwards."""

    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        doomed, other = (served.queue(write_10(lba, 1), PATTERN[:512]) for lba in (0, 1))
        served.shared.wake()
        await served.device.entered.wait()
        served.kernel.task_management(function, [doomed])
        served.shared.wake()
        await turns()
        assert not served.kernel.outcomes
        served.device.go.set()
        assert (await served.outcome(doomed)).status == Status.TASK_ABORTED
        assert (await served.outcome(other)).status == Status.GOOD

    with_served(work, StuckDevice)


@pytest.mark.parametrize(
    "function",
    [Function.LOGICAL_UNIT_RESET, Function.TARGET_WARM_RESET, Function.TARGET_COLD_RESET],
    ids=lambda f: f.name.lower(),
)
def test_a_reset_aborts_everything_and_leaves_no_second_attention(function: Function) -> None:
    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        running = served.queue(write_10(0, 1), PATTERN[:512])
        served.shared.wake()
        await served.device.entered.wait()
        served.kernel.task_management(function, [running])
        served.shared.wake()
        await turns()
        served.device.go.set()
        assert (await served.outcome(running)).status == Status.TASK_ABORTED
        assert (await served.send(TEST_UNIT_READY)).status == Status.GOOD

    with_served(work, StuckDevice)


def test_a_close_waits_for_what_runs_and_answers_busy_to_what_comes() -> None:
    """R31: a clean stop drains the ring; hosts try again what they are told is busy."""

    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        running = served.queue(write_10(0, 1), PATTERN[:512])
        served.shared.wake()
        await served.device.entered.wait()
        closing = asyncio.create_task(served.handler.close())
        await turns()
        late = served.queue(TEST_UNIT_READY)
        served.shared.wake()
        assert (await served.outcome(late)).status == Status.BUSY
        assert not closing.done()
        served.device.go.set()
        await closing
        assert served.kernel.outcomes[running].status == Status.GOOD
        assert served.kernel.drained
        assert served.shared.closed

    with_served(work, StuckDevice)


def test_a_close_takes_what_nobody_was_woken_for() -> None:
    async def work(served: Served) -> None:
        late = served.queue(TEST_UNIT_READY)
        await served.handler.close()
        assert served.kernel.outcomes[late].status == Status.BUSY
        assert served.kernel.drained

    with_served(work)


def test_a_removed_device_is_a_loss_that_is_told_once() -> None:
    async def work(served: Served) -> None:
        gone = DeviceGone("the kernel has removed the device: Input/output error")
        served.shared.failure = gone
        served.shared.wake()
        while not served.losses:
            await asyncio.sleep(0)
        served.shared.wake()
        await turns()
        assert served.losses == [gone]
        assert served.handler.lost is gone

    with_served(work)


def test_a_device_that_goes_while_a_command_runs_is_a_loss() -> None:
    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        served.queue(write_10(0, 1), PATTERN[:512])
        served.shared.wake()
        await served.device.entered.wait()
        served.shared.failure = DeviceGone("gone")
        served.device.go.set()
        while not served.losses:
            await asyncio.sleep(0)

    with_served(work, StuckDevice)


def test_a_broken_ring_is_a_loss() -> None:
    async def work(served: Served) -> None:
        served.kernel.poke(Mailbox.head, 12)
        served.shared.wake()
        while not served.losses:
            await asyncio.sleep(0)
        assert isinstance(served.losses[0], RingError)
        served.kernel.poke(Mailbox.head, 0)

    with_served(work)


def test_a_ring_that_is_not_ours_is_refused_and_let_go() -> None:
    kernel = SimulatedKernel()
    kernel.poke(Mailbox.version, 9)
    shared = SimulatedDevice(kernel)

    async def main() -> None:
        with pytest.raises(RingError, match="ring version 9"):
            Handler(shared, FailingNexus(), lambda error: None)

    asyncio.run(main())
    assert shared.closed


class FailingNexus:
    """A device server with a bug."""

    fast_read: dict[int, BlockDevice] = {}  # noqa: RUF012 (a protocol's attribute, never filled)
    fast_write: dict[int, BlockDevice] = {}  # noqa: RUF012

    def data_out_bytes(self, lun: int, cdb: bytes) -> int:
        return 0

    async def execute(self, lun: int, command: Command) -> Response | None:
        raise ZeroDivisionError("a bug")

    async def manage(self, function: ModelFunction, lun: int, tag: int) -> FunctionResponse:
        raise ZeroDivisionError("a bug")

    def close(self) -> None:
        pass


def test_a_command_that_meets_a_bug_is_given_back_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A host must not wait for ever, nor the kernel keep the slot."""
    kernel = SimulatedKernel()
    shared = SimulatedDevice(kernel)

    async def main() -> None:
        number = kernel.command(TEST_UNIT_READY)
        handler = Handler(shared, FailingNexus(), lambda error: None)
        await handler.close()
        assert number is not None
        assert kernel.outcomes[number].status == Status.CHECK_CONDITION
        assert key_of(kernel.outcomes[number].sense.ljust(18, b"\0")) == Key.HARDWARE_ERROR

    asyncio.run(main())
    assert "a command failed inside of the target" in caplog.text
