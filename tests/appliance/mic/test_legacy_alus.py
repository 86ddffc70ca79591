"""Legacy ALUs and the volumes that are one as it is, as the management sees them (R5)."""

from __future__ import annotations

import msgspec
import pytest

from appliance.discovery import Disk
from appliance.messages import AluState
from appliance.mic.commands import CommandError
from backstores.errors import TiergateError, UsageError
from tests.appliance.mic.conftest import Site
from tests.support.fake_sp import blank

GIB = 1 << 30
SIZE = GIB + 512


@pytest.fixture
def legacy(furnished: Site) -> Site:
    """An appliance that has a legacy ALU besides, ``old``."""
    furnished.sp.disks["/dev/old"] = blank("/dev/old", SIZE, detail="an ext4 file system")
    furnished.do("/alus", "attach", path="/dev/old", legacy="yes")
    return furnished


def test_it_is_attached_as_it_is_and_never_claimed(legacy: Site) -> None:
    """R5: neither on the way in nor later, and it is told from the others."""
    assert legacy.sp.calls[-1] == "attach_legacy"
    found = legacy.do("/alus/old", "info")
    assert (found.state, found.size_bytes, found.free_bytes) == (AluState.LEGACY, SIZE, 0)
    assert legacy.do("/", "ls").children[0].children[-1].healthy


@pytest.mark.parametrize("layout", ["legacy", "direct"])
def test_a_volume_is_all_of_it(legacy: Site, layout: str) -> None:
    """R5: without a size, block for block, and shown like any other."""
    outcome = legacy.do("/volumes", "create", name="whole", layout=layout, alus="old")
    assert outcome.message == f"volume whole is on line: 1 GiB, {layout}"
    found = legacy.do("/volumes/whole", "info")
    assert (found.size_bytes, found.block_bytes, found.alus, found.layout) == (SIZE, 512, ("old",), layout)
    legacy.do("/volumes/whole", "expose", host="web1")
    assert legacy.do("/alus/old", "info").volumes == ("whole",)
    with pytest.raises(UsageError, match="alu old holds parts of volume whole"):
        legacy.do("/alus/old", "detach")
    outcome = legacy.do("/volumes/whole", "delete", force="yes")
    assert outcome.message == "volume whole is deleted; its data stay on alu old"
    legacy.do("/alus/old", "detach")


