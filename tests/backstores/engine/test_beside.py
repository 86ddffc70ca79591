"""A second thread writes beside the event loop, and its buffer and outcome are nobody else's."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from backstores.engine import beside
from backstores.engine.beside import NoHand, second_hand
from tests.support.engines import noise, view

SecondHand = pytest.importorskip("backstores.engine._beside", reason="the extension was not built").SecondHand
SIZE = 1 << 20


@pytest.fixture
def hand() -> Iterator[SecondHand]:
    made = SecondHand()
    yield made
    made.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def cut(data: bytes, chance: random.Random) -> list[memoryview]:
    """Give data in parts."""
    edges = sorted([0, len(data), *(chance.randrange(len(data)) for _ in range(chance.randrange(8)))])
    return [memoryview(data)[start:end] for start, end in pairwise(edges)]


def test_what_was_begun_is_written_when_it_has_ended(hand: SecondHand, fd: int) -> None:
    """D1: whoever did it, the thread or the one who asked."""
    chance = random.Random(1)
    model = bytearray(SIZE)
    for _ in range(2000):
        offset = chance.randrange(SIZE)
        data = chance.randbytes(chance.randrange(1, SIZE - offset + 1))
        assert hand.begin(fd, cut(data, chance), offset, 0)
        if chance.randrange(2):
            os.pread(fd, chance.randrange(SIZE), 0)  # something to do meanwhile, so that the thread comes first
        assert hand.end() == len(data)
        model[offset : offset + len(data)] = data
        assert os.pread(fd, len(data), offset) == data
    assert os.pread(fd, SIZE, 0) == model[: os.fstat(fd).st_size]


def test_one_write_at_a_time(hand: SecondHand, fd: int) -> None:
    """Who finds it busy does the write without it."""
    assert hand.begin(fd, [view(noise(512))], 0, 0)
    assert not hand.begin(fd, [view(noise(512, 2))], 0, 0)
    assert hand.end() == 512
    assert os.pread(fd, 512, 0) == noise(512)
    assert hand.begin(fd, [view(noise(512, 2))], 0, 0)
    assert hand.end() == 512


def test_more_parts_than_it_takes_are_left_to_the_one_who_asks(hand: SecondHand, fd: int) -> None:
    assert not hand.begin(fd, [view(bytes(8))] * 65, 0, 0)
    assert hand.begin(fd, [view(bytes(8))] * 64, 0, 0)
    assert hand.end() == 512


def test_a_part_that_is_no_buffer_holds_none_of_the_others(hand: SecondHand, fd: int) -> None:
    data = bytearray(noise(512))
    with pytest.raises(TypeError):
        hand.begin(fd, [memoryview(data), None], 0, 0)
    data.clear()
    assert hand.begin(fd, [view(noise(512))], 0, 0)
    assert hand.end() == 512


def test_the_buffer_is_held_while_it_is_in_use(hand: SecondHand, fd: int) -> None:
    """Memory that the thread reads is neither freed nor moved."""
    data = bytearray(noise(4096))
    assert hand.begin(fd, [memoryview(data)], 0, 0)
    with pytest.raises(BufferError):
        data.clear()
    assert hand.end() == 4096
    data.clear()


@pytest.mark.parametrize("meanwhile", [False, True], ids=["at once", "after other work"])
def test_an_error_is_answered_as_the_kernel_does(hand: SecondHand, tmp_path: Path, meanwhile: bool) -> None:
    (tmp_path / "file").touch()
    reading = os.open(tmp_path / "file", os.O_RDONLY)
    assert hand.begin(reading, [view(noise(SIZE))], 0, 0)  # large enough that the thread is woken
    if meanwhile:
        noise(SIZE)
    assert hand.end() == -errno.EBADF
    os.close(reading)


def thread_state(comm: str = "second-hand") -> tuple[str, str]:
    """Say of the one thread of this name whether it sleeps (S), and how often it has gone to sleep."""
    found = [task for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text().strip() == comm]
    lines = (max(found, key=lambda task: int(task.name)) / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return fields["State"].split()[0], fields["voluntary_ctxt_switches"].strip()


def test_a_small_write_that_comes_alone_wakes_nobody(hand: SecondHand, fd: int) -> None:
    """Waking the thread would cost more than the write."""
    before = thread_state()
    while before[0] != "S" or before != thread_state():
        before = thread_state()
    assert hand.begin(fd, [view(noise(512))], 0, 0)
    assert thread_state() == before
    assert hand.end() == 512
    assert os.pread(fd, 512, 0) == noise(512)


def test_an_end_without_a_beginning_is_a_bug(hand: SecondHand) -> None:
    with pytest.raises(RuntimeError, match="nothing was begun"):
        hand.end()


def test_closing_carries_out_what_was_begun(fd: int) -> None:
    hand = SecondHand()
    assert hand.begin(fd, [view(noise(512))], 0, 0)
    hand.close()
    assert os.pread(fd, 512, 0) == noise(512)
    assert not hand.begin(fd, [view(noise(512))], 0, 0)
    hand.close()


@pytest.fixture
def fresh() -> Iterator[None]:
    """Ask for the process's hand anew, and forget the answer."""
    second_hand.cache_clear()
    yield
    second_hand.cache_clear()


def test_one_processor_has_one_hand(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert isinstance(second_hand(), NoHand)


def test_a_system_without_another_thread_goes_on_with_one(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EAGAIN, "no more threads")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("backstores.engine._beside.SecondHand", refuse)
    assert isinstance(beside.second_hand(), NoHand)


def test_no_hand_takes_nothing(fd: int) -> None:
    assert not NoHand().begin(fd, [view(noise(512))], 0, 0)
    with pytest.raises(RuntimeError):
        NoHand().end()
