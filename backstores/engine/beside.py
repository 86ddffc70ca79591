"""Who writes one leg of a mirror while the event loop writes the other.

A large write into the page cache is the processor's work, tens of microseconds of it; with a second processor two legs
take as long as one. Threads of Python can't do that: handing over costs them as much as the write.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache

from backstores.alu.base import Hand

log = logging.getLogger(__name__)


class NoHand(Hand):
    """Takes nothing on: the extension was not built, or there is one processor."""

    def begin(self, fd: int, parts: Sequence[memoryview], offset: int, flags: int) -> bool:
        return False

    def end(self) -> int:
        raise RuntimeError("nothing was begun")


@cache
def second_hand() -> Hand:
    """Give the one of this process, for the thread of the event loop alone. It sleeps when there is nothing to do."""
    if len(os.sched_getaffinity(0)) < 2:
        return NoHand()
    try:
        from backstores.engine._beside import SecondHand  # not at the top: the extension is optional

        return SecondHand()
    except (ImportError, OSError) as error:
        log.info("legs are written one after the other: no second thread here (%s)", error)
        return NoHand()
