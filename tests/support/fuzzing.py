"""What all fuzzers share: how many inputs there are, where chance begins, and that memory does not grow.

``TIERGATE_FUZZ`` multiplies the number of inputs, which is 100,000 for all fuzzers together.
``TIERGATE_FUZZ_SEED`` moves the seeds; a failure names the seed of the input that caused it.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TIMES: Final = int(os.environ.get("TIERGATE_FUZZ", "1"))
FIRST_SEED: Final = int(os.environ.get("TIERGATE_FUZZ_SEED", "1"))
PDUS: Final = 60_000 * TIMES
CDBS: Final = 20_000 * TIMES
IMAGES: Final = 20_000 * TIMES

SEEDS_APART: Final = 1_000_000_000
MOST_GROWTH_BYTES: Final = 16 << 20  # a few kilobytes an input would be far more


def first_seed(part: int) -> int:
    """Give where the seeds of a fuzzer's part begin; other parts' are far away."""
    return (FIRST_SEED * 10 + part) * SEEDS_APART


@contextmanager
def named(seed: int) -> Iterator[None]:
    """Name the seed in whatever goes wrong inside."""
    try:
        yield
    except Exception as error:
        error.add_note(f"seed {seed}; to see it again: TIERGATE_FUZZ_SEED={FIRST_SEED} TIERGATE_FUZZ={TIMES}")
        raise


class Growth:
    """Holds the resident memory at the end against that after a tenth of the inputs."""

    def __init__(self, inputs: int) -> None:
        self._warm = inputs // 10
        self._before = 0

    def after(self, done: int) -> None:
        """Hear how many inputs there have been."""
        if not self._before and done >= self._warm:
            self._before = _resident_bytes()

    def check(self) -> None:
        """Refuse growth (S3)."""
        assert self._before, "the fuzzer ended before it was warm"
        grown = _resident_bytes() - self._before
        assert grown < MOST_GROWTH_BYTES, f"{grown} bytes more than after a tenth of the inputs (seed {FIRST_SEED})"


def _resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is no growth
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
