"""What a process is called in lists of processes, and that it ends with its parent (prctl(2))."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_NAME: Final = 15
ARG_START: Final = 47  # /proc/[pid]/stat, counted from 0: where argv lies in memory
ARG_END: Final = 48
STAT_NAME_END: Final = b") "  # what stands before it may hold anything

_libc: Final = ctypes.CDLL(None, use_errno=True)


def set_title(text: str) -> None:
    """Be called ``text``: in ``ps`` and ``top``, and, cut to 15 bytes, in the kernel's messages."""
    raw = text.encode()
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(raw), 0, 0, 0)
    rest = Path("/proc/self/stat").read_bytes().rpartition(STAT_NAME_END)[2].split()
    start, end = int(rest[ARG_START - 2]), int(rest[ARG_END - 2])  # two fields stand before
    if end - start > 1:  # in place of argv, which nobody reads any more
        ctypes.memmove(start, raw[: end - start - 1].ljust(end - start, b"\0"), end - start)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that comes about.

    What a killed SP leaves behind, the next start takes up, as after any crash (D2, M6); a process without its
    supervisor would keep locks and ports from that start.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before we could say so
        os.kill(os.getpid(), signal.SIGKILL)
