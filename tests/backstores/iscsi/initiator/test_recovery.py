"""Commands without an answer, silent targets, and goodbyes: all that time and a target's messages bring about."""

from __future__ import annotations

import pytest

from backstores.iscsi.initiator.cdbs import READ_16, transfer
from backstores.iscsi.initiator.connection import TRANSITIONS, Event, State
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.pdu import (
    NO_TAG,
    AsyncEvent,
    AsyncMessage,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Opcode,
    ScsiResponse,
    TaskManagementRequest,
    TaskManagementResponse,
)
from backstores.scsi.model import Function, FunctionResponse
from tests.support.iscsi_pair import PATIENCE, Pair, Puppet, ended, read_task, sent

ABORT_AT = PATIENCE.command_s
RESET_AT = ABORT_AT + PATIENCE.function_s
DROP_AT = RESET_AT + PATIENCE.function_s


def reading(lun: int = 0) -> Task:
    return read_task(transfer(READ_16, 0, 1), 512, lun)


def at(puppet: Puppet, now_s: float) -> list[TaskManagementRequest]:
    """Let time pass up to a moment, the target alive; give the functions that were asked for."""
    puppet.say(NopIn, counts=False, itt=NO_TAG, ttt=NO_TAG)
    puppet.core.tick(now_s)
    return functions(puppet)


def functions(puppet: Puppet) -> list[TaskManagementRequest]:
    """Give the task management functions among what was sent."""
    wanted = TaskManagementRequest.opcode.value
    return [TaskManagementRequest.parse(header.raw) for header, _ in puppet.heard() if header.opcode == wanted]


def under_way(*tasks: Task) -> Puppet:
    """Have tasks under way since time 0."""
    puppet = Puppet()
    puppet.login()
    for task in tasks:
        puppet.core.submit(task)
    sent(puppet.core)
    return puppet


@pytest.mark.parametrize("response", [FunctionResponse.COMPLETE, FunctionResponse.TASK_DOES_NOT_EXIST])
def test_a_command_without_an_answer_is_aborted(response: FunctionResponse) -> None:
    late, other = reading(), reading()
    puppet = under_way(late)
    assert at(puppet, ABORT_AT - 1) == []
    puppet.core.submit(other)
    sent(puppet.core)
    [asked] = at(puppet, ABORT_AT)
    assert (asked.function, asked.referenced_itt, asked.ref_cmd_sn) == (Function.ABORT_TASK, late.itt, late.cmd_sn)
    assert (asked.immediate, asked.cmd_sn) == (1, puppet.core.serials.cmd_sn)
    assert ended(puppet.core) == []
    puppet.say(TaskManagementResponse, itt=asked.itt, response=response)
    assert ended(puppet.core) == [late]
    assert late.lost
    assert puppet.core.state is State.READY


def test_an_answer_that_crosses_the_abort_counts() -> None:
    late = reading()
    puppet = under_way(late)
    [asked] = at(puppet, ABORT_AT)
    puppet.say(ScsiResponse, itt=late.itt, status=0)
    puppet.say(TaskManagementResponse, itt=asked.itt, response=FunctionResponse.TASK_DOES_NOT_EXIST)
    assert ended(puppet.core) == [late]
    assert late.status == 0


@pytest.mark.parametrize("answered", [True, False], ids=["an abort that is refused", "an abort without an answer"])
def test_the_unit_is_reset_when_an_abort_does_not_help(answered: bool) -> None:
    """All commands of that unit end with it, and none of another unit."""
    late, same, elsewhere = reading(), reading(), reading(lun=1 << 48)
    puppet = under_way(late)
    [abort] = at(puppet, ABORT_AT)
    for task in (same, elsewhere):
        puppet.core.submit(task)
    sent(puppet.core)
    if answered:
        puppet.say(TaskManagementResponse, itt=abort.itt, response=FunctionResponse.NOT_SUPPORTED)
    [reset] = functions(puppet) or at(puppet, RESET_AT)
    assert (reset.function, reset.lun, reset.referenced_itt) == (Function.LOGICAL_UNIT_RESET, late.lun, NO_TAG)
    puppet.say(TaskManagementResponse, itt=reset.itt, response=FunctionResponse.COMPLETE)
    assert ended(puppet.core) == [late, same]
    assert puppet.core.state is State.READY


@pytest.mark.parametrize("answered", [True, False], ids=["a reset that is refused", "a reset without an answer"])
def test_the_connection_is_given_up_when_a_reset_does_not_help(answered: bool) -> None:
    late, other = reading(), reading(lun=1 << 48)
    puppet = under_way(late)
    at(puppet, ABORT_AT)
    [reset] = at(puppet, RESET_AT)
    puppet.core.submit(other)
    if answered:
        puppet.say(TaskManagementResponse, itt=reset.itt, response=FunctionResponse.REJECTED)
    else:
        at(puppet, DROP_AT)
    assert puppet.core.state is State.CLOSED
    assert ended(puppet.core) == [late, other]


def test_one_command_of_a_unit_is_aborted_at_a_time() -> None:
    """The others may have waited for that one alone."""
    first, second, elsewhere = reading(), reading(), reading(lun=1 << 48)
    puppet = under_way(first, second, elsewhere)
    asked = at(puppet, ABORT_AT)
    assert [request.referenced_itt for request in asked] == [first.itt, elsewhere.itt]
    assert at(puppet, ABORT_AT + 1) == []
    for request in asked:
        puppet.say(TaskManagementResponse, itt=request.itt, response=FunctionResponse.COMPLETE)
    assert [request.referenced_itt for request in at(puppet, ABORT_AT + 2)] == [second.itt]