REFUSED = {
    "of-two": ({"layout": "legacy", "alus": "old,a0"}, "a legacy volume is one alu as it is: name it with alus=NAME"),
    "of-none": ({"layout": "direct"}, "a direct volume is one alu as it is: name it with alus=NAME"),
    "of-a-pool": ({"layout": "legacy", "pool": "fast"}, "name it with alus=NAME"),
    "of-a-pool-and-one": ({"layout": "legacy", "pool": "fast", "alus": "old"}, "say pool=fast or alus=old, not both"),
    "of-an-owned-one": ({"layout": "legacy", "alus": "a0"}, "alu /x/a0.img is owned: layout legacy takes one attached"),
    "of-nothing-known": ({"layout": "legacy", "alus": "a9"}, "there is no alu a9"),
    "of-another-size": ({"layout": "legacy", "alus": "old", "size": "1G"}, "size 1073741824 is not that of alu"),
    "in-other-blocks": ({"layout": "legacy", "alus": "old", "block": "4096"}, "are not whole blocks of 4096"),
    "with-another-layout": ({"size": "1M", "alus": "old"}, "old is a legacy alu: layout legacy or direct takes it, as"),
    "without-a-size": ({"layout": "linear"}, "volume v needs a size, such as size=10G"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_made_is_refused_with_the_way_out(legacy: Site, given: dict[str, str], message: str) -> None:
    before = legacy.snapshot()
    with pytest.raises(UsageError, match=message) as refused:
        legacy.do("/volumes", "create", name="v", **given)
    assert "\n" not in str(refused.value)
    assert legacy.snapshot() == before


def test_a_disk_of_4096_byte_sectors_makes_blocks_of_these(site: Site) -> None:
    """R5: what lies on it counts in them."""
    site.sp.disks["/dev/big"] = msgspec.structs.replace(blank("/dev/big", GIB), kind="block device", sector_bytes=4096)
    site.do("/alus", "attach", path="/dev/big", legacy="yes")
    outcome = site.do("/volumes", "create", name="v", layout="legacy", alus="big")
    assert outcome.notes == ("it has blocks of 4096 bytes, the sectors of its alu",)
    assert site.do("/volumes/v", "info").block_bytes == 4096


def test_a_disk_of_512_byte_sectors_makes_no_larger_blocks(site: Site) -> None:
    site.sp.disks["/dev/small"] = msgspec.structs.replace(blank("/dev/small", GIB), kind="block device")
    site.do("/alus", "attach", path="/dev/small", legacy="yes")
    with pytest.raises(UsageError, match="blocks of 4096 bytes don't fit alu /dev/small, whose sectors have 512"):
        site.do("/volumes", "create", name="v", layout="legacy", alus="small", block="4096")


def test_it_does_not_grow_and_is_in_no_pool(legacy: Site) -> None:
    legacy.do("/volumes", "create", name="whole", layout="legacy", alus="old")
    with pytest.raises(UsageError, match="volume whole is alu old as it is, 1 GiB: it can't grow"):
        legacy.do("/volumes/whole", "grow", size="2G")
    for path, command, given in (("/pools", "create", {"name": "p"}), ("/pools/fast", "add", {})):
        with pytest.raises(UsageError, match="alu old is a legacy alu: a volume takes all of it or nothing"):
            legacy.do(path, command, alus="old", **given)


BAD_WORDS = {
    "a-size": ({"legacy": "yes", "size": "1G"}, "size= makes a file, legacy=yes takes what is there as it is"),
    "force-alone": ({"force": "yes"}, "force=yes goes with legacy=yes"),
    "neither-yes-nor-no": ({"legacy": "maybe"}, "legacy: 'maybe' is neither yes nor no"),
    "not-there": ({"legacy": "yes"}, "/x/none does not exist"),
}


@pytest.mark.parametrize(("given", "message"), BAD_WORDS.values(), ids=BAD_WORDS)
def test_words_that_do_not_go_together_are_refused(site: Site, given: dict[str, str], message: str) -> None:
    with pytest.raises((UsageError, CommandError), match=message):
        site.do("/alus", "attach", path="/x/none", **given)
    assert site.do("/alus", "list") == ()


def test_force_reaches_the_storage_processor(site: Site) -> None:
    site.sp.disks["/x/old.img"] = blank("/x/old.img", GIB)
    site.do("/alus", "attach", path="/x/old.img", legacy="yes", force="yes")
    assert site.sp.calls[-1] == "attach_legacy force"


def test_an_attach_that_can_not_be_saved_is_undone(site: Site) -> None:
    site.sp.disks["/x/old.img"] = blank("/x/old.img", GIB)
    site.store.fail = True
    with pytest.raises(TiergateError, match="on purpose"):
        site.do("/alus", "attach", path="/x/old.img", legacy="yes")
    assert (site.sp.alus(), site.do("/alus", "list")) == ([], ())


def test_a_detach_that_can_not_be_saved_is_undone(legacy: Site) -> None:
    legacy.store.fail = True
    with pytest.raises(TiergateError, match="on purpose"):
        legacy.do("/alus/old", "detach")
    assert legacy.do("/alus/old", "info").state is AluState.LEGACY


def test_a_disk_that_a_scan_has_found_can_be_attached_as_it_is(site: Site) -> None:
    """R2, R5: under the name that it is listed by; and a scan that finds it again leaves it alone."""
    site.sp.disks["/dev/sdb"] = blank("/dev/sdb", GIB, detail="an ext4 file system")
    site.disks.append(Disk("sdb", "/dev/sdb", "/dev/sdb"))
    site.do("/alus", "scan")
    with pytest.raises(UsageError, match="is listed already, as alu sdb"):
        site.do("/alus", "attach", path="/dev/sdb")
    site.do("/alus", "attach", path="/dev/sdb", legacy="yes")
    assert site.do("/alus/sdb", "info").state is AluState.LEGACY
    assert not site.do("/alus", "scan").changed


def test_after_a_restart_it_comes_after_all_others(legacy: Site) -> None:
    """R5: what is known of it lies on them; and it is no less than what it was."""
    again = legacy.restarted()
    assert again.sp.calls[-2:] == ["bring_on_line", "attach_legacy"]
    assert again.do("/alus/old", "info").state is AluState.LEGACY


def test_one_that_is_missing_can_be_let_go_or_found_again(legacy: Site) -> None:
    """C3."""
    disk = legacy.sp.disks.pop("/dev/old")
    again = legacy.restarted()
    assert again.do("/alus/old", "info").state is AluState.MISSING
    again.sp.disks["/dev/old"] = disk
    assert again.do("/alus", "scan").message == "the scan has found old (1 GiB, legacy)"
    legacy.sp.disks.pop("/dev/old")
    once_more = legacy.restarted()
    once_more.do("/alus/old", "detach")
    assert "old" not in [alu.name for alu in once_more.do("/alus", "list")]


def test_export_and_apply_know_it(legacy: Site) -> None:
    """C4: an export applied changes nothing, and on another appliance makes the same, legacy ALUs after the others."""
    legacy.sp.disks["/dev/a"] = blank("/dev/a", GIB)
    legacy.do("/alus", "attach", path="/dev/a", legacy="yes")
    legacy.do("/volumes", "create", name="whole", layout="legacy", alus="old")
    text = msgspec.yaml.encode(legacy.do("/", "export")).decode()
    assert "  legacy: true" in text
    assert not legacy.do("/", "apply", file=text).changed
    other = Site()
    other.sp.disks |= {path: legacy.sp.disks[path] for path in ("/dev/a", "/dev/old")}
    notes = other.do("/", "apply", file=text).notes
    attached = [note for note in notes if note.startswith("attach alu")]
    assert attached[-2:] == ["attach alu a at /dev/a, a legacy one", "attach alu old at /dev/old, a legacy one"]
    assert msgspec.yaml.encode(other.do("/", "export")).decode() == text


DIFFERENT = {
    "no-longer-legacy": ("  legacy: true\n", "", "alu old has legacy yes, the file says no; detach it first"),
    "larger": ("size: '1073742336'", "size: 2G", "volume whole has size 1073742336, the file says 2G; it is its alu"),
}


@pytest.mark.parametrize(("old", "new", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_apply_refuses_what_can_not_be_changed(legacy: Site, old: str, new: str, message: str) -> None:
    legacy.do("/volumes", "create", name="whole", layout="legacy", alus="old")
    text = msgspec.yaml.encode(legacy.do("/", "export")).decode()
    assert old in text
    before = legacy.snapshot()
    with pytest.raises(UsageError, match=message):
        legacy.do("/", "apply", file=text.replace(old, new))
    assert legacy.snapshot() == before
