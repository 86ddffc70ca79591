"""Has the C library keep the memory that commands use over and over (mallopt(3)).

A write of 1 MiB needs as much memory for a moment. Left alone, glibc gives that back to the kernel each time and
fetches it anew: 256 page faults a command, a fifth of its time. What is kept instead is bounded, and little next to
what the appliance may have in use (``CONNECTION_BYTES``).
"""

from __future__ import annotations

import ctypes
from typing import Final

KEPT_BYTES: Final = 32 << 20  # free memory at the heap's end that is not given back
OWN_MAPPING_BYTES: Final = 8 << 20  # larger blocks are mapped by themselves, and given back at once
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> None:
    """Do so from now on. Other C libraries than glibc have no such thing, and go on as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
