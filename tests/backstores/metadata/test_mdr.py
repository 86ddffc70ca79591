"""The MDR directory: whose ALU this is, and who may write it (R2, M5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.errors import UsageError
from backstores.metadata.copies import Copy
from backstores.metadata.findings import Problem
from backstores.metadata.layout import MDR_ADDRESSES
from backstores.metadata.mdr import (
    Directory,
    DirectorySector,
    FencedError,
    build,
    check_susid,
    choose,
    parse,
    renewed,
)
from backstores.metadata.sector import COUNTER_LIMIT, SectorError
from backstores.objects import MIB
from tests.support.metadata import ALU, DIRECTORY, LABEL, OTHER_ALU, SIZE, resealed

A, B = MDR_ADDRESSES
KIB = 1024


def copies(*directories: Directory) -> list[Copy]:
    return [Copy(at, build(one, at)) for at, one in zip(MDR_ADDRESSES, directories, strict=True)]


@pytest.mark.parametrize("susid", ["x", "s" * 64])
def test_what_is_built_is_parsed(susid: str) -> None:
    """R2: the SUSID ties an ALU to the appliance."""
    made = replace(DIRECTORY, susid=susid, generation=3, time_ns=4, epoch=5)
    assert parse(build(made, B), B) == made


@pytest.mark.parametrize("susid", ["", "s" * 65, "a\n", "ä", "a\0b"], ids=["empty", "long", "newline", "umlaut", "nul"])
def test_a_susid_that_could_not_be_read_back_is_refused(susid: str) -> None:
    with pytest.raises(UsageError, match="susid"):
        check_susid(susid)


@pytest.mark.parametrize("epoch", [-1, COUNTER_LIMIT + 1])
def test_an_epoch_that_could_not_be_read_back_is_refused(epoch: int) -> None:
    with pytest.raises(UsageError, match="epoch"):
        build(replace(DIRECTORY, epoch=epoch), A)


@pytest.mark.parametrize(
    "forged",
    [{"susid": 0xFF}, {"gs_start": 8}, {"gs_bytes": 0}],
    ids=["susid", "gs-elsewhere", "gs-empty"],
)
def test_what_makes_no_sense_is_refused(forged: dict[str, int]) -> None:
    with pytest.raises(SectorError) as caught:
        parse(resealed(build(DIRECTORY, A), DirectorySector, **forged), A)
    assert caught.value.problem is Problem.DAMAGED


def test_a_flag_of_a_later_release_is_respected() -> None:
    with pytest.raises(SectorError, match="0x4") as caught:
        parse(resealed(build(DIRECTORY, A), DirectorySector, flags=4), A)
    assert caught.value.problem is Problem.NEWER


@pytest.mark.parametrize(
    "changes",
    [
        {"regions": (0, 3 * MIB)},
        {"regions": (64 * KIB, 3 * MIB)},
        {"regions": (MIB, 2 * MIB)},
        {"regions": (MIB + 512, 3 * MIB)},
        {"regions": (MIB, 4 * MIB)},
        {"regions": (MIB, 8 * MIB)},
        {"regions": (MIB, 1 << 60)},
        {"region_bytes": 0},
        {"region_bytes": 12 * KIB},
        {"region_bytes": 1 << 60},
    ],
    ids=str,
)
def test_object_regions_that_would_overwrite_something_do_not_count(changes: dict[str, object]) -> None:
    """S3: no address from the disk sends a write onto something else."""
    wrong = replace(DIRECTORY, **changes)
    choice = choose(copies(wrong, wrong), ALU, LABEL.areas, SIZE)
    assert choice.winner is None
    assert [finding.problem for finding in choice.findings] == [Problem.DAMAGED] * 2


def test_a_copy_under_the_name_of_another_alu_does_not_count() -> None:
    """A claim writes it first: until the label follows, the ALU is what it was."""
    old, new = replace(DIRECTORY, generation=4), replace(DIRECTORY, alu=OTHER_ALU, generation=5)
    choice = choose(copies(new, old), ALU, LABEL.areas, SIZE)
    assert choice.winner == old
    assert [finding.problem for finding in choice.findings] == [Problem.UNFINISHED]
    assert choice.order == (A, B)


@pytest.mark.parametrize("epoch", [0, 4])
def test_a_writer_of_an_older_epoch_is_refused(epoch: int) -> None:
    """M5: and is told which one it is now."""
    fenced = replace(DIRECTORY, epoch=5)
    fenced.admit(5)
    fenced.admit(6)
    with pytest.raises(FencedError, match=f"epoch 5, this is epoch {epoch}") as caught:
        fenced.admit(epoch)
    assert caught.value.epoch == 5


def test_renewal_supersedes() -> None:
    """M2."""
    assert renewed(DIRECTORY, None, 77).generation == 1
    made = renewed(DIRECTORY, replace(DIRECTORY, generation=9, time_ns=9), 3)
    assert (made.generation, made.time_ns) == (10, 10)
