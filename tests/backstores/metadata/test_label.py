"""The label: what it says, where it may lie, and what is refused (R1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.errors import CorruptError, UsageError
from backstores.metadata.copies import Copy
from backstores.metadata.findings import Problem
from backstores.metadata.label import LabelSector, build, check_size, choose, commit, new_label, parse, renewed
from backstores.metadata.layout import FRONT_LABELS, LARGE_ALU_BYTES, label_addresses
from backstores.metadata.sector import SectorError
from backstores.metadata.steps import Write
from backstores.objects import MIB, Extent
from tests.support.metadata import ALU, LABEL, SIZE, name, resealed

A, B = FRONT_LABELS


@pytest.mark.parametrize("size", [16 * MIB, 17 * MIB + 5, LARGE_ALU_BYTES, 1 << 40, (1 << 63) - 1], ids=str)
def test_what_is_built_is_parsed(size: int) -> None:
    made = replace(new_label(ALU, size), generation=3, time_ns=4, epoch=5)
    assert parse(build(made, B), B) == made
    assert made.version == 2


def test_the_tail_is_left_free() -> None:
    """Room for copies of the label directory at the end, whatever the ALU's size."""
    assert new_label(ALU, 20 * MIB).data == Extent(8 * MIB, 11 * MIB)
    assert new_label(ALU, 20 * MIB + 4096).data == Extent(8 * MIB, 11 * MIB)


def test_a_large_alu_has_more_room_for_objects() -> None:
    assert new_label(ALU, LARGE_ALU_BYTES - 4096).data.start_bytes == 8 * MIB
    assert new_label(ALU, LARGE_ALU_BYTES).data.start_bytes == 24 * MIB


def test_an_alu_has_a_name_of_naa_type_5() -> None:
    """R6: devices have names of 8 bytes."""
    with pytest.raises(UsageError, match="NAA type 5"):
        new_label(name(1), SIZE)


def test_a_copy_of_a_newer_version_forbids_all_use() -> None:
    newer = resealed(build(LABEL, B), LabelSector, version=9)
    choice = choose([Copy(A, build(replace(LABEL, generation=3), A)), Copy(B, newer)])
    assert choice.winner is None
    assert choice.newest is not None
    assert [finding.problem for finding in choice.findings] == [Problem.NEWER]
    assert "version 9" in str(choice.findings[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"data": Extent(8 * MIB, 0)},
        {"data": Extent(8 * MIB + 512, MIB)},
        {"data": Extent(8 * MIB, SIZE)},
        {"data": Extent(0, MIB)},
        {"data": Extent(5 * MIB, MIB)},
        {"data": Extent(14 * MIB, 2 * MIB)},
        {"tables": (0, 6 * MIB, LABEL.tables[2], LABEL.tables[3])},
        {"tables": (64 * 1024, 6 * MIB, LABEL.tables[2], LABEL.tables[3])},
        {"tables": (5 * MIB, 5 * MIB, LABEL.tables[2], LABEL.tables[3])},
        {"tables": (5 * MIB, 6 * MIB, LABEL.tables[2], 1 << 60)},
        {"tables": (5 * MIB, 6 * MIB + 512, LABEL.tables[2], LABEL.tables[3])},
        {"table_bytes": 0},
        {"table_bytes": 1 << 60},
        {"size_bytes": 1 << 63},
        {"size_bytes": SIZE - MIB},
    ],
    ids=str,
)
def test_a_forged_layout_is_refused(changes: dict[str, object]) -> None:
    """S3: no address from the disk sends a write onto something else."""
    with pytest.raises(SectorError):
        parse(build(replace(LABEL, **changes), A), A)


def test_commit_begins_in_front_with_the_older_copy() -> None:
    """M3, R1: four copies, two in front and two at the end."""
    c, d = label_addresses(SIZE)[2:]
    writes = [step.offset for step in commit(LABEL, (c, d, B, A)) if isinstance(step, Write)]
    assert writes == [B, A, c, d]


def test_renewal_supersedes() -> None:
    """M2."""
    assert renewed(LABEL, None, 77).generation == 1
    made = renewed(LABEL, replace(LABEL, generation=9, time_ns=9), 3)
    assert (made.generation, made.time_ns) == (10, 10)


def test_a_shrunk_alu_is_noticed() -> None:
    check_size(LABEL, SIZE)
    with pytest.raises(CorruptError, match=str(SIZE - 1)):
        check_size(LABEL, SIZE - 1)
