"""How commands and handlers end before their time: aborts, resets, a clean stop, and the loss of a device."""

from __future__ import annotations

import asyncio

import pytest

from backstores.scsi.model import Status
from backstores.tcmu.formats import Function, Mailbox
from backstores.tcmu.ring import RingError
from backstores.tcmu.uio import DeviceGone
from tests.support.tcmu_serving import (
    PATTERN,
    TEST_UNIT_READY,
    Served,
    StuckDevice,
    read_10,
    turns,
    with_served,
    write_10,
)


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
    """Even a plain READ, which would have been quick, is BUSY: carried out is what came before."""

    async def work(served: Served) -> None:
        late = served.queue(read_10(0, 1), data_in_bytes=512)
        await served.handler.close()
        assert served.kernel.outcomes[late].status == Status.BUSY
        assert served.kernel.drained

    with_served(work)


def test_a_removed_device_is_a_loss_that_is_told_once() -> None:
    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        served.queue(write_10(0, 1), PATTERN[:512])
        served.shared.wake()
        await served.device.entered.wait()
        gone = DeviceGone("the kernel has removed the device: Input/output error")
        served.shared.failure = gone
        served.shared.wake()
        await turns()
        assert served.handler.lost is gone
        served.shared.wake()  # as a removed device does for ever
        served.device.go.set()
        await turns()
        assert served.losses == [gone]
        assert served.shared.acknowledged == 2

    with_served(work, StuckDevice)


def test_a_device_that_goes_while_a_command_runs_is_a_loss() -> None:
    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        served.queue(write_10(0, 1), PATTERN[:512])
        served.shared.wake()
        await served.device.entered.wait()
        served.shared.failure = DeviceGone("gone")
        served.device.go.set()
        await turns()
        assert len(served.losses) == 1

    with_served(work, StuckDevice)


def test_a_close_waits_for_what_runs_though_the_ring_is_broken() -> None:
    """Its data lies in the memory that would be unmapped."""

    async def work(served: Served) -> None:
        assert isinstance(served.device, StuckDevice)
        served.queue(write_10(0, 1), PATTERN[:512])
        served.shared.wake()
        await served.device.entered.wait()
        served.kernel.poke(Mailbox.head, 12)
        served.shared.wake()
        await turns()
        assert served.losses
        closing = asyncio.create_task(served.handler.close())
        await turns()
        assert not closing.done()
        served.device.go.set()
        await closing
        assert served.device.content[:512] == PATTERN[:512]

    with_served(work, StuckDevice)


def test_a_broken_ring_is_a_loss() -> None:
    async def work(served: Served) -> None:
        served.kernel.poke(Mailbox.head, 12)
        served.shared.wake()
        await turns()
        assert isinstance(served.losses[0], RingError)
        served.kernel.poke(Mailbox.head, 0)

    with_served(work)