def test_a_target_that_takes_no_commands_is_given_up() -> None:
    """Its window stays closed, though it has nothing to do, and it answers pings: nothing else would ever end this."""
    puppet = Puppet(window=1)
    core = puppet.login()
    first, waiting = reading(), reading()
    core.submit(first)
    core.submit(waiting)
    assert at(puppet, ABORT_AT - 1) == []
    puppet.say(ScsiResponse, itt=first.itt, status=0)
    at(puppet, ABORT_AT - 0.5)
    assert core.state is State.READY
    at(puppet, ABORT_AT)
    assert "takes no command" in core.reason
    assert ended(core) == [first, waiting]
    assert waiting.lost


def test_our_own_target_aborts() -> None:
    pair = Pair(hold=True)
    pair.access.device.immediate = False
    core = pair.login()
    task = reading()
    core.submit(task)
    pair.pump()
    core.tick(ABORT_AT)
    pair.pump()
    [asked] = pair.channel.functions
    assert (asked.function, asked.referenced_itt) == (Function.ABORT_TASK, task.itt)
    pair.channel.core.managed(asked, FunctionResponse.COMPLETE)
    pair.channel.settle()
    pair.pump()
    assert ended(core) == [task]


def test_a_silent_target_is_pinged_and_then_given_up() -> None:
    """R12: a path is dead when it does not answer."""
    puppet = Puppet()
    core = puppet.login()
    core.tick(0)
    core.tick(PATIENCE.idle_s - 1)
    assert not core.outbox
    core.tick(PATIENCE.idle_s)
    [(header, _)] = puppet.heard()
    ping = NopOut.parse(header.raw)
    assert (ping.immediate, ping.ttt) == (1, NO_TAG)
    assert ping.itt != NO_TAG
    core.tick(PATIENCE.idle_s + PATIENCE.answer_s - 1)
    assert core.state is State.READY
    core.tick(PATIENCE.idle_s + PATIENCE.answer_s)
    assert core.state is State.CLOSED
    assert "NOP-Out" in core.reason


def test_who_has_slept_gives_a_target_its_time_all_the_same() -> None:
    """A process that was stopped for a while finds that nobody has spoken; that is not their fault."""
    puppet = Puppet()
    core = puppet.login()
    core.tick(0)
    woken_s = 10 * (PATIENCE.idle_s + PATIENCE.answer_s)
    core.tick(woken_s)
    core.tick(woken_s + PATIENCE.answer_s - 1)
    assert core.state is State.READY
    core.tick(woken_s + PATIENCE.answer_s)
    assert core.state is State.CLOSED


def test_a_target_that_answers_pings_lives_on() -> None:
    puppet = Puppet()
    core = puppet.login()
    for moment in range(100):
        core.tick(moment * PATIENCE.idle_s)
        for header, _ in puppet.heard():
            assert header.opcode == Opcode.NOP_OUT
            puppet.say(NopIn, itt=header.itt, ttt=NO_TAG)
    assert core.state is State.READY


def test_a_login_has_its_time() -> None:
    core = Pair().core
    core.tick(PATIENCE.login_s - 1)
    assert core.state is State.LOGGING_IN
    core.tick(PATIENCE.login_s)
    assert "login" in core.reason


@pytest.mark.parametrize("asked", [False, True], ids=["of our own", "because the target asks for it"])
def test_a_logout_ends_the_session(asked: bool) -> None:
    """RFC 7143, 11.9.1 and 11.14: what is under way ends without an answer, and may be run elsewhere."""
    task = reading()
    puppet = under_way(task)
    if asked:
        puppet.say(AsyncMessage, event=AsyncEvent.LOGOUT_REQUESTED, parameter3=3)
    else:
        puppet.core.leave()
    [(header, _)] = puppet.heard()
    assert LogoutRequest.parse(header.raw).reason == 0
    assert ended(puppet.core) == [task]
    assert puppet.core.state is State.LEAVING
    puppet.say(LogoutResponse, itt=header.itt)
    assert puppet.core.state is State.CLOSED


def test_a_logout_without_an_answer_has_its_time() -> None:
    puppet = Puppet()
    core = puppet.login()
    core.leave()
    core.tick(PATIENCE.function_s)
    assert core.state is State.CLOSED


def test_an_event_that_concerns_no_session_changes_nothing() -> None:
    """11.9.1: SCSI's own (0) and vendors' (255)."""
    puppet = Puppet()
    core = puppet.login()
    for event in (0, 255):
        puppet.say(AsyncMessage, event=event)
    assert core.state is State.READY


@pytest.mark.parametrize("state", [State.LEAVING, State.CLOSED])
def test_a_task_that_comes_too_late_is_lost(state: State) -> None:
    puppet = Puppet()
    core = puppet.login()
    core.leave()
    if state is State.CLOSED:
        core.end("over")
    task = reading()
    core.submit(task)
    assert ended(core) == [task]
    assert task.lost


def test_every_state_ends_and_the_last_one_is_final() -> None:
    for state, moves in TRANSITIONS.items():
        assert (Event.END in moves) == (state is not State.CLOSED)
