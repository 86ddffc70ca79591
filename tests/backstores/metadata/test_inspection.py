"""What an ALU is to this appliance, by what lies on it (R2)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backstores.metadata import mdr
from backstores.metadata.findings import Problem
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.label import LabelSector, build, renewed
from backstores.metadata.layout import FRONT_LABELS, MDR_ADDRESSES, label_addresses
from backstores.metadata.signatures import FRONT_BYTES, SIGNATURES, TAIL_BYTES, Signature, names
from backstores.metadata.store import AluMetadata
from tests.support.metadata import ALU, DIRECTORY, LABEL, SIZE, SUSID, clock, partition, resealed
from tests.support.recording import SECTOR, RecordingStorage, put, read


def inspected(storage: RecordingStorage) -> Inspection:
    return asyncio.run(AluMetadata(storage, storage.size_bytes, clock()).inspect(SUSID))


def holding(*contents: tuple[int, bytes], size: int = SIZE) -> RecordingStorage:
    """Make an ALU with bytes at some offsets; a negative one counts from the end."""
    storage = RecordingStorage(size)
    for offset, raw in contents:
        at = offset % size
        first = at // SECTOR * SECTOR
        old = bytearray(read(storage.image, first, 2 * SECTOR))
        old[at - first : at - first + len(raw)] = raw
        put(storage.image, first, bytes(old))
    return storage


def test_a_blank_alu() -> None:
    inspection = inspected(RecordingStorage(SIZE))
    assert (inspection.ownership, inspection.detail, inspection.label) == (Ownership.BLANK, "", None)


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda s: f"{s.name} at {s.offset}".replace(" ", "-"))
def test_data_of_others_is_recognized(signature: Signature) -> None:
    """R2: a claim without force must be able to name what it would destroy."""
    inspection = inspected(holding((signature.offset, signature.magic)))
    assert inspection.ownership is Ownership.DATA
    assert signature.name in inspection.signatures
    assert signature.name in inspection.detail


@pytest.mark.parametrize("offset", [0, 4095, FRONT_BYTES - 1, -1, -TAIL_BYTES], ids=str)
def test_unknown_data_is_not_blank(offset: int) -> None:
    inspection = inspected(holding((offset, b"\x77")))
    assert inspection.ownership is Ownership.DATA
    assert "unknown" in inspection.detail


def test_every_signature_lies_where_one_looks() -> None:
    assert all(-TAIL_BYTES <= s.offset <= FRONT_BYTES - len(s.magic) for s in SIGNATURES)
    assert all(s.offset >= 0 or s.offset + len(s.magic) <= 0 for s in SIGNATURES)
    assert names(bytes(FRONT_BYTES), bytes(TAIL_BYTES)) == ()
    assert names(b"", b"") == ()


def label_at(number: int) -> tuple[int, bytes]:
    address = label_addresses(SIZE)[number]
    return address, build(renewed(LABEL, None, 5), address)


def directory_at(number: int, susid: str = SUSID) -> tuple[int, bytes]:
    address = MDR_ADDRESSES[number]
    return address, mdr.build(replace(DIRECTORY, susid=susid, generation=1), address)


def test_a_newer_version_is_refused_with_its_number() -> None:
    address, raw = label_at(1)
    inspection = inspected(holding(label_at(0), (address, resealed(raw, LabelSector, version=9))))
    assert inspection.ownership is Ownership.NEWER
    assert "version 9" in inspection.detail


def test_a_label_without_mdr_directory_is_damaged() -> None:
    """R2: without a SUSID nobody can say whose it is."""
    inspection = inspected(holding(label_at(0), label_at(1)))
    assert inspection.ownership is Ownership.DAMAGED
    assert "MDR directory" in inspection.detail


def test_a_label_without_region_is_damaged() -> None:
    inspection = inspected(holding(label_at(0), directory_at(1)))
    assert inspection.ownership is Ownership.DAMAGED
    assert "object region" in inspection.detail


def test_a_foreign_label_without_region_is_foreign_all_the_same() -> None:
    inspection = inspected(holding(label_at(0), directory_at(0, "another"), directory_at(1, "another")))
    assert inspection.ownership is Ownership.FOREIGN
    assert "another" in inspection.detail
    assert inspection.susid == "another"


def claimed(size: int = SIZE) -> RecordingStorage:
    storage = RecordingStorage(size)
    metadata = AluMetadata(storage, size, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    asyncio.run(metadata.commit((partition(1, 8),)))
    return storage


@pytest.mark.parametrize("kept", range(4), ids="ABCD")
def test_any_one_label_is_enough(kept: int) -> None:
    """R1: two in front, two at the end; what is gone is told."""
    storage = claimed()
    gone = [address for number, address in enumerate(label_addresses(SIZE)) if number != kept]
    for address in gone:
        put(storage.image, address, bytes(SECTOR))
    inspection = inspected(storage)
    assert inspection.ownership is Ownership.OWNED
    assert inspection.label is not None
    assert [finding.where for finding in inspection.findings] == [f"label at byte {address}" for address in gone]


def test_the_front_overwritten_is_no_loss_of_the_label() -> None:
    """R1: a partitioning tool that takes the first MiB leaves the copies at the end."""
    storage = claimed()
    put(storage.image, 0, b"\x55" * (1 << 20))
    inspection = inspected(storage)
    assert inspection.ownership is Ownership.DAMAGED
    assert inspection.label is not None
    assert inspection.label.alu == ALU


def test_an_alu_that_has_grown_still_has_four_labels() -> None:
    """They lie where its end was when it was claimed."""
    storage = claimed()
    storage.size_bytes += 1 << 20
    inspection = inspected(storage)
    assert inspection.ownership is Ownership.OWNED
    assert inspection.findings == ()


def test_a_claim_cut_short_before_its_label_leaves_a_blank_alu_blank() -> None:
    """R2: it can be claimed again without force."""
    assert inspected(holding(directory_at(0))).ownership is Ownership.BLANK
    assert inspected(holding(directory_at(0), (MDR_ADDRESSES[0] + 512, b"x"))).ownership is Ownership.BLANK
    assert inspected(holding(directory_at(0), (MDR_ADDRESSES[0] - 512, b"x"))).ownership is Ownership.DATA


@pytest.mark.parametrize("at", [9, 20, 100, 511], ids=["version", "address", "susid", "last"])
def test_broken_labels_are_damaged_not_blank(at: int) -> None:
    address, raw = label_at(0)
    broken = raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]
    assert inspected(holding((address, broken))).ownership is Ownership.DAMAGED


@pytest.mark.parametrize("offset", [0, FRONT_LABELS[0], 1 << 20, SIZE - 512], ids=str)
def test_an_alu_that_cannot_be_read_is_not_blank(offset: int) -> None:
    storage = RecordingStorage(SIZE)
    storage.unreadable.add(offset // SECTOR)
    inspection = inspected(storage)
    assert inspection.ownership is Ownership.DAMAGED
    assert Problem.UNREADABLE in {finding.problem for finding in inspection.findings}
    assert "input/output error" in inspection.detail
