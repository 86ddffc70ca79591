"""What the object regions hold: which is live, how far its log is whole, and what is lost (R3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backstores.metadata import records
from backstores.metadata.findings import Problem
from backstores.metadata.mdr import Directory
from backstores.metadata.recovery import CHUNK, Recovered, owner, recover
from backstores.metadata.region import BODY_OFFSET, ChangeSector, RegionSector, RegionState, base, commit
from backstores.metadata.sector import crc32c, seal
from backstores.metadata.steps import Step, Write, padded
from backstores.objects import MIB, AnyObject
from backstores.wwn import to_bytes
from tests.support.metadata import (
    ALU,
    DIRECTORY,
    LABEL,
    OTHER_ALU,
    answered,
    flipped,
    name,
    partition,
    resealed,
    volume,
    wrote,
)
from tests.support.recording import Image, put, read

OBJECTS: tuple[tuple[AnyObject, ...], ...] = (
    (partition(1, 8),),
    (partition(1, 8), volume(2, 1)),
    (volume(2, 1, generation=2),),
    (volume(2, 1, generation=2), partition(3, 9)),
)
A, B = DIRECTORY.regions
UNIT = 4096


def committed(image: Image, state: RegionState, objects: tuple[AnyObject, ...]) -> tuple[Image, RegionState]:
    made = commit(state, objects, DIRECTORY, LABEL.data, 0, 5)
    return wrote(image, made.steps), made.after


def claimed() -> tuple[Image, RegionState]:
    """Make regions as a claim leaves them: a base in each."""
    first = base(RegionState((), 1, 1, 0, 1, None), DIRECTORY)
    second = base(replace(first.after, generation=2, live=0), DIRECTORY)
    return wrote({}, (*first.steps, *second.steps)), second.after


def history() -> list[tuple[Image, RegionState]]:
    """Make a log of changes, and give every state of it."""
    states = [claimed()]
    for objects in OBJECTS:
        states.append(committed(*states[-1], objects))
    return states


def recovered(image: Image, directory: Directory = DIRECTORY, unreadable: tuple[int, ...] = ()) -> Recovered:
    return answered(recover(directory, LABEL.data), image, unreadable)


def test_every_commit_is_found_again() -> None:
    """R3, M2: by the base and all changes behind it."""
    for image, state in history():
        assert recovered(image) == Recovered(state, ())
    assert state.objects == OBJECTS[-1]
    assert (state.generation, state.epoch) == (6, 5)


def test_a_log_longer_than_what_is_read_at_once() -> None:
    image, state = claimed()
    for number in range(1, 2 + CHUNK // UNIT):
        image, state = committed(image, state, tuple(volume(n, 90) for n in range(1, 1 + number)))
    assert recovered(image) == Recovered(state, ())


def test_a_full_log_goes_on_in_the_other_region() -> None:
    """What lies behind the new base is of an older log, and does not count."""
    image, state = history()[-1]
    turns = 0
    for number in range(3):
        image, after = committed(image, replace(state, end=None), tuple(volume(n, 90) for n in range(1, 2 + number)))
        turns += after.live != state.live
        state = after
        assert recovered(image) == Recovered(state, ())
    assert turns == 3


def places(image: Image) -> dict[str, int]:
    """Say where the parts of the history's last image begin."""
    slot = 2 * UNIT
    return {
        "header": A,
        "body": A + BODY_OFFSET,
        "first-change": A + slot,
        "first-change-body": A + slot + UNIT,
        "last-change": A + slot + 6 * UNIT,
        "last-change-body": A + slot + 7 * UNIT,
        "end": A + slot + 8 * UNIT,
        "other-header": B,
    }


@pytest.mark.parametrize("part", places({}))
def test_every_flipped_byte_is_told(part: str) -> None:
    """M1: no exception, no silent acceptance; the state is one that was committed, and what is lost is named."""
    states = history()
    image, newest = states[-1]
    start = places(image)[part]
    length = 512 if "body" not in part else len(read(image, start, UNIT).rstrip(b"\0"))
    for at in range(start, start + length):
        found = recovered(flipped(image, at))
        assert found.findings, at
        assert found.state is not None
        assert found.state.objects in [state.objects for _, state in states], at
        assert found.state.end is None, "the next commit must not append to what is damaged"
        if part not in ("other-header", "end"):
            assert Problem.LOST in {finding.problem for finding in found.findings}, at
            assert found.state.generation < newest.generation
        else:
            assert found.state.objects == newest.objects


@pytest.mark.parametrize("part", ["header", "body", "first-change", "first-change-body", "last-change-body", "end"])
def test_what_can_not_be_read_is_told(part: str) -> None:
    """One bad sector costs what lies in it and behind it, and no more."""
    states = history()
    image, newest = states[-1]
    found = recovered(image, unreadable=(places(image)[part],))
    assert any("input/output error" in finding.detail for finding in found.findings)
    assert found.state is not None
    assert found.state.objects in [state.objects for _, state in states]
    if part == "end":
        assert found.state.objects == newest.objects
    if part == "last-change-body":
        assert found.state.generation == newest.generation - 1


