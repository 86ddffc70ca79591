"""What makes a sector trustworthy."""

from __future__ import annotations

import pytest

from backstores.errors import UsageError
from backstores.metadata.findings import Problem
from backstores.metadata.label import LabelSector
from backstores.metadata.sector import COUNTER_LIMIT, Sector, SectorError, crc32c, following, seal, stamped, unseal
from backstores.wwn import to_bytes
from tests.support.metadata import ALU, resealed

ADDRESS = 4096


def sealed(**changes: object) -> bytes:
    values = {"address": ADDRESS, "alu": to_bytes(ALU), "generation": 7, "time_ns": 9} | changes
    return seal(LabelSector, **values)


def test_checksum_is_castagnoli() -> None:
    """M1: the check value of CRC32C in RFC 3720, appendix B.4, and of its usual test string."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def test_a_sealed_sector_opens() -> None:
    sector = unseal(LabelSector, sealed(), ADDRESS)
    assert (sector.version, sector.generation, sector.time_ns, sector.epoch) == (2, 7, 9, 0)


def test_every_flipped_bit_is_noticed() -> None:
    """M1: the checksum covers the whole sector, its own address and generation included."""
    for bit in range(512 * 8):
        raw = bytearray(sealed())
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SectorError) as caught:
            unseal(LabelSector, bytes(raw), ADDRESS)
        assert caught.value.problem is (Problem.ABSENT if bit < 64 else Problem.DAMAGED), bit


@pytest.mark.parametrize(
    ("raw", "address", "problem"),
    [
        (b"", ADDRESS, Problem.DAMAGED),
        (sealed()[:511], ADDRESS, Problem.DAMAGED),
        (bytes(512), ADDRESS, Problem.ABSENT),
        (sealed(), 8192, Problem.MISPLACED),
        (resealed(sealed(), LabelSector, version=3), ADDRESS, Problem.NEWER),
        (resealed(sealed(), LabelSector, version=0), ADDRESS, Problem.DAMAGED),
        (resealed(sealed(), LabelSector, version=1), ADDRESS, Problem.DAMAGED),
        (sealed(generation=COUNTER_LIMIT + 1), ADDRESS, Problem.DAMAGED),
        (sealed(time_ns=COUNTER_LIMIT + 1), ADDRESS, Problem.DAMAGED),
    ],
    ids=["nothing", "short", "zeros", "elsewhere", "version-3", "version-0", "version-1", "generation", "time"],
)
def test_what_is_refused_and_why(raw: bytes, address: int, problem: Problem) -> None:
    with pytest.raises(SectorError) as caught:
        unseal(LabelSector, raw, address)
    assert caught.value.problem is problem


def test_a_newer_version_is_refused_with_its_number() -> None:
    with pytest.raises(SectorError, match="version 300"):
        unseal(LabelSector, resealed(sealed(), LabelSector, version=300), ADDRESS)


def test_other_kinds_of_sectors_are_not_taken() -> None:
    class Other(Sector, size=512, order="little"):
        """A sector of a later release."""

        magic = type(LabelSector.magic)(byte=0, length=8, value=b"TGOTHER\0")

    with pytest.raises(SectorError):
        unseal(Other, sealed(), ADDRESS)


@pytest.mark.parametrize(("previous", "now", "stamp"), [(5, 9, 9), (5, 6, 6), (5, 5, 6), (5, 1, 6), (0, 0, 1)])
def test_time_stamps_never_run_backwards(previous: int, now: int, stamp: int) -> None:
    """M2."""
    assert stamped(previous, now) == stamp


def test_the_last_generation_has_no_successor() -> None:
    assert following(COUNTER_LIMIT - 1) == COUNTER_LIMIT
    with pytest.raises(UsageError, match=str(COUNTER_LIMIT)):
        following(COUNTER_LIMIT)
