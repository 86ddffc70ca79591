"""The copy of the GS image on one member: old or new after any crash, in doubt where it can't be told (R4, M3, M6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backstores.metadata.findings import Problem
from backstores.metadata.gscopy import Copy, store
from backstores.metadata.gsformat import GsImage, GsPointer, LegacyRecord
from backstores.metadata.layout import GS_BOOT, GS_POINTER_ADDRESSES
from backstores.metadata.sector import SECTOR_BYTES, seal
from backstores.metadata.steps import Flush, Write
from backstores.metadata.store import carry_out
from tests.support.gs import SIZE, alu, copy_on, image
from tests.support.params import cases
from tests.support.recording import SECTOR, Event, Image, RecordingStorage, crash_states, put, read

ALU = alu(0)
OLDER, OLD = image(3, generation=1), image(3, generation=2)
NEW = replace(image(3, generation=3), legacy=(LegacyRecord(alu(50), b"objects" * 100),))
GROWN = replace(image(6, generation=3), before=image(3).members)
JUNK = bytes(range(1, 256)) * 17


def written(*images: GsImage, start: Image | None = None) -> Image:
    """Write images one after the other."""
    storage = RecordingStorage(SIZE, dict(start or {}))
    for one in images:
        steps, after = store(copy_on(ALU, storage.image), one)
        asyncio.run(carry_out(storage, steps))
        assert after.image == one
    return storage.image


def junk(*slots: int, start: Image | None = None) -> Image:
    """Overwrite pointers with what nobody of ours wrote."""
    content = dict(start or {})
    for slot in slots:
        put(content, GS_POINTER_ADDRESSES[slot], JUNK[:4096])
    return content


CASES = {
    "first": ({}, OLD),
    "second": (written(OLDER), NEW),
    "third": (written(OLDER, OLD), NEW),
    "members": (written(OLDER, OLD), GROWN),
    "same-legacy": (written(OLDER, replace(NEW, generation=2)), NEW),
    "over-junk": (junk(0, 1), OLD),
    "over-junk-in-front": (junk(0), OLD),
    "over-junk-behind": (junk(1), OLD),
}


@pytest.mark.parametrize(("before", "new"), cases(CASES, slow=["over-junk"]))
def test_a_crash_leaves_the_old_image_or_the_new_one(before: Image, new: GsImage) -> None:
    """M3, M6: a second crash, while it is written again, included."""
    old = copy_on(ALU, before)
    newer = replace(new, generation=new.generation + 1)
    for first, copy in doubly_crashed(before, new, newer):
        assert (copy.image, bool(copy.doubt)) in {(old.image, bool(old.doubt)), (new, False), (newer, False)}, first


def doubly_crashed(before: Image, new: GsImage, newer: GsImage) -> list[tuple[int, Copy]]:
    """Give what is found after a crash, and after one more while the next image is written."""
    found = []
    for number, once in crash_states(before, events(before, new)):
        found.append((number, copy_on(ALU, once)))
        if number % 3 == 0:
            found += [(number, copy_on(ALU, twice)) for _, twice in crash_states(once, events(once, newer))]
    return found


def events(before: Image, new: GsImage) -> list[Event]:
    """Record what writing an image does."""
    storage = RecordingStorage(SIZE, dict(before))
    steps, _ = store(copy_on(ALU, before), new)
    asyncio.run(carry_out(storage, steps))
    assert copy_on(ALU, storage.image).image == new
    return storage.events


def test_what_is_live_is_never_overwritten() -> None:
    """M3: over many writes, legacy metadata changing now and then."""
    content: Image = {}
    for generation in range(1, 12):
        copy = copy_on(ALU, content)
        new = replace(image(4, generation=generation), legacy=(LegacyRecord(alu(9), bytes(generation // 3)),))
        steps, after = store(copy, new)
        taken = {GS_POINTER_ADDRESSES[copy.pointers.live]} if copy.pointers.live is not None else set()
        taken |= {extent.start_bytes for extent in copy.pointers.extents}
        assert not taken & {step.offset for step in steps if isinstance(step, Write)}
        assert all(GS_BOOT.start_bytes <= step.offset for step in steps if isinstance(step, Write))
        assert all(step.offset + len(step.data) <= GS_BOOT.end_bytes for step in steps if isinstance(step, Write))
        content = written(new, start=content)
        assert copy_on(ALU, content) == after


def test_the_reserved_region_is_written_only_when_it_changes() -> None:
    steps, _ = store(copy_on(ALU, written(OLDER, OLD)), replace(OLD, generation=3))
    assert sum(isinstance(step, Write) for step in steps) == 2


def test_a_pointer_before_its_list_would_be_noticed() -> None:
    """These proofs can fail: in the wrong order there are states that are neither old nor new."""
    before = written(OLDER, OLD)
    body, reserved, flush, pointer, _ = events(before, NEW)
    copies = [copy_on(ALU, content) for _, content in crash_states(before, [pointer, flush, body, reserved, flush])]
    assert any(copy.doubt for copy in copies)


def live_bytes(content: Image) -> list[int]:
    """Number every byte whose change must be noticed."""
    copy = copy_on(ALU, content)
    places = [(address, SECTOR_BYTES) for address in GS_POINTER_ADDRESSES]
    places += [(extent.start_bytes, extent.length_bytes) for extent in copy.pointers.extents]
    return [at for start, length in places for at in range(start, start + length)]


def test_no_byte_can_change_unnoticed() -> None:
    """M1, S3: each byte of pointers, list and reserved region, one at a time; the member loses its vote."""
    content = written(OLDER, NEW)
    for at in live_bytes(content):
        sector = bytearray(content.get(at // SECTOR, bytes(SECTOR)))
        sector[at % SECTOR] ^= 0x5A
        copy = copy_on(ALU, {**content, at // SECTOR: bytes(sector)})
        assert copy.doubt, at
        assert copy.findings, at
        assert copy.image in (None, OLDER, NEW), at


@pytest.mark.parametrize("slots", [(0,), (1,), (0, 1)], ids=["first", "second", "both"])
def test_a_write_mends_a_member_in_doubt_at_its_last_sector(slots: tuple[int, ...]) -> None:
    """M4: until then it must not vote, for what is bad may have been the newest."""
    before = junk(*slots, start=written(OLDER, OLD))
    assert copy_on(ALU, before).doubt
    for _, content in crash_states(before, events(before, NEW)):
        copy = copy_on(ALU, content)
        assert (copy.image == NEW) is not bool(copy.doubt)
    assert copy_on(ALU, written(NEW, start=before)).doubt == ""


def test_what_was_written_for_another_alu_is_no_image() -> None:
    """R2: an ALU gets a new name when it is claimed; what an earlier owner left is not taken for its own."""
    copy = copy_on(alu(1), written(OLD))
    assert copy.image is None
    assert {finding.problem for finding in copy.findings} == {Problem.FOREIGN}


def test_two_pointers_of_one_order_count_for_nothing() -> None:
    content = written(OLD)
    elsewhere = written(OLDER, replace(OLD, time_ns=1))
    address = GS_POINTER_ADDRESSES[1]
    put(content, address, read(elsewhere, address, SECTOR_BYTES))
    copy = copy_on(ALU, content)
    assert copy.image is None
    assert [finding.problem for finding in copy.findings] == [Problem.CONTRADICTION]


@pytest.mark.parametrize(
    "field",
    [
        {"list_address": 64 << 10},
        {"list_bytes": (128 << 10) + 1},
        {"reserved_address": 1 << 20},
        {"reserved_bytes": 1 << 30},
    ],
    ids=["list-over-the-pointers", "list-too-long", "reserved-outside", "reserved-too-long"],
)
def test_an_address_that_leads_elsewhere_is_not_followed(field: dict[str, int]) -> None:
    """S3: a length or address from a disk is checked before it is used."""
    content = written(OLD)
    good = GsPointer(read(content, GS_POINTER_ADDRESSES[0], SECTOR_BYTES))
    values = {name: getattr(good, name) for name in GsPointer.FIELDS if name not in ("magic", "version", "crc")}
    put(content, GS_POINTER_ADDRESSES[0], seal(GsPointer, **{**values, **field}))
    copy = copy_on(ALU, content)
    assert copy.image is None
    assert copy.pointers.extents == ()
    assert "no place" in copy.doubt


def test_every_write_ends_with_a_flush() -> None:
    steps, _ = store(copy_on(ALU, {}), OLD)
    assert isinstance(steps[-1], Flush)
    assert isinstance(steps[-3], Flush)
