"""Memory that commands use again is not fetched from the kernel each time."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from appliance.allocator import keep_freed_memory

ROUNDS = 200
PAGES = 256  # of 1 MiB
COUNT_FAULTS = f"""
from resource import RUSAGE_SELF, getrusage
from appliance.allocator import keep_freed_memory
keep_freed_memory()
bytearray(1 << 20)
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    bytearray(1 << 20)
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_was_freed_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < PAGES, f"for {ROUNDS * PAGES} pages in all"


def test_a_c_library_without_such_a_thing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
