"""Which processes run, decided without one."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from appliance.processes.roster import (
    FIRST_WAIT_S,
    LONG_ENOUGH_S,
    MOST_WAIT_S,
    STOP_S,
    TRANSITIONS,
    Effect,
    Event,
    Finish,
    Fork,
    Post,
    Roster,
    Sign,
    Signal,
    State,
)

POSTS = [Post("vcm", 1), Post("mic", 0, vital=True), Post("sp1", 2), Post("sp2", 2)]
NAMES = [post.name for post in POSTS]


def at_work(now_s: float = 0.0) -> Roster:
    """A system in which all is ready."""
    roster = Roster(POSTS)
    assert roster.tick(now_s) == [Fork(name) for name in NAMES]
    for number, name in enumerate(NAMES):
        roster.forked(name, number + 1, now_s)
        roster.ready(name)
    return roster


def test_what_ends_is_forked_again_after_waits_that_grow() -> None:
    """R9: and no process that fails at once keeps the machine busy."""
    roster, now_s, waits = at_work(), 1.0, []
    for incarnation in range(10, 20):
        assert roster.exited("sp1", -9, now_s) == []
        due_s = roster.next_s()
        assert due_s is not None
        assert roster.tick(due_s - 0.01) == []
        assert roster.tick(due_s) == [Fork("sp1")]
        waits.append(due_s - now_s)
        roster.forked("sp1", incarnation, due_s)
        now_s = due_s
    assert waits[0] == pytest.approx(FIRST_WAIT_S)
    assert waits[1] == pytest.approx(2 * FIRST_WAIT_S)
    assert waits[-1] == pytest.approx(MOST_WAIT_S)


def test_what_has_lived_long_starts_with_a_short_wait() -> None:
    roster = at_work()
    roster.exited("sp1", 1, 1)
    roster.forked("sp1", 9, 2)
    roster.exited("sp1", 1, 2 + LONG_ENOUGH_S)
    assert roster.next_s() == pytest.approx(2 + LONG_ENOUGH_S + FIRST_WAIT_S)


def test_stages_end_one_after_the_other() -> None:
    roster = at_work()
    assert roster.end(1) == [Signal("sp1", Sign.END), Signal("sp2", Sign.END)]
    assert roster.exited("sp2", 0, 2) == []
    assert roster.exited("sp1", 0, 2) == [Signal("vcm", Sign.END)]
    assert roster.exited("vcm", 0, 3) == [Signal("mic", Sign.END)]
    assert roster.exited("mic", 0, 4) == [Finish(0)]


def test_what_does_not_end_is_killed() -> None:
    roster = at_work()
    roster.end(1)
    roster.exited("sp2", 0, 2)
    assert roster.next_s() == 1 + STOP_S
    assert roster.tick(1 + STOP_S) == [Signal("sp1", Sign.KILL)]
    assert roster.tick(2 + STOP_S) == []


def test_what_dies_while_others_end_is_not_forked_again() -> None:
    roster = at_work()
    roster.end(1)
    roster.exited("mic", -9, 2)
    assert roster.tick(100) == [Signal("sp1", Sign.KILL), Signal("sp2", Sign.KILL)]
    assert roster.state("mic") is State.OVER


def test_a_second_request_kills_all() -> None:
    roster = at_work()
    roster.end(1)
    assert roster.end(2) == [Signal(name, Sign.KILL) for name in NAMES]


def test_without_a_vital_process_there_is_no_start() -> None:
    roster = Roster(POSTS)
    for name in NAMES:
        roster.forked(name, 1, 0)
    assert roster.exited("mic", 1, 1) == [Signal("sp1", Sign.END), Signal("sp2", Sign.END)]
    for name in ("sp1", "sp2"):
        roster.exited(name, 0, 2)
    assert roster.exited("vcm", 0, 3) == [Finish(1)]


def test_an_end_that_was_asked_for_is_no_failed_start() -> None:
    roster = Roster(POSTS)
    for name in NAMES:
        roster.forked(name, 1, 0)
    roster.end(1)
    roster.end(1)
    for name in NAMES:
        effects = roster.exited(name, -9, 2)
    assert effects == [Finish(0)]


def test_a_vital_process_that_was_ready_once_is_like_all_others() -> None:
    """C1: data goes on while the MIC is down."""
    roster = at_work()
    assert roster.exited("mic", -9, 1) == []
    assert roster.next_s() == pytest.approx(1 + FIRST_WAIT_S)


def test_a_fault_kills_and_the_end_of_it_forks_when_the_old_process_is_gone() -> None:
    """R19: two of one name would fight for its ALUs."""
    roster = at_work()
    assert roster.hold("sp1") == [Signal("sp1", Sign.KILL)]
    assert roster.release("sp1", 1) == []
    assert roster.tick(2) == []
    roster.exited("sp1", -9, 3)
    assert roster.tick(3) == [Fork("sp1")]


def test_what_is_held_stays_so() -> None:
    roster = at_work()
    roster.hold("sp1")
    roster.exited("sp1", -9, 1)
    assert roster.tick(1000) == []
    assert roster.next_s() is None
    assert roster.hold("sp1") == []


def test_what_is_frozen_is_thawed_before_it_is_told_to_end() -> None:
    roster = at_work()
    assert roster.freeze("sp1") == [Signal("sp1", Sign.FREEZE)]
    assert roster.end(1) == [Signal("sp1", Sign.THAW), Signal("sp1", Sign.END), Signal("sp2", Sign.END)]


def test_what_was_not_failed_can_be_released() -> None:
    assert at_work().release("sp1", 1) == []


def test_every_state_is_reached_and_left_by_the_table_alone() -> None:
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert reached == set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_all_ends(seed: int) -> None:
    """No order of deaths, faults and requests is a pair that the table lacks, or leaves a process behind."""
    dice, roster, now_s = random.Random(seed), Roster(POSTS), 0.0
    alive: set[str] = set()
    incarnation, finished = 0, False

    def carry_out(effects: Iterable[Effect]) -> None:
        nonlocal incarnation, finished
        for effect in effects:
            match effect:
                case Fork(name):
                    assert name not in alive
                    incarnation += 1
                    alive.add(name)
                    roster.forked(name, incarnation, now_s)
                case Signal(name, _):
                    assert name in alive
                case Finish():
                    assert not alive
                    finished = True

    def die(name: str) -> None:
        alive.discard(name)
        carry_out(roster.exited(name, dice.choice([0, 1, -9]), now_s))

    for _ in range(60):
        now_s += dice.choice([0.0, 0.1, 5.0, 40.0])
        carry_out(roster.tick(now_s))
        name = dice.choice(NAMES)
        match dice.randrange(7):
            case 0 if alive:
                die(dice.choice(sorted(alive)))
            case 1 if name in alive:
                carry_out(roster.ready(name))
            case 2:
                carry_out(roster.hold(name))
            case 3:
                carry_out(roster.freeze(name))
            case 4:
                carry_out(roster.release(name, now_s))
            case 5 if dice.random() < 0.1:
                carry_out(roster.end(now_s))
        if finished:
            return
    carry_out(roster.end(now_s))
    while alive:
        die(dice.choice(sorted(alive)))
    assert finished


@pytest.mark.parametrize("incarnation", [0, 3], ids=["whichever", "still this one"])
def test_one_that_nobody_hears_is_killed_and_forked_again(incarnation: int) -> None:
    """D4: it may sleep, and serve when it wakes."""
    roster = at_work()
    assert roster.cull("sp1", incarnation) == [Signal("sp1", Sign.KILL)]
    roster.exited("sp1", -9, 1)
    assert roster.state("sp1") == State.DUE


def test_one_that_is_dead_already_is_told_of_and_its_successor_left_alone() -> None:
    """R9: nothing of the one that was meant runs any more."""
    roster = at_work()
    assert roster.cull("sp1", 2) is None
    roster.exited("sp1", -9, 1)
    assert roster.cull("sp1", 3) is None
