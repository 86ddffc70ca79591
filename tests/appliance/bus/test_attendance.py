"""Who is there, decided without a clock or a socket."""

from __future__ import annotations

from appliance.bus.attendance import Attendance, Verdict
from appliance.bus.frames import Head, Kind, head
from appliance.bus.liveness import BEAT_S, SILENCE_S, Liveness
from appliance.bus.ports import Gone, Joined

VERSION = 7


def beat(incarnation: int, version: int = VERSION) -> Head:
    return Head.parse(head(Kind.BEAT, version, incarnation))


def test_the_first_frame_of_someone_is_news_and_the_second_is_not() -> None:
    attendance = Attendance(VERSION)
    assert attendance.arrived("sp1", beat(1), 0) == (Verdict.WELCOME, [Joined("sp1", 1)])
    assert attendance.arrived("sp1", beat(1), 1) == (Verdict.WELCOME, [])
    assert "sp1" in attendance


def test_the_later_incarnation_has_the_name_while_it_lives() -> None:
    """R9: a process that was stopped and wakes up is told off."""
    attendance = Attendance(VERSION)
    attendance.arrived("sp1", beat(1), 0)
    assert attendance.arrived("sp1", beat(2), 0) == (Verdict.WELCOME, [Gone("sp1", 1), Joined("sp1", 2)])
    assert attendance.arrived("sp1", beat(1), 0) == (Verdict.SUPERSEDED, [])


def test_what_an_earlier_incarnation_says_is_no_sign_of_life_of_the_later_one() -> None:
    attendance = Attendance(VERSION)
    attendance.arrived("sp1", beat(2), 0)
    now_s = 0.0
    gone: list[Gone] = []
    while not gone:
        now_s += BEAT_S
        attendance.arrived("sp1", beat(1), now_s)
        gone = attendance.tick(now_s)
    assert gone == [Gone("sp1", 2)]
    assert now_s <= SILENCE_S + BEAT_S


def test_a_clock_that_was_set_back_locks_nobody_out_for_long() -> None:
    """An incarnation is a time stamp: a lower one is let in when the higher one has fallen silent."""
    attendance = Attendance(VERSION)
    attendance.arrived("sp1", beat(2), 0)
    attendance.tick(SILENCE_S)
    attendance.tick(SILENCE_S + BEAT_S)
    assert attendance.arrived("sp1", beat(1), 3) == (Verdict.WELCOME, [Joined("sp1", 1)])


def test_another_version_is_nobody() -> None:
    attendance = Attendance(VERSION)
    assert attendance.arrived("sp1", beat(1, VERSION + 1), 0) == (Verdict.WRONG_VERSION, [])
    assert "sp1" not in attendance


def test_silence_is_told_once() -> None:
    liveness: Liveness[str] = Liveness(silence_s=1, beat_s=1)
    liveness.heard("a", 0)
    assert liveness.tick(1) == []
    assert liveness.tick(2) == ["a"]
    assert liveness.tick(3) == []


def test_who_has_slept_does_not_think_that_all_others_are_dead() -> None:
    """Their beats lie in its sockets, unread."""
    liveness: Liveness[str] = Liveness(silence_s=2, beat_s=0.5)
    liveness.heard("a", 0)
    liveness.heard("dead", -1)
    assert liveness.tick(0) == []
    assert liveness.tick(60) == []
    liveness.heard("a", 60.1)
    assert liveness.tick(60.5) == ["dead"]
    assert liveness.tick(61) == []
