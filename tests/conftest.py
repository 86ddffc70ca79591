"""What all tests share: signals that they, and the programs they start, can rely on; what is told of them together."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Generator
from typing import Final

import pytest

from tests.support.tally import CRASH_STATES

COUNTED: Final = "crash states"


def pytest_configure() -> None:
    """Let SIGINT do its work: a job in the background is started with it ignored, and programs inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Note with each test how many states after a power cut it has opened (M6)."""
    CRASH_STATES.take()
    yield
    if count := CRASH_STATES.take():
        item.user_properties.append((COUNTED, count))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many states after a power cut were found to be old or new, file by file."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            counts[report.nodeid.partition("::")[0]] += value if name == COUNTED else 0
    if counts:
        terminalreporter.section(f"{counts.total():,} crash states")
        for path, count in counts.most_common():
            terminalreporter.write_line(f"{count:>9,} {path}")
