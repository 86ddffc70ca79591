"""CmdSN, StatSN and the command window, also across 2^32 (RFC 7143, 4.2.2)."""

from __future__ import annotations

import random

import pytest

from backstores.iscsi.limits import HELD_BYTES, IMMEDIATE_DEPTH, MAX_SEGMENT_BYTES, PDUS_A_TURN, QUEUE_DEPTH
from backstores.iscsi.pdu import (
    BHS_BYTES,
    NO_TAG,
    NopIn,
    NopOut,
    Reject,
    RejectReason,
    ScsiCommand,
    ScsiResponse,
    TextRequest,
    TextResponse,
)
from backstores.scsi.model import Attribute, Response
from tests.support.iscsi_client import Client, CoreChannel, connect, read10, write10
from tests.support.iscsi_twins import MemoryAccess

NEAR_THE_END = 0xFFFFFFF0


def logged_in(cmd_sn: int = 1, hold: bool = False) -> tuple[Client, CoreChannel]:
    client, channel = connect(MemoryAccess(), hold=hold)
    client.cmd_sn = cmd_sn
    channel.core.sender.stat_sn = cmd_sn
    client.login()
    return client, channel


@pytest.mark.parametrize("start", [1, NEAR_THE_END], ids=hex)
def test_numbers_wrap(start: int) -> None:
    """Sixty-four commands on both ways, with every StatSN checked by the client."""
    client, channel = logged_in(start)
    for number in range(64):
        if number % 3:
            assert client.command(read10(0, 1), read=512).status == 0
        elif number % 2:
            assert client.command(write10(0, 1), write=bytes(512), immediate_bytes=0).status == 0
        else:
            assert client.command(bytes(6)).status == 0
    assert channel.core.sender.exp_cmd_sn == client.cmd_sn == start + 64 & 0xFFFFFFFF


@pytest.mark.parametrize("start", [1, NEAR_THE_END], ids=hex)
def test_commands_that_come_too_early_wait_for_their_turn(start: int) -> None:
    client, channel = logged_in(start)
    order = list(range(20))
    random.Random(3).shuffle(order)
    order.sort(key=lambda step: step == 0)  # the first one last
    for step in order:
        client.send(ScsiCommand, cmd_sn=start + step & 0xFFFFFFFF, itt=step + 1, read=1, cdb=read10(0, 0))
        assert client.silent() or step == 0
    client.cmd_sn = start + 20 & 0xFFFFFFFF
    assert [client.expect(ScsiResponse).itt for _ in range(20)] == list(range(1, 21))
    assert client.command(read10(0, 1), read=512).status == 0
    assert channel.core._full is not None
    assert channel.core._full.in_order


@pytest.mark.parametrize("start", [5, NEAR_THE_END + 14], ids=hex)
@pytest.mark.parametrize("away", [-1, -2, QUEUE_DEPTH, QUEUE_DEPTH + 1, 0x7FFFFFFF, -0x7FFFFFFF])
def test_commands_outside_the_window_are_ignored(start: int, away: int) -> None:
    client, _ = logged_in(start)
    client.send(ScsiCommand, cmd_sn=start + away & 0xFFFFFFFF, read=1, expected_bytes=512, cdb=read10(0, 1))
    client.send(ScsiCommand, cmd_sn=start + away & 0xFFFFFFFF)
    assert client.silent()
    assert client.command(read10(0, 1), read=512).status == 0


def test_the_same_early_command_twice_is_one() -> None:
    client, _ = logged_in()
    for _ in range(3):
        client.send(ScsiCommand, cmd_sn=2, itt=9, cdb=bytes(6))
    client.send(ScsiCommand, cmd_sn=1, itt=8, cdb=bytes(6))
    assert [client.expect(ScsiResponse).itt for _ in range(2)] == [8, 9]
    assert client.silent()


