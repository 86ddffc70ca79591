"""The handler in its loop, on a simulated device: commands reach the unit, and each is given back once."""

from __future__ import annotations

import asyncio

import pytest

from backstores.device import BlockDevice, MemoryDevice
from backstores.scsi.model import Command, FunctionResponse, Response, Status
from backstores.scsi.model import Function as ModelFunction
from backstores.scsi.sense import Condition, FixedSense, Key, key_of
from backstores.scsi.store import MemoryStore
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.tcmu.formats import Mailbox
from backstores.tcmu.handler import Handler, serve
from backstores.tcmu.ring import RingError
from tests.support.scsi import IQN, WWN
from tests.support.tcmu_kernel import SimulatedDevice, SimulatedKernel
from tests.support.tcmu_serving import (
    BLOCKS,
    INQUIRY,
    PATTERN,
    TEST_UNIT_READY,
    Served,
    StuckDevice,
    read_10,
    serving,
    with_served,
    write_10,
)


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


@pytest.mark.parametrize("immediate", [True, False], ids=["hot-path", "general-path"])
def test_more_than_a_command_takes_is_left(immediate: bool) -> None:
    async def work(served: Served) -> None:
        assert isinstance(served.device, MemoryDevice)
        served.device.immediate = immediate
        assert (await served.send(write_10(9, 1), PATTERN)).status == Status.GOOD
        assert served.device.content[9 * 512 : 10 * 512] == PATTERN[:512]
        assert not any(served.device.content[10 * 512 :])

    with_served(work)


@pytest.mark.parametrize(("blocks", "taken"), [(1, 1024), (0, 0)], ids=["one block", "no block"])
def test_the_unit_hears_how_much_a_host_has_announced(blocks: int, taken: int) -> None:
    """COMPARE AND WRITE takes an exact length, and refuses a longer one; 256 blocks look like none in its CDB."""

    async def work(served: Served) -> None:
        compare_and_write = bytes([0x89, *bytes(12), blocks, 0, 0])
        outcome = await served.send(compare_and_write, bytes(taken + 512))
        assert outcome.status == Status.CHECK_CONDITION
        assert (await served.send(compare_and_write, bytes(taken))).status == Status.GOOD

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


class BidirectionalNexus:
    """A device server whose only command sends data back and forth: it answers with what came, reversed."""

    fast_read: dict[int, BlockDevice] = {}  # noqa: RUF012 (a protocol's attribute, never filled)
    fast_write: dict[int, BlockDevice] = {}  # noqa: RUF012

    def data_out_bytes(self, lun: int, cdb: bytes) -> int:
        return 512

    async def execute(self, lun: int, command: Command) -> Response | None:
        return Response(data_in=bytes(command.data_out)[::-1])

    async def manage(self, function: ModelFunction, lun: int, tag: int) -> FunctionResponse:
        return FunctionResponse.NOT_SUPPORTED

    def close(self) -> None:
        pass


def test_a_bidirectional_command_sends_data_both_ways() -> None:
    kernel = SimulatedKernel()

    async def main() -> None:
        number = kernel.command(bytes([0x53, *bytes(9)]), PATTERN[:512], 512, bidirectional=True)
        assert number is not None
        handler = Handler(SimulatedDevice(kernel), BidirectionalNexus(), lambda error: None)
        await handler.close()
        assert kernel.outcomes[number].data_in == PATTERN[:512][::-1]

    asyncio.run(main())


def test_serving_finds_the_device_and_hears_the_attentions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells hosts of a power-on itself; the unit's own would reach one of them a second time."""
    kernel = SimulatedKernel()
    asked: list[tuple[int, str]] = []

    class Found:
        def open(self) -> SimulatedDevice:
            return SimulatedDevice(kernel)

    def find(hba: int, name: str) -> Found:
        asked.append((hba, name))
        return Found()

    monkeypatch.setattr("backstores.tcmu.uio.find", find)

    async def main() -> None:
        unit = LogicalUnit(MemoryDevice(BLOCKS), Identity(WWN), MemoryStore())
        nexus = TargetDevice(IQN).open_nexus("iqn.2026-11.example:lio,i,0x0", {0: Exposed(unit)})
        number = kernel.command(TEST_UNIT_READY)
        assert number is not None
        handler = await serve(7, "db", nexus, lambda error: None)
        while number not in kernel.outcomes:
            await asyncio.sleep(0)
        assert kernel.outcomes[number].status == Status.GOOD
        await handler.close()

    asyncio.run(main())
    assert asked == [(7, "db")]


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
