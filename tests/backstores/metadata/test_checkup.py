"""What is wrong with ALUs is named with its address, and what is safe to repair is told from what is not (R1-R4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from backstores.metadata import gscopy
from backstores.metadata.checkup import ADVICE, Checkup, Means, Subject, check_up, look, main_susid
from backstores.metadata.findings import Problem
from backstores.metadata.label import LabelSector
from backstores.metadata.layout import (
    GS_LISTS,
    GS_POINTER_ADDRESSES,
    GS_RESERVED,
    MDR_ADDRESSES,
    SMALL,
    label_addresses,
    table_addresses,
)
from backstores.objects import AnyObject
from tests.support import format_1
from tests.support.metadata import SIZE, SUSID, answered, flipped, partition, resealed, volume
from tests.support.recording import SECTOR, Image, put, read
from tests.support.small_alu import FIRST, SECOND, changed, restarted, small_alu, three_alus

UNIT = 4096
LIVE = SMALL.regions[1]
BITMAP = 9 << 20
PLACES: Mapping[str, tuple[int, int]] = {
    **{f"label-{name}": (at, SECTOR) for name, at in zip("abcd", label_addresses(SIZE), strict=True)},
    **{f"mdr-directory-{name}": (at, SECTOR) for name, at in zip("ab", MDR_ADDRESSES, strict=True)},
    **{f"table-{name}": (at, SECTOR) for name, at in zip("abcd", table_addresses(SIZE), strict=True)},
    **{f"gs-pointer-{name}": (at, SECTOR) for name, at in zip("ab", GS_POINTER_ADDRESSES, strict=True)},
    "bitmap": (BITMAP, SECTOR),
    "gs-list-older": (GS_LISTS[0].start_bytes, 43),
    "gs-list-live": (GS_LISTS[1].start_bytes, 110),
    "gs-reserved": (GS_RESERVED[0].start_bytes, 10),
    "region-a": (SMALL.regions[0], SECTOR),
    "base": (LIVE, SECTOR),
    "base-body": (LIVE + UNIT, 10),
    "change": (LIVE + 2 * UNIT, SECTOR),
    "change-body": (LIVE + 3 * UNIT, 404),
    "last-change": (LIVE + 4 * UNIT, SECTOR),
    "last-change-body": (LIVE + 5 * UNIT, 666),
}
UNCOVERED = frozenset({"gs-list-older"})
"""What nothing leads to that counts: a flip changes nothing."""

COMMITS: tuple[set[AnyObject], ...] = (set(), set(FIRST), set(SECOND))
EVERY = 61  # bytes from one flip to the next, where not all are tried


def subject(image: Image, path: str = "a.img") -> Subject:
    return answered(look(path, SUSID, SIZE), image)


def checked(*images: Image) -> Checkup:
    return check_up([subject(image, f"{name}.img") for name, image in zip("abcd", images, strict=False)], SUSID)


def texts(found: Checkup) -> str:
    return "\n".join(map(str, found.troubles))


def means(found: Checkup) -> list[Means]:
    return [repair.means for repair in found.repairs]


def test_what_is_whole_is_clean() -> None:
    for found in (checked(small_alu()), checked(*three_alus())):
        assert found == Checkup(SUSID, (), ())


def test_there_is_advice_for_every_problem() -> None:
    assert ADVICE.keys() == set(Problem)


@pytest.mark.parametrize("name", [name for name in PLACES if name.startswith(("label", "mdr", "table"))])
def test_a_damaged_copy_is_named_and_can_be_repaired(name: str) -> None:
    """R1: of four copies of the label directory, and two of the MDR directory, one is enough."""
    address, _ = PLACES[name]
    found = checked(flipped(small_alu(), address + 90))
    assert f"at byte {address}: damaged" in texts(found)
    assert "repair writes it again" in texts(found)
    assert means(found) == [Means.COPIES]
    assert not found.clean


@pytest.mark.parametrize("name", ["gs-pointer-a", "gs-pointer-b", "gs-list-live", "gs-reserved"])
def test_a_member_that_lost_the_set_gets_it_from_the_others(name: str) -> None:
    """R4: a majority of the other members is enough."""
    first, *others = three_alus()
    sector = gscopy.look(subject(first).alu)
    live = answered(sector, first).pointers.sector
    assert live is not None
    address = {"gs-list-live": live.list_address, "gs-reserved": live.reserved_address}.get(name, PLACES[name][0])
    found = checked(flipped(first, address), *others)
    assert "a.img: GS" in texts(found)
    assert means(found) == [Means.GS_SET]


def test_below_a_majority_of_the_set_only_copies_are_repaired() -> None:
    """M4: nobody could say whether what is there is the newest."""
    first, *_ = three_alus()
    found = checked(flipped(first, PLACES["label-a"][0] + 90))
    assert "too few members can be read: not attached" in texts(found)
    assert means(found) == [Means.COPIES]


def test_an_object_without_its_copy_is_mended() -> None:
    """R3: a second-tier object is stored on every ALU below it."""
    first, *others = three_alus()
    without = changed(first, lambda alu: alu.commit(alu.objects[1:], alu.epoch))
    found = checked(without, *others)
    assert means(found) == [Means.OBJECTS]
    assert "has no copy of it" in texts(found)


def test_no_object_is_mended_below_a_majority_of_the_set() -> None:
    """M4: what is missing here could have been dropped by the appliance that has the others."""
    first, *others = three_alus()
    without = changed(first, lambda alu: alu.commit(alu.objects[1:], alu.epoch))
    found = checked(without, *(flipped(other, GS_POINTER_ADDRESSES[0] + 90) for other in others))
    assert "has no copy of it" in texts(found)
    assert found.repairs == ()


def test_an_older_copy_is_named_and_left_alone() -> None:
    """R4: an ALU that was copied before the last start comes back."""
    old, *others = three_alus()
    found = checked(flipped(old, PLACES["label-b"][0] + 90), *restarted([old, *others])[1:])
    assert "it is an older copy: epoch 1, while the appliance has fenced it with 2 since" in texts(found)
    assert found.repairs == ()


def test_a_damaged_bitmap_is_named_and_made_like_that_of_the_other_leg() -> None:
    """D2: what it could have said counts as dirty, on both legs."""
    first, second, third = three_alus()
    found = checked(flipped(first, BITMAP + 200), second, third)
    assert f"a.img: bitmap at byte {BITMAP}: damaged" in texts(found)
    assert [(repair.path, repair.means) for repair in found.repairs] == [
        ("a.img", Means.BITMAPS),
        ("b.img", Means.BITMAPS),
    ]


def test_bitmaps_stay_while_a_newer_release_has_written_on_an_alu_of_their_mirror() -> None:
    first, second, third = three_alus()
    put(second, PLACES["table-b"][0], resealed(read(second, PLACES["table-b"][0], SECTOR), LabelSector, version=7))
    found = checked(flipped(first, BITMAP + 200), second, third)
    assert Means.BITMAPS not in means(found)


def test_what_is_lost_is_named() -> None:
    address = PLACES["change"][0]
    found = checked(flipped(small_alu(), address + 40))
    assert f"object log at byte {address}: lost: the log breaks off behind generation 2" in texts(found)
    assert "1 changes up to generation 4 lie behind it" in texts(found)


def test_an_object_region_that_is_not_live_can_be_written_again() -> None:
    """As the next change of the objects would."""
    found = checked(flipped(small_alu(), PLACES["region-a"][0] + 90))
    assert [str(repair) for repair in found.repairs] == [
        f"a.img: write the object region at byte {SMALL.regions[0]} again"
    ]


def test_what_may_have_held_something_newer_is_left() -> None:
    """The partition table tells of a partition that was in the damaged base and is nowhere else."""
    worn = flipped(small_alu(FIRST), SMALL.regions[0] + 90)  # so that the next commit makes a new base there
    newer = changed(worn, lambda alu: alu.commit([*alu.objects, partition(6, 12)], alu.epoch))
    assert "damaged" not in texts(checked(newer))
    found = checked(flipped(newer, SMALL.regions[0] + 90))
    assert f"object region at byte {SMALL.regions[0]}: damaged" in texts(found)
    assert found.repairs == ()


def test_what_the_set_has_seen_in_a_later_generation_is_left() -> None:
    """R4: the newest base is damaged; what it held, no other witness tells."""
    worn = flipped(small_alu(), SMALL.regions[0] + 90)
    newer = changed(worn, lambda alu: alu.commit([volume(2, 3, called="new name"), *alu.objects[1:]], alu.epoch))
    [seen] = restarted([newer])
    assert checked(seen).clean
    assert checked(flipped(seen, SMALL.regions[0] + 90)).repairs == ()


@pytest.mark.parametrize("name", ["label-d", "mdr-directory-b", "table-c", "gs-pointer-b"])
def test_a_newer_version_is_named_and_never_repaired(name: str) -> None:
    """Version fields are honoured: a newer one is refused with its number, wherever it is met."""
    image = small_alu()
    address = PLACES[name][0]
    put(image, address, resealed(read(image, address, SECTOR), LabelSector, version=7))
    found = checked(flipped(image, PLACES["mdr-directory-a"][0] + 90))
    assert "format version 7" in texts(found)
    assert found.repairs == ()


def test_an_older_version_is_whole_and_not_repaired() -> None:
    """It is migrated by the appliance, when it starts."""
    found = checked(format_1.fixture().image)
    assert found.repairs == ()
    assert "version" not in texts(found)


@pytest.mark.parametrize(
    ("image", "text"),
    [({}, "blank: it holds nothing"), ({0: b"\1" * SECTOR}, "data: holds data")],
    ids=["blank", "data"],
)
def test_what_is_not_ours_is_named_and_left(image: Image, text: str) -> None:
    found = checked(small_alu(), image)
    assert text in texts(found)
    assert found.clean
    assert found.repairs == ()


def test_of_two_copies_of_one_alu_neither_is_repaired() -> None:
    found = checked(small_alu(), small_alu())
    assert "2 attached alus have its label" in texts(found)
    assert found.repairs == ()


def test_the_set_is_not_written_while_an_alu_is_there_twice() -> None:
    first, second, third = three_alus()
    found = checked(flipped(first, GS_POINTER_ADDRESSES[0] + 90), second, third, second)
    assert "2 attached alus have its label" in texts(found)
    assert found.repairs == ()


def test_the_alus_are_whose_most_of_them_are() -> None:
    found: Sequence[Subject] = [subject(image) for image in ({}, small_alu())]
    assert main_susid(one.inspection for one in found) == SUSID
    assert main_susid([]) == ""


def held_against(name: str, step: int) -> None:
    """Flip bytes of a structure: each flip is named, and what counts then was committed once."""
    good = small_alu()
    whole = subject(good)
    start, length = PLACES[name]
    assert read(good, start // SECTOR * SECTOR, SECTOR).strip(b"\0")
    for at in range(start, start + length, step):
        one = subject(flipped(good, at))
        found = check_up([one], SUSID)
        assert one.inspection.state is not None, at
        assert set(one.inspection.state.objects) in COMMITS, at
        if name in UNCOVERED:
            assert one.copy is not None
            assert whole.copy is not None
            assert one.copy.image == whole.copy.image
        else:
            assert found.troubles, at


@pytest.mark.parametrize("name", PLACES)
def test_a_flip_is_named(name: str) -> None:
    """M1, S3: no exception, and no silent acceptance."""
    held_against(name, EVERY)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_every_flip_is_named(name: str) -> None:
    """M1, S3: each byte of each structure."""
    held_against(name, 1)
