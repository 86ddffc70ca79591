"""Which of several copies of a sector counts (M2, M3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.metadata.copies import Copy, choose, commit
from backstores.metadata.findings import Problem
from backstores.metadata.label import Label, LabelSector, build, parse
from backstores.metadata.steps import Flush, Write
from tests.support.metadata import LABEL, OTHER_ALU, resealed

A, B, C = 4096, 8192, 16384


def label(generation: int, **changes: object) -> Label:
    return replace(LABEL, generation=generation, time_ns=generation, **changes)


def copies(*labels: Label | bytes | str) -> list[Copy]:
    made = []
    for address, one in zip((A, B, C), labels, strict=False):
        if isinstance(one, str):
            made.append(Copy(address, b"", one))
        else:
            made.append(Copy(address, one if isinstance(one, bytes) else build(one, address)))
    return made


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
        ((label(3), label(3, alu=OTHER_ALU)), None, {Problem.CONTRADICTION}, (A, B)),
        ((label(3), resealed(build(label(4), B), LabelSector, version=3)), 3, {Problem.NEWER}, (B, A)),
        ((bytes(512), bytes(512)), None, {Problem.ABSENT}, (A, B)),
        (("i/o error", "i/o error"), None, {Problem.UNREADABLE}, (A, B)),
        ((label(4), label(2), label(3)), 4, {Problem.UNFINISHED}, (B, C, A)),
    ],
    ids=[
        "alike",
        "a-older",
        "b-older",
        "b-overwritten",
        "a-blank",
        "a-unreadable",
        "b-misplaced",
        "contradicting",
        "b-newer-version",
        "blank",
        "unreadable",
        "three",
    ],
)
def test_choice(
    labels: tuple[Label | bytes | str, ...], winner: int | None, problems: set[Problem], order: tuple[int, ...]
) -> None:
    """M2: generation decides, and what is wrong with the others is told."""
    choice = choose("label", copies(*labels), parse)
    assert (choice.winner and choice.winner.generation) == winner
    assert {finding.problem for finding in choice.findings} == problems
    assert choice.order == order


def test_no_copies_no_choice() -> None:
    assert choose("label", [], parse).winner is None


@pytest.mark.parametrize("copy", [0, 1], ids=["a", "b"])
def test_a_flipped_byte_loses_one_copy_only_and_is_told(copy: int) -> None:
    """R1: checksummed, duplicated. The newer copy is flipped: the older one counts, never a mixture."""
    for at in range(512):
        made = copies(label(2), label(3)) if copy else copies(label(3), label(2))
        raw = bytearray(made[copy].raw)
        raw[at] ^= 0x10
        made[copy] = Copy(made[copy].address, bytes(raw))
        choice = choose("label", made, parse)
        assert choice.winner == label(2), at
        assert [f.problem for f in choice.findings] == [Problem.ABSENT if at < 8 else Problem.DAMAGED], at


@pytest.mark.parametrize(
    ("order", "offsets"),
    [((B, A), [B, None, A, None]), ((B, A, C), [B, None, A, C, None]), ((C,), [C, None])],
    ids=["two", "three", "one"],
)
def test_commit_makes_the_first_copy_durable_before_it_touches_the_others(
    order: tuple[int, ...], offsets: list[int | None]
) -> None:
    """M3: one whole copy exists at every moment."""
    steps = commit(lambda address: build(label(1), address), order)
    assert [getattr(step, "offset", None) for step in steps] == offsets
    assert {type(step) for step in steps} == {Write, Flush}
