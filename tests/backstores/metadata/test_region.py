"""The object region: two copies that take turns, and which of them is live."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.errors import UsageError
from backstores.metadata import records, region
from backstores.metadata.findings import Problem
from backstores.metadata.label import Label, new_label
from backstores.metadata.region import BODY_OFFSET, CopyImage, RegionSector, RegionState, commit, recover
from backstores.metadata.sector import crc32c, seal
from backstores.metadata.steps import Flush, Step, Write
from backstores.objects import MIB, AnyObject
from backstores.wwn import to_bytes
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, partition, volume

LABEL = new_label(SUSID, ALU, SIZE)
FIRST: tuple[AnyObject, ...] = (partition(1, 8),)
SECOND: tuple[AnyObject, ...] = (partition(1, 8), volume(2, 1))


def image(steps: list[Step]) -> CopyImage:
    body, header = (step for step in steps if isinstance(step, Write))
    return CopyImage(header.data, body.data)


def two_commits() -> tuple[list[CopyImage], RegionState, RegionState]:
    first_steps, first = commit(None, FIRST, LABEL, 10)
    second_steps, second = commit(first, SECOND, LABEL, 5, epoch=3)
    return [image(first_steps), image(second_steps)], first, second


def test_the_newer_copy_is_live() -> None:
    """M2, R3."""
    copies, first, second = two_commits()
    assert recover(copies, LABEL) == region.Recovered(second, ())
    assert (second.generation, second.time_ns, second.epoch, second.live) == (2, 11, 3, 1)
    assert recover([copies[0], CopyImage(b"", error="i/o error")], LABEL).state == first


def test_commit_writes_body_flushes_header_flushes_and_never_the_live_copy() -> None:
    """M3."""
    _, first, second = two_commits()
    for state in (first, second):
        steps, after = commit(state, (), LABEL, 0)
        address = LABEL.regions[1 - state.live]
        assert [getattr(step, "offset", None) for step in steps] == [address + BODY_OFFSET, None, address, None]
        assert [type(step) for step in steps] == [Write, Flush, Write, Flush]
        assert after.live == 1 - state.live


@pytest.mark.parametrize("copy", [0, 1], ids=["older", "live"])
@pytest.mark.parametrize("part", ["header", "body"])
def test_every_flipped_byte_is_told_or_harmless(copy: int, part: str) -> None:
    """M1: no exception, no silent acceptance. The older copy may be of a write that was cut short."""
    copies, first, second = two_commits()
    good = getattr(copies[copy], part)
    length = 512 if part == "header" else RegionSector.parse(copies[copy].header).body_bytes
    for at in range(length):
        raw = bytearray(good)
        raw[at] ^= 0x20
        broken = list(copies)
        broken[copy] = replace(copies[copy], **{part: bytes(raw)})
        recovered = recover(broken, LABEL)
        assert recovered.state == (first if copy else second), at
        (finding,) = recovered.findings
        if part == "body":
            assert finding.problem is (Problem.LOST if copy else Problem.UNFINISHED)
        else:
            assert finding.problem is (Problem.ABSENT if at < 8 else Problem.DAMAGED)


def test_both_copies_broken_is_told() -> None:
    copies, _, _ = two_commits()
    recovered = recover([replace(one, body=b"") for one in copies], LABEL)
    assert recovered.state is None
    assert [finding.problem for finding in recovered.findings] == [Problem.LOST, Problem.LOST]


def test_copies_of_another_alu_do_not_count() -> None:
    """An image of one ALU's region on another ALU."""
    copies, _, _ = two_commits()
    recovered = recover(copies, replace(LABEL, alu=OTHER_ALU))
    assert recovered.state is None
    assert {finding.problem for finding in recovered.findings} == {Problem.FOREIGN}


def test_swapped_copies_do_not_count() -> None:
    copies, _, _ = two_commits()
    recovered = recover(copies[::-1], LABEL)
    assert recovered.state is None
    assert {finding.problem for finding in recovered.findings} == {Problem.MISPLACED}


def test_two_copies_of_one_generation_contradict() -> None:
    copies, first, _ = two_commits()
    twin, _ = commit(replace(first, generation=0, live=0), SECOND, LABEL, 0)
    recovered = recover([copies[0], image(twin)], LABEL)
    assert recovered.state is None
    assert recovered.findings[-1].problem is Problem.CONTRADICTION


