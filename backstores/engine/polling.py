"""A selector that looks again for a moment before it sleeps.

A host with one command under way sends the next one some ten microseconds after our answer. Going to
sleep and being woken costs more than that, above all on a virtual machine, whose idle processor is given
back to the hypervisor. So after events the selector polls on for ``SPIN_S``; when nothing comes it sleeps
as any other, and polls no more until something has come: an idle appliance costs nothing. On a machine with one
processor it never polls: whoever would send something could not run meanwhile.
"""

from __future__ import annotations

import os
from selectors import EpollSelector, SelectorKey
from time import perf_counter
from typing import Final

SPIN_S: Final = 50e-6
ALONE: Final = len(os.sched_getaffinity(0)) == 1


class PollingSelector(EpollSelector):
    """For an asyncio event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._polls = False

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait for events, at first without sleeping."""
        if self._polls and (timeout is None or timeout > 0):
            until = perf_counter() + SPIN_S
            while perf_counter() < until:
                events = super().select(0)
                if events:
                    return events
        events = super().select(timeout)
        self._polls = bool(events) and not ALONE
        return events
