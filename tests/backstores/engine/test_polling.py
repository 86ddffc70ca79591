"""The selector that polls before it sleeps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from selectors import EVENT_READ

import pytest

from backstores.engine import polling
from backstores.engine.polling import PollingSelector


@pytest.fixture(autouse=True)
def several_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr(polling, "ALONE", False)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def selector(pair: tuple[socket.socket, socket.socket]) -> Iterator[PollingSelector]:
    with PollingSelector() as made:
        made.register(pair[0], EVENT_READ)
        yield made


def polls(selector: PollingSelector, monkeypatch: pytest.MonkeyPatch, timeout: float | None) -> list[float | None]:
    """Select once, and tell with which time-outs the kernel was asked."""
    asked: list[float | None] = []
    select = polling.EpollSelector.select

    def recorded(self: PollingSelector, timeout: float | None = None) -> object:
        asked.append(timeout)
        return select(self, timeout)

    monkeypatch.setattr(polling.EpollSelector, "select", recorded)
    selector.select(timeout)
    monkeypatch.undo()
    return asked


@pytest.fixture
def woken(selector: PollingSelector, pair: tuple[socket.socket, socket.socket]) -> PollingSelector:
    """One that has just given an event."""
    pair[1].send(b"x")
    assert selector.select(1)
    pair[0].recv(1)
    return selector


def test_an_idle_selector_sleeps_at_once(selector: PollingSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    assert polls(selector, monkeypatch, 0.01) == [0.01]


def test_after_an_event_it_polls_once_and_then_sleeps(woken: PollingSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    first = polls(woken, monkeypatch, 0.01)
    assert len(first) > 1
    assert set(first[:-1]) == {0}
    assert first[-1] == 0.01
    assert polls(woken, monkeypatch, 0.01) == [0.01], "nothing came: no more polling"


def test_what_comes_while_it_polls_is_given(
    woken: PollingSelector, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(b"y")
    assert polls(woken, monkeypatch, None) == [0], "it is there at the first look"


def test_a_loop_that_has_work_never_waits(
    selector: PollingSelector, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].send(b"x")
    assert selector.select(0)
    pair[0].recv(1)
    assert polls(selector, monkeypatch, 0) == [0]


def test_with_one_processor_it_sleeps_at_once(
    selector: PollingSelector, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever would send something waits for the processor that polling keeps busy."""
    monkeypatch.setattr(polling, "ALONE", True)
    pair[1].send(b"x")
    assert selector.select(1)
    pair[0].recv(1)
    assert polls(selector, monkeypatch, 0.01) == [0.01]
