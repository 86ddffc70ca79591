"""Tests marked ``guest`` run in a guest kernel: outside each is one boot, inside it is an ordinary test.

    @pytest.mark.guest(modules=["target_core_user", "tcm_loop"])
    def test_a_disk_appears(guest: Guest, tmp_path: Path) -> None:
        ...

Outside, such a test is replaced by a ``GuestItem`` that boots a guest and has pytest run the same test there, by its
node id: parameters, fixtures and rewritten asserts work as everywhere. When it fails, the guest's console is the
report. ``modules`` are loaded before the test; ``deadline_s`` says when to give the guest up.

A test runs on User-Mode Linux; one with ``races=True`` runs on QEMU, whose two CPUs it is for, as well (its name then
ends in ``@qemu``). ``--guest-kernel=uml`` or ``--guest-kernel=qemu`` runs all of them on that one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.guest.inside import Guest
from tests.guest.kernel import KERNELS, PROJECT, Kernel, Outcome, run

INSIDE: Final = "TIERGATE_GUEST" in os.environ
USUAL: Final = "uml"
FOR_RACES: Final = "qemu"
DEADLINE_S: Final = 120.0
PYTEST: Final = (
    *(sys.executable, "-m", "pytest"),
    *("--quiet", "--color=no", "--tb=short", "--capture=no", "-p", "no:cacheprovider"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guest-kernel", choices=sorted(KERNELS), help="run all tests marked guest on this kernel")


class GuestFailed(Exception):
    """A test did not pass in its guest."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"exit status {outcome.status}")
        self.outcome = outcome


class GuestItem(pytest.Item):
    """Boots a guest for one test function."""

    function_id: str
    kernel: Kernel
    place: tuple[os.PathLike[str] | str, int | None, str]

    @classmethod
    def of(cls, function: pytest.Function, kernel: Kernel) -> GuestItem:
        """Take the place of a test function, under the same name, with the same markers."""
        assert function.parent is not None
        suffix = "" if kernel.name == USUAL else f"@{kernel.name}"
        item: GuestItem = cls.from_parent(function.parent, name=function.name + suffix)
        item.own_markers[:] = function.own_markers
        item.keywords.update(function.keywords)
        item.function_id, item.kernel = function.nodeid.split("::", 1)[1], kernel
        item.place = (*function.reportinfo()[:2], item.name)
        if missing := kernel.missing():
            item.add_marker(pytest.mark.skip(reason=f"not installed: {missing}"))
        return item

    def runtest(self) -> None:
        mark = self.get_closest_marker("guest")
        assert mark is not None
        outcome = run(
            self.kernel,
            (*PYTEST, f"{self.path.relative_to(PROJECT)}::{self.function_id}"),
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
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not INSIDE:
        items[:] = (found for item in items for found in _in_guests(item, config.getoption("guest_kernel")))


def _in_guests(item: pytest.Item, asked_for: str | None) -> Iterator[pytest.Item]:
    """Give what runs in place of a test."""
    mark = item.get_closest_marker("guest")
    if mark is None or not isinstance(item, pytest.Function):
        yield item
        return
    usual = (USUAL, FOR_RACES) if mark.kwargs.get("races") else (USUAL,)
    for name in (asked_for,) if asked_for else usual:
        yield GuestItem.of(item, KERNELS[name])


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """The machine inside of which a test runs."""
    with Guest(tmp_path) as machine:
        yield machine
