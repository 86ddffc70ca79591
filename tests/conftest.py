"""What all tests share: the signals that they, and the programs they start, can rely on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let SIGINT do its work: a job in the background is started with it ignored, and programs inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
