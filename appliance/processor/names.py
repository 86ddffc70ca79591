"""What the parts of a system call each other on the internal fabrics: iSCSI names, and WWNs that derive from others."""

from __future__ import annotations

import hashlib
from typing import Final

from backstores.wwn import COMPANY_ID, Wwn

VENDOR_BITS: Final = 100
MASTER_MARK: Final = ".mvsp."


def internal_target(iqn: str, sp: str) -> str:
    """Name the target at which a storage processor shows its first tier to others."""
    return f"{iqn}.{sp}.t1"


def tier_initiator(iqn: str, sp: str) -> str:
    """Name a storage processor as it comes for first-tier objects of others (RRN)."""
    return f"{iqn}.{sp}.t2"


def master_initiator(iqn: str, sp: str, secret: str) -> str:
    """Name the MVSP as it comes for ALUs of others: each mastership has its secret, and is another initiator (M5)."""
    return f"{iqn}.{sp}{MASTER_MARK}{hashlib.sha256(secret.encode()).hexdigest()[:16]}"


def pass_through(path: str) -> Wwn:
    """Name an ALU as it passes through: by its path, since one that is nobody's has no name yet."""
    return _derived("pass-through", path)


def _derived(kind: str, of: str) -> Wwn:
    digest = hashlib.sha256(f"{kind} {of}".encode()).digest()
    vendor = int.from_bytes(digest, "big") & ((1 << VENDOR_BITS) - 1)
    return Wwn(f"{0x6 << 124 | COMPANY_ID << VENDOR_BITS | vendor:032x}")
