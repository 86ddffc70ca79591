"""The label: what it holds, and which of its copies counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.errors import UsageError
from backstores.metadata.findings import Problem
from backstores.metadata.label import Copy, Label, build, check_size, choose, commit, new_label, parse, renewed
from backstores.metadata.layout import LABEL_ADDRESSES
from backstores.metadata.sector import SectorError
from backstores.metadata.steps import Flush, Write
from backstores.objects import MIB, Extent
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, name, resealed

A, B = LABEL_ADDRESSES


def label(generation: int = 1, susid: str = SUSID, **changes: object) -> Label:
    return replace(new_label(susid, ALU, SIZE), generation=generation, time_ns=generation, **changes)


def copies(*labels: Label | bytes | str) -> list[Copy]:
    made = []
    for address, one in zip(LABEL_ADDRESSES, labels, strict=True):
        if isinstance(one, str):
            made.append(Copy(address, b"", one))
        else:
            made.append(Copy(address, one if isinstance(one, bytes) else build(one, address)))
    return made


@pytest.mark.parametrize("size", [16 * MIB, 17 * MIB + 5, 1 << 40, (1 << 63) - 1], ids=str)
@pytest.mark.parametrize("susid", ["x", "s" * 64])
def test_what_is_built_is_parsed(size: int, susid: str) -> None:
    """R2: the SUSID ties an ALU to the appliance."""
    made = replace(new_label(susid, ALU, size), generation=3, time_ns=4, epoch=5)
    assert parse(build(made, B), B) == made


def test_the_tail_is_left_free() -> None:
    """Room for label copies at the end, whatever the ALU's size."""
    assert new_label(SUSID, ALU, 20 * MIB).data == Extent(8 * MIB, 11 * MIB)
    assert new_label(SUSID, ALU, 20 * MIB + 4096).data == Extent(8 * MIB, 11 * MIB)


@pytest.mark.parametrize("susid", ["", "s" * 65, "a\n", "ä", "a\0b"], ids=["empty", "long", "newline", "umlaut", "nul"])
def test_a_susid_that_could_not_be_read_back_is_refused(susid: str) -> None:
    with pytest.raises(UsageError, match="susid"):
        new_label(susid, ALU, SIZE)


def test_an_alu_has_a_name_of_naa_type_5() -> None:
    """R6: devices have names of 8 bytes."""
    with pytest.raises(UsageError, match="NAA type 5"):
        new_label(SUSID, name(1), SIZE)


@pytest.mark.parametrize(
    ("labels", "winner", "problems", "order"),
    [
        ((label(2), label(2)), 2, set(), (A, B)),
        ((label(2), label(3)), 3, {Problem.UNFINISHED}, (A, B)),
        ((label(3), label(2)), 3, {Problem.UNFINISHED}, (B, A)),
        ((label(3), b"\1" * 512), 3, {Problem.ABSENT}, (B, A)),
        ((bytes(4096), label(3)), 3, {Problem.ABSENT}, (A, B)),
        (("i/o error", label(3)), 3, {Problem.UNREADABLE}, (A, B)),
        ((label(3), build(label(4), A)), 3, {Problem.MISPLACED}, (B, A)),
        ((label(3), label(2, alu=OTHER_ALU)), 3, {Problem.FOREIGN}, (B, A)),
        ((label(3), label(3, susid="other")), None, {Problem.CONTRADICTION}, (A, B)),
        ((label(3), resealed(build(label(4), B), "version", 2)), None, {Problem.NEWER}, (B, A)),
        ((bytes(512), bytes(512)), None, {Problem.ABSENT}, (A, B)),
        (("i/o error", "i/o error"), None, {Problem.UNREADABLE}, (A, B)),
    ],
    ids=[
        "alike",
        "a-older",
        "b-older",
        "b-overwritten",
        "a-blank",
        "a-unreadable",
        "b-misplaced",
        "b-of-another-alu",
        "contradicting",
        "b-newer-version",
        "blank",
        "unreadable",
    ],
)
def test_choice(
    labels: tuple[Label | bytes | str, ...], winner: int | None, problems: set[Problem], order: tuple[int, ...]
) -> None:
    """M2: generation decides, and what is wrong with the others is told."""
    choice = choose(copies(*labels))
    assert (choice.label and choice.label.generation) == winner
    assert {finding.problem for finding in choice.findings} == problems
    assert choice.order == order


def test_no_copies_no_label() -> None:
    assert choose([]).label is None


@pytest.mark.parametrize("copy", [0, 1], ids=["a", "b"])
def test_a_flipped_byte_loses_one_copy_only_and_is_told(copy: int) -> None:
    """R1: checksummed, duplicated. The newer copy is flipped: the older one counts, never a mixture."""
    for at in range(512):
        made = copies(label(2), label(3)) if copy else copies(label(3), label(2))
        raw = bytearray(made[copy].raw)
        raw[at] ^= 0x10
        made[copy] = Copy(made[copy].address, bytes(raw))
        choice = choose(made)
        assert choice.label == label(2), at
        assert [f.problem for f in choice.findings] == [Problem.ABSENT if at < 8 else Problem.DAMAGED], at


@pytest.mark.parametrize(
    "changes",
    [
        {"data": Extent(8 * MIB, 0)},
        {"data": Extent(8 * MIB + 512, MIB)},
        {"data": Extent(8 * MIB, SIZE)},
        {"data": Extent(4 * MIB, MIB)},
        {"regions": (0, 3 * MIB)},
        {"regions": (8192, 3 * MIB)},
        {"regions": (MIB, 2 * MIB)},
        {"regions": (3 * MIB, MIB), "region_bytes": 3 * MIB},
        {"regions": (MIB + 512, 4 * MIB)},
        {"region_bytes": 0},
        {"region_bytes": 1 << 60},
        {"size_bytes": 1 << 63},
    ],
    ids=str,
)
def test_a_forged_layout_is_refused(changes: dict[str, object]) -> None:
    """S3: no address from the disk sends a write onto something else."""
    with pytest.raises(SectorError):
        parse(build(replace(label(), **changes), A), A)


def test_a_susid_that_is_no_text_is_refused() -> None:
    with pytest.raises(SectorError, match="susid"):
        parse(resealed(build(label(), A), "susid", 0xFF), A)


def test_commit_writes_one_copy_flushes_and_then_the_other() -> None:
    """M3: one whole copy exists at every moment."""
    kinds = [(type(step), getattr(step, "offset", None)) for step in commit(label(), (B, A))]
    assert kinds == [(Write, B), (Flush, None), (Write, A), (Flush, None)]


def test_renewal_supersedes() -> None:
    """M2."""
    assert renewed(label(), None, 77).generation == 1
    made = renewed(new_label("other", OTHER_ALU, SIZE), label(9), 3)
    assert (made.generation, made.time_ns) == (10, 10)


def test_a_shrunk_alu_is_noticed() -> None:
    check_size(label(), SIZE)
    with pytest.raises(Exception, match=str(SIZE - 1)):
        check_size(label(), SIZE - 1)
