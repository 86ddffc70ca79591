"""Tests marked ``guest`` run in a guest kernel: outside each is one boot, inside it is an ordinary test.

    @pytest.mark.guest(modules=["target_core_user", "tcm_loop"])
    def test_a_disk_appears(guest: Guest, tmp_path: Path) -> None:
        ...

Outside, such a test is replaced by a ``GuestItem`` that boots a guest and has pytest run the same test there, by its
node id: parameters, fixtures and rewritten asserts work as everywhere. When it fails, the guest's console is the
report. ``modules`` are loaded before the test; ``deadline_s`` says when to give the guest up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.guest.inside import Guest
from tests.guest.kernel import PROJECT, Kernel, Outcome, UserModeLinux, run

INSIDE: Final = "TIERGATE_GUEST" in os.environ
KERNEL: Final[Kernel] = UserModeLinux()
DEADLINE_S: Final = 120.0
PYTEST: Final = (
    *(sys.executable, "-m", "pytest"),
    *("--quiet", "--color=no", "--tb=short", "--capture=no", "-p", "no:cacheprovider"),
)


class GuestFailed(Exception):
    """A test did not pass in its guest."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"exit status {outcome.status}")
        self.outcome = outcome


class GuestItem(pytest.Item):
    """Boots a guest for one test function."""

    @classmethod
    def of(cls, function: pytest.Function) -> GuestItem:
        """Take the place of a test function, under the same name, with the same markers."""
        assert function.parent is not None
        item: GuestItem = cls.from_parent(function.parent, name=function.name)
        item.own_markers[:] = function.own_markers
        item.keywords.update(function.keywords)
        item.place = function.reportinfo()
        return item

    place: tuple[os.PathLike[str] | str, int | None, str]

    def runtest(self) -> None:
        mark = self.get_closest_marker("guest")
        assert mark is not None
        outcome = run(
            KERNEL,
            (*PYTEST, f"{self.path.relative_to(PROJECT)}::{self.nodeid.split('::', 1)[1]}"),
            mark.kwargs.get("modules", ()),
            mark.kwargs.get("deadline_s", DEADLINE_S),
        )
        if outcome.status != 0:
            raise GuestFailed(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        failure = excinfo.value
        if isinstance(failure, GuestFailed):
            verdict = "no verdict" if failure.outcome.status is None else failure
            return f"{failure.outcome.console}\n{self.nodeid} failed in its guest ({verdict}); above is its console"
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.place


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by -m and -k
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INSIDE:
        return
    missing = KERNEL.missing()
    for number, item in enumerate(items):
        if isinstance(item, pytest.Function) and item.get_closest_marker("guest"):
            items[number] = GuestItem.of(item)
            if missing:
                items[number].add_marker(pytest.mark.skip(reason=f"not installed: {missing}"))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """The machine inside of which a test runs."""
    with Guest(tmp_path) as machine:
        yield machine
