"""io_uring where it is to be had, threads where not, and a clear word when it was asked for by name."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable

import pytest

from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from tests.support.engines import BACKENDS


def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "backstores.engine.ring", raising=False)
    monkeypatch.setitem(sys.modules, "backstores.engine._ring", None)


def not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = pytest.importorskip("backstores.engine.ring", reason="the io_uring extension is not built")

    def refuse(entries: int, event_fd: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(ring, "Ring", refuse)


obstacles = pytest.mark.parametrize("obstacle", [not_built, not_allowed])


def backend_of(choice: BackendChoice) -> str:
    async def run() -> str:
        async with Engine(choice) as engine:
            return engine.backend

    return asyncio.run(run())


@obstacles
def test_threads_take_over(monkeypatch: pytest.MonkeyPatch, obstacle: Callable[[pytest.MonkeyPatch], None]) -> None:
    obstacle(monkeypatch)
    assert backend_of(BackendChoice.AUTO) == "threads"


@obstacles
def test_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, obstacle: Callable[[pytest.MonkeyPatch], None]) -> None:
    obstacle(monkeypatch)
    with pytest.raises(UsageError, match=r"io_uring can't be used here .*; threads always can"):
        backend_of(BackendChoice.IO_URING)


@pytest.mark.parametrize("choice", BACKENDS)
def test_the_engine_says_which(choice: BackendChoice) -> None:
    assert backend_of(choice) == choice.value


@pytest.mark.parametrize("choice", BACKENDS[1:])
def test_io_uring_comes_first(choice: BackendChoice) -> None:
    assert backend_of(BackendChoice.AUTO) == choice.value