def test_changes_behind_a_damaged_one_are_counted() -> None:
    image, _ = history()[-1]
    found = recovered(flipped(image, places(image)["first-change"] + 100))
    assert found.state is not None
    assert found.state.objects == ()
    assert "3 changes up to generation 6" in found.findings[-1].detail
    assert {finding.problem for finding in found.findings} == {Problem.LOST}


def test_a_change_whose_header_is_not_there_is_told() -> None:
    """A crash leaves that; so does a disk that has lost the header of the last commit."""
    image, newest = history()[-1]
    put(image, places(image)["last-change"], bytes(512))
    found = recovered(image)
    assert found.state is not None
    assert found.state.generation == newest.generation - 1
    assert [finding.problem for finding in found.findings] == [Problem.UNFINISHED]
    again, after = committed(image, found.state, OBJECTS[0])
    assert recovered(again) == Recovered(after, ())


def test_both_regions_gone_is_told() -> None:
    image, _ = history()[-1]
    for address in DIRECTORY.regions:
        put(image, address, bytes(512))
    found = recovered(image)
    assert found.state is None
    assert {finding.problem for finding in found.findings} == {Problem.DAMAGED}


def test_a_region_of_another_alu_does_not_count() -> None:
    image, _ = history()[-1]
    found = recovered(image, replace(DIRECTORY, alu=OTHER_ALU))
    assert found.state is None
    assert {finding.problem for finding in found.findings} == {Problem.FOREIGN}


def test_two_regions_of_one_generation_contradict() -> None:
    image, state = claimed()
    twin = base(replace(state, live=1), DIRECTORY)
    found = recovered(wrote(image, twin.steps))
    assert found.state is None
    assert [finding.problem for finding in found.findings] == [Problem.CONTRADICTION]


@pytest.mark.parametrize(
    "forged",
    [
        {"body_bytes": 1 << 63},
        {"body_bytes": 2 * MIB - 5 * UNIT + 1},
        {"body_bytes": 0},
        {"objects": 5},
        {"generation": 9},
        {"generation": 2},
    ],
    ids=str,
)
def test_a_forged_change_is_told(forged: dict[str, int]) -> None:
    """S3: lengths are checked before use."""
    image, _ = history()[-1]
    at = places(image)["first-change"]
    put(image, at, padded(resealed(read(image, at, 512), ChangeSector, **forged)))
    found = recovered(image)
    assert found.state is not None
    assert found.state.objects == ()
    assert found.findings[0].problem is Problem.LOST


@pytest.mark.parametrize(
    "body", [b"\xc1", records.encode(OBJECTS[0]), records.encode_change([volume(2, 1)], [name(7)])], ids=str
)
def test_a_body_of_another_kind_is_told(body: bytes) -> None:
    image, _ = history()[0]
    at = places(image)["first-change"]
    values = {"body_bytes": len(body), "body_crc": crc32c(body), "objects": 3, "generation": 3}
    header = seal(ChangeSector, address=at, alu=to_bytes(ALU), **values)
    steps: tuple[Step, ...] = (Write(at, padded(header)), Write(at + UNIT, padded(body)))
    found = recovered(wrote(image, steps))
    assert found.state is not None
    assert found.state.objects == ()
    assert [finding.problem for finding in found.findings] == [Problem.LOST]


def test_objects_that_contradict_are_recovered_and_named() -> None:
    """A finding, not a crash: the others can still be used."""
    state = RegionState((partition(1, 8), partition(3, 30)), 3, 1, 0, 0, None)
    found = recovered(wrote(claimed()[0], base(state, DIRECTORY).steps))
    assert found.state is not None
    assert len(found.state.objects) == 2
    assert [finding.problem for finding in found.findings] == [Problem.OUTSIDE]


@pytest.mark.parametrize(("steps", "alu"), [(0, None), (1, ALU), (4, ALU)], ids=["no-objects", "one-change", "more"])
def test_whose_objects_lie_in_a_region(steps: int, alu: str | None) -> None:
    """R2: for an ALU whose labels are gone."""
    image, _ = history()[steps]
    assert answered(owner(A, DIRECTORY.region_bytes), image) == alu
    assert answered(owner(B, DIRECTORY.region_bytes), image) is None


def test_a_base_with_objects_has_an_owner() -> None:
    image = wrote({}, base(RegionState(OBJECTS[1], 1, 1, 0, 0, None), DIRECTORY).steps)
    assert answered(owner(A, DIRECTORY.region_bytes), image) == ALU
    assert RegionSector.parse(read(image, A, 512)).objects == 2
