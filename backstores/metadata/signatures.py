"""A look for data of others, so that a claim does not destroy it unasked (R2).

The table holds what is likely to be met, not all there is: an ALU that is not zero where one looks
counts as holding data even if no row matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstores.metadata.layout import KIB
from backstores.objects import MIB

FRONT_BYTES: Final = 1 * MIB
TAIL_BYTES: Final = 64 * KIB


@dataclass(frozen=True, slots=True)
class Signature:
    """Bytes that tell what an ALU holds. A negative offset counts from the ALU's end."""

    offset: int
    magic: bytes
    name: str


SIGNATURES: Final = (
    Signature(512, b"EFI PART", "GPT partition table"),
    Signature(4096, b"EFI PART", "GPT partition table"),  # on disks with 4096-byte sectors
    Signature(-512, b"EFI PART", "GPT partition table (backup)"),
    Signature(510, b"\x55\xaa", "MBR partition table or boot sector"),
    Signature(1080, b"\x53\xef", "ext2, ext3 or ext4"),
    Signature(0, b"XFSB", "XFS"),
    Signature(64 * KIB + 64, b"_BHRfS_M", "btrfs"),
    Signature(3, b"NTFS    ", "NTFS"),
    Signature(82, b"FAT32   ", "FAT"),
    Signature(54, b"FAT1", "FAT"),
    Signature(3, b"EXFAT   ", "exFAT"),
    Signature(1024, b"\x10\x20\xf5\xf2", "F2FS"),
    Signature(32 * KIB + 1, b"CD001", "ISO 9660"),
    Signature(32 * KIB, b"JFS1", "JFS"),
    Signature(64 * KIB + 52, b"ReIsEr", "ReiserFS"),
    Signature(0, b"hsqs", "SquashFS"),
    Signature(128 * KIB, b"\x0c\xb1\xba\x00", "ZFS"),
    Signature(512, b"LABELONE", "LVM2"),
    Signature(0, b"\xfc\x4e\x2b\xa9", "md RAID 1.1"),
    Signature(4096, b"\xfc\x4e\x2b\xa9", "md RAID 1.2"),
    Signature(-8 * KIB, b"\xfc\x4e\x2b\xa9", "md RAID 1.0"),
    Signature(0, b"LUKS\xba\xbe", "LUKS"),
    Signature(4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), "bcache"),
    Signature(4096 - 10, b"SWAPSPACE2", "swap"),
    Signature(0, b"QFI\xfb", "qcow2 image"),
)


def names(front: bytes, tail: bytes) -> tuple[str, ...]:
    """Say what is recognized in the first and the last bytes of an ALU, each name once."""
    found = [s.name for s in SIGNATURES if _at(front, tail, s.offset, len(s.magic)) == s.magic]
    return tuple(dict.fromkeys(found))


def is_blank(front: bytes, tail: bytes) -> bool:
    """Say whether nothing at all is there."""
    return not front.strip(b"\0") and not tail.strip(b"\0")


def _at(front: bytes, tail: bytes, offset: int, length: int) -> bytes:
    if offset >= 0:
        return front[offset : offset + length]
    start = len(tail) + offset
    return tail[start : start + length]