def test_early_commands_do_not_pile_up() -> None:
    """S3: what waits for a gap that nothing fills is bounded."""
    client, channel = logged_in()
    size = 65536
    for number in range(HELD_BYTES // size):
        assert not channel.closed
        client.send(ScsiCommand, bytes(size), write=1, expected_bytes=size, cmd_sn=2 + number, cdb=write10(0, 128))
    assert "missing CmdSN" in channel.closed


def test_the_window_closes_with_the_queue_and_opens_again() -> None:
    client, channel = logged_in(hold=True)
    for _ in range(QUEUE_DEPTH + 10):
        client.send(ScsiCommand, cdb=bytes(6))
    assert len(channel.running) == QUEUE_DEPTH
    channel.finish(channel.running[0], Response())
    answer = client.expect(ScsiResponse)
    assert answer.max_cmd_sn == answer.exp_cmd_sn  # room for one
    client.cmd_sn = answer.exp_cmd_sn
    client.send(ScsiCommand, cdb=bytes(6))
    assert len(channel.running) == QUEUE_DEPTH + 1


def test_max_cmd_sn_never_goes_back() -> None:
    client, channel = logged_in(hold=True)
    seen = []
    for number in range(300):
        client.send(ScsiCommand, cdb=bytes(6)) if number % 3 else client.send(NopOut, itt=number + 1000, ttt=NO_TAG)
        if number % 3 == 1:
            channel.finish(channel.running.pop(0), Response())
        while not client.silent():
            pdu = client.receive().pdu
            seen.append(type(pdu).FIELDS["max_cmd_sn"].read(pdu.raw))
    assert seen == sorted(seen)  # type: ignore[type-var]
    assert len(seen) > 150


def test_immediate_commands_jump_the_queue_and_are_few() -> None:
    client, channel = logged_in(hold=True)
    for _ in range(IMMEDIATE_DEPTH + 1):
        client.send(ScsiCommand, immediate=1, cdb=bytes(6))
    assert len(channel.running) == IMMEDIATE_DEPTH
    assert client.expect(Reject).reason == RejectReason.TOO_MANY_IMMEDIATE_COMMANDS
    assert channel.core.sender.exp_cmd_sn == client.cmd_sn
    channel.finish(channel.running[0], Response())
    client.send(ScsiCommand, immediate=1, cdb=bytes(6))
    assert len(channel.running) == IMMEDIATE_DEPTH + 1


def test_answers_to_held_commands_wait_for_room() -> None:
    """S3: what came early is answered bit by bit; all of it at once would not fit the send buffer."""
    client, channel = logged_in()
    first = client.build(NopOut, bytes(MAX_SEGMENT_BYTES), ttt=NO_TAG)
    held = [client.build(NopOut, bytes(17_000), ttt=NO_TAG) for _ in range(61)]
    keys = b"".join(b"%c=\0" % letter for letter in range(ord("a"), ord("z")))
    held += [client.build(TextRequest, keys, ttt=NO_TAG) for _ in range(60)]
    channel.send(b"".join(held))
    assert client.silent()
    ping = client.build(NopOut, bytes(MAX_SEGMENT_BYTES - 100), ttt=NO_TAG, immediate=1)
    channel.send(ping + first)
    answers = [type(client.receive().pdu) for _ in range(2 + 61 + 60)]
    assert answers == [NopIn] * 63 + [TextResponse] * 60
    assert channel.core.sender.exp_cmd_sn == client.cmd_sn
    assert client.silent()


def test_an_initiator_that_acknowledges_nothing_takes_no_memory() -> None:
    """S3: ExpStatSN stands still, and we keep nothing for it."""
    client, channel = logged_in()
    for _ in range(1000):
        client.send(ScsiCommand, exp_stat_sn=1, cdb=bytes(6))
        client.receive()
    assert channel.core._full is not None
    tasks = channel.core._full.tasks
    assert tasks is not None
    assert len(tasks) == 0
    assert not tasks.outbox


# Task attributes: who may overtake whom on the way to the SCSI layer (SAM-5, 8.6)


def begin_write(client: Client, attribute: Attribute) -> int:
    """Send a WRITE whose data comes by R2T."""
    return client.send(ScsiCommand, write=1, attribute=attribute, expected_bytes=512, cdb=write10(0, 1))


def give_data(client: Client) -> None:
    while not client.silent():
        pdu = client.receive().pdu
        client.send_data(pdu, bytes(512))  # type: ignore[arg-type]


@pytest.mark.parametrize("attribute", [Attribute.ORDERED, Attribute.HEAD_OF_QUEUE])
def test_nothing_overtakes_an_ordered_task(attribute: Attribute) -> None:
    """Neither on the general path nor on the hot one."""
    client, channel = logged_in(hold=True)
    tags = [begin_write(client, attribute)]
    for cdb in (bytes(6), read10(0, 1)):
        length = 512 if cdb[0] else 0
        tags.append(client.send(ScsiCommand, read=1, attribute=1, expected_bytes=length, cdb=cdb))
    assert channel.running == []
    give_data(client)
    assert [task.itt for task in channel.running] == tags


def test_an_ordered_task_overtakes_nothing() -> None:
    client, channel = logged_in(hold=True)
    tags = [begin_write(client, Attribute.SIMPLE), client.send(ScsiCommand, attribute=2, cdb=bytes(6))]
    assert channel.running == []
    give_data(client)
    assert [task.itt for task in channel.running] == tags


def test_simple_tasks_overtake_each_other() -> None:
    client, channel = logged_in(hold=True)
    first = begin_write(client, Attribute.SIMPLE)
    assert client.receive().pdu.raw
    second = client.send(ScsiCommand, attribute=1, cdb=bytes(6))
    assert [task.itt for task in channel.running] == [second] != [first]


def test_an_aborted_ordered_task_holds_nothing_up() -> None:
    client, channel = logged_in(hold=True)
    begin_write(client, Attribute.ORDERED)
    tag = client.send(ScsiCommand, attribute=1, cdb=bytes(6))
    assert channel.core._full is not None
    assert channel.core._full.tasks is not None
    channel.core._full.tasks.drop_unstarted(lambda task: task.orders)
    channel.settle()
    assert [task.itt for task in channel.running] == [tag]
    assert channel.core._full.in_order


def test_a_ping_is_answered_with_its_data() -> None:
    client, _ = logged_in()
    client.send(NopOut, b"hello", ttt=NO_TAG, lun=1 << 48)
    answer = client.receive()
    assert isinstance(answer.pdu, NopIn)
    assert (answer.data, answer.pdu.lun, answer.pdu.ttt) == (b"hello", 1 << 48, NO_TAG)


def test_a_turn_has_its_end() -> None:
    """C3: the portal gets to look at the clock, however much came at once."""
    client, channel = logged_in()
    raw = bytearray(b"".join(client.build(NopOut, ttt=NO_TAG) for _ in range(1000)))
    handled = channel.core.feed(raw, memoryview(raw), 0, len(raw))
    assert handled == PDUS_A_TURN * BHS_BYTES