def forged(objects: int = 1, **changes: object) -> CopyImage:
    """Make a first copy whose checksums are right and whose content need not be."""
    body = records.encode(FIRST)
    values = {"body_bytes": len(body), "body_crc": crc32c(body), "objects": objects} | changes
    address = LABEL.regions[0]
    return CopyImage(seal(RegionSector, address=address, alu=to_bytes(ALU), generation=9, **values), body)


@pytest.mark.parametrize(
    ("copy", "problem"),
    [
        (forged(objects=2), Problem.LOST),
        (forged(body_bytes=1 << 63), Problem.DAMAGED),
        (forged(body_bytes=2 * MIB - 4095), Problem.DAMAGED),
        (forged(body_bytes=2 * MIB - 4096), Problem.LOST),
        (forged(body_bytes=0, body_crc=0), Problem.LOST),
        (replace(forged(), body=b"\xc1"), Problem.LOST),
    ],
    ids=["count", "length-2^63", "length-past-room", "length-past-data", "empty", "other-body"],
)
def test_a_forged_header_is_told(copy: CopyImage, problem: Problem) -> None:
    """S3: lengths are checked before use."""
    recovered = recover([copy, CopyImage(bytes(4096))], LABEL)
    assert recovered.state is None
    assert [finding.problem for finding in recovered.findings] == [Problem.ABSENT, problem][
        :: 1 if problem is Problem.LOST else -1
    ]


def test_a_body_is_read_only_as_far_as_its_header_may_say() -> None:
    assert region.body_length(forged().header, LABEL, 0) == len(records.encode(FIRST))
    assert region.body_length(forged(body_bytes=1 << 40).header, LABEL, 0) == 0
    assert region.body_length(b"", LABEL, 0) == 0


def test_objects_that_contradict_are_recovered_and_named() -> None:
    """A finding, not a crash: the others can still be used."""
    wide = new_label(SUSID, ALU, 64 * MIB)
    steps, _ = commit(None, (partition(1, 8), partition(3, 30)), wide, 0)
    recovered = recover([image(steps), CopyImage(bytes(512))], LABEL)
    assert recovered.state is not None
    assert len(recovered.state.objects) == 2
    assert [f.problem for f in recovered.findings] == [Problem.ABSENT, Problem.OUTSIDE]


@pytest.mark.parametrize(
    "objects",
    [(partition(1, 8), partition(1, 9)), (partition(1, 8), partition(3, 8)), (partition(1, 15),)],
    ids=["twice", "overlapping", "outside"],
)
def test_nothing_that_contradicts_is_committed(objects: tuple[AnyObject, ...]) -> None:
    with pytest.raises(UsageError, match=ALU):
        commit(None, objects, LABEL, 0)


def test_objects_beyond_the_room_are_refused_with_sizes() -> None:
    many = tuple(volume(number, 1) for number in range(1, 15_000))
    with pytest.raises(UsageError, match=str(2 * MIB - 4096)):
        commit(None, many, LABEL, 0)


def test_ten_thousand_small_objects_have_room() -> None:
    many = tuple(volume(number, 1) for number in range(1, 9_000))
    steps, after = commit(None, many, LABEL, 0)
    assert recover([image(steps), CopyImage(bytes(512))], LABEL).state == after


def _offsets(label: Label, steps: list[Step]) -> bool:
    spans = [range(at, at + label.region_bytes) for at in label.regions]
    writes = [step for step in steps if isinstance(step, Write)]
    return all(any(w.offset in span and w.offset + len(w.data) <= span.stop for span in spans) for w in writes)


def test_the_largest_body_stays_in_its_copy() -> None:
    label = replace(LABEL, region_bytes=8192)
    objects = [volume(number, 1) for number in range(1, 19)]
    while len(records.encode(objects)) <= 4096:
        objects.append(volume(len(objects) + 1, 1))
    steps, _ = commit(None, objects[:-1], label, 0)
    assert _offsets(label, steps)
    with pytest.raises(UsageError, match="room for 4096"):
        commit(None, objects, label, 0)


def test_owner_of_a_region_without_label() -> None:
    """R2: labels may be gone where a region is left."""
    copies, _, _ = two_commits()
    assert region.owner(copies[0].header, LABEL.regions[0]) == ALU
    assert region.owner(copies[0].header, LABEL.regions[1]) is None
    assert region.owner(bytes(4096), LABEL.regions[0]) is None
