"""Logical unit numbers: the 8-byte field of a command, as a number, and what it addresses (SAM-5 clause 4.7).

Two single-level methods are understood: peripheral device addressing (0 to 255) and flat space addressing
(0 to 16,383). Tiergate itself writes the first as far as it reaches, as hosts expect.
"""

from __future__ import annotations

from typing import Final

from backstores.errors import UsageError
from backstores.wire import Bits, Wire

LIMIT: Final = 1 << 14
PERIPHERAL_LIMIT: Final = 1 << 8
PERIPHERAL: Final = 0
FLAT: Final = 1


class LunField(Wire, size=8):
    """A single-level LUN. Peripheral addressing keeps the bus in the upper 6 bits of ``number``: always 0 here."""

    method = Bits(byte=0, msb=7, width=2)
    number = Bits(byte=0, msb=5, width=14)
    deeper_levels = Bits(byte=2, width=48)


def encode(lun: int) -> int:
    """Give the field that Tiergate itself writes for a LUN.

    Raises:
        UsageError: there is no such LUN.
    """
    if not 0 <= lun < LIMIT:
        raise UsageError(f"lun {lun} is not between 0 and {LIMIT - 1}")
    method = PERIPHERAL if lun < PERIPHERAL_LIMIT else FLAT
    return int.from_bytes(LunField.build(method=method, number=lun))


def decode(field: int) -> int | None:
    """Give the LUN that a field addresses; None where it can't be one of ours."""
    parsed = LunField.parse(field.to_bytes(LunField.SIZE))
    limit = {PERIPHERAL: PERIPHERAL_LIMIT, FLAT: LIMIT}.get(parsed.method, 0)
    return parsed.number if parsed.number < limit and not parsed.deeper_levels else None
