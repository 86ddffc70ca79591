"""Header and data digests: CRC32C as it stands on the wire (RFC 7143, 13.1 and 6.7.1)."""

from __future__ import annotations

import google_crc32c

from backstores.iscsi.pdu import DIGEST_BYTES
from backstores.wire import Buffer


def digest(segment: Buffer) -> bytes:
    """Give the four bytes that follow a segment; its padding counts."""
    crc: int = google_crc32c.value(bytes(segment))  # the library takes nothing but bytes
    return crc.to_bytes(DIGEST_BYTES, "little")
