"""Serial number arithmetic (RFC 1982) for CmdSN, StatSN and their like, which wrap at 2^32."""

from __future__ import annotations

from typing import Final

MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000


def after(number: int, steps: int = 1) -> int:
    """Give the serial number ``steps`` behind another; steps may be negative."""
    return number + steps & MASK


def distance(first: int, second: int) -> int:
    """Count the steps from ``first`` to ``second``; negative when ``second`` comes before."""
    steps = second - first & MASK
    return steps if steps < _HALF else steps - (MASK + 1)
