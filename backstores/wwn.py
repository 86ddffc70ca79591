"""World wide names in IEEE NAA form (R6).

Volumes and objects carry NAA type 6 (16 bytes), ports and devices NAA type 5 (8 bytes). Both hold a
24-bit company id and a vendor-specific part. Tiergate has no registered company id, so it uses
``TG`` with the U/L bit set: locally administered, and thus never somebody else's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, NewType

from backstores.errors import UsageError

Wwn = NewType("Wwn", str)
"""Lower-case hexadecimal digits without a prefix: 32 for NAA 6, 16 for NAA 5."""

COMPANY_ID: Final = 0x025447

RandomBits = Callable[[int], int]


def new_object_wwn(random_bits: RandomBits = secrets.randbits) -> Wwn:
    """Make the NAA 6 name of a volume or an object: 36 + 64 vendor-specific bits, all random."""
    return Wwn(f"{0x6 << 124 | COMPANY_ID << 100 | random_bits(100):032x}")


def new_device_wwn(random_bits: RandomBits = secrets.randbits) -> Wwn:
    """Make the NAA 5 name of a port or a device: 36 vendor-specific bits, all random."""
    return Wwn(f"{0x5 << 60 | COMPANY_ID << 36 | random_bits(36):016x}")


def parse_wwn(text: str) -> Wwn:
    """Check a name as a person or a disk gives it; ``naa.`` in front is allowed.

    Raises:
        UsageError: it is no NAA 5 or NAA 6 name.
    """
    digits = text.lower().removeprefix("naa.")
    shape = (len(digits), digits[:1])
    if shape not in ((32, "6"), (16, "5")) or not set(digits) <= set("0123456789abcdef"):
        raise UsageError(f"wwn {text!r} is not 32 hexadecimal digits after a 6, or 16 after a 5")
    return Wwn(digits)


def short(wwn: Wwn) -> str:
    """Give the form for daily use: the last eight digits."""
    return wwn[-8:]


def to_bytes(wwn: Wwn) -> bytes:
    """Give the name as the bytes of a designation descriptor: 8 or 16 of them."""
    return bytes.fromhex(wwn)
