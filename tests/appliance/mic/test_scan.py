"""Disks that nobody has attached: found, listed, never used until claimed (R2), and ours taken back (R30)."""

from __future__ import annotations

import msgspec
import pytest

from appliance.discovery import Disk
from appliance.messages import AluState, AluStatus
from backstores.errors import TiergateError, UsageError
from tests.appliance.mic.conftest import Site
from tests.support.fake_sp import blank

GIB = 1 << 30
BY_ID = "/dev/disk/by-id"


def plug_in(site: Site, name: str, path: str = "", **how: object) -> AluStatus:
    """Plug a disk in; ``how`` says how its status differs from that of a blank one."""
    path = path or f"{BY_ID}/virtio-{name}"
    site.disks.append(Disk(name, path, f"/dev/{name}"))
    site.sp.disks[path] = msgspec.structs.replace(blank(path, GIB), **how)
    return site.sp.disks[path]


def states(site: Site) -> dict[str, str]:
    """List the ALUs."""
    return {alu.name: alu.state for alu in site.do("/alus", "list")}


@pytest.fixture
def scanned(site: Site) -> Site:
    """An appliance that has found two blank disks."""
    plug_in(site, "vdb")
    plug_in(site, "vdc")
    outcome = site.do("/alus", "scan")
    assert outcome.message == "the scan has found vdb (1 GiB, blank), vdc (1 GiB, blank)"
    return site


def test_what_a_scan_finds_is_listed_and_nothing_is_written(scanned: Site) -> None:
    """R2: the non-owned pool."""
    assert states(scanned) == {"vdb": AluState.BLANK, "vdc": AluState.BLANK}
    assert "claim" not in scanned.sp.calls
    assert scanned.store.settings.alus == ()
    assert [node.name for node in scanned.do("/alus", "ls").children] == ["vdb", "vdc"]


def test_it_is_not_used_until_it_is_claimed(scanned: Site) -> None:
    """R2: not by a volume, not by a pool, and the line says what to type."""
    for path, command, given in [
        ("/volumes", "create", {"name": "v", "size": "1M", "alus": "vdb"}),
        ("/pools", "create", {"name": "p", "alus": "vdb"}),
    ]:
        with pytest.raises(UsageError, match=r"alu vdb is not used until it is claimed: `/alus/vdb claim`"):
            scanned.do(path, command, **given)
    with pytest.raises(UsageError):
        scanned.do("/volumes", "create", name="v", size="1M")
    assert scanned.do("/", "export").alus == ()


def test_what_is_claimed_is_used_and_stays_over_a_restart(scanned: Site) -> None:
    """R2: by one command for all of them."""
    outcome = scanned.do("/alus", "claim", alus="vdb,vdc")
    assert outcome.message == "alu vdb is claimed: 1 GiB, owned; alu vdc is claimed: 1 GiB, owned"
    scanned.do("/volumes", "create", name="v", size="1M", layout="mirror")
    again = scanned.restarted()
    assert states(again) == {"vdb": AluState.OWNED, "vdc": AluState.OWNED}
    assert again.do("/alus/vdb", "info").path == f"{BY_ID}/virtio-vdb"
    assert not again.do("/alus", "scan").changed


def test_what_is_not_claimed_is_not_missed(scanned: Site) -> None:
    """A disk that was never ours may be taken out."""
    del scanned.disks[0]
    assert not scanned.do("/alus", "scan").changed
    assert states(scanned) == {"vdc": AluState.BLANK}
    assert [status.path for status in scanned.sp.alus()] == [f"{BY_ID}/virtio-vdc"]
    assert states(scanned.restarted()) == {}


@pytest.mark.parametrize("state", [AluState.FOREIGN, AluState.BLANK], ids=["foreign", "data"])
def test_what_holds_something_is_claimed_by_force_alone(site: Site, state: AluState) -> None:
    plug_in(site, "vdb", state=state, detail="somebody's")
    site.do("/alus", "scan")
    with pytest.raises(UsageError, match=r"somebody's \(0 of 1 done\)"):
        site.do("/alus", "claim", alus="vdb")
    assert states(site) == {"vdb": state}
    site.do("/alus", "claim", alus="vdb", force=True)
    assert states(site.restarted()) == {"vdb": AluState.OWNED}


def test_a_wrong_name_is_refused_before_anything_is_claimed(scanned: Site) -> None:
    with pytest.raises(UsageError, match="there is no alu vdx"):
        scanned.do("/alus", "claim", alus="vdb,vdx")
    assert states(scanned)["vdb"] == AluState.BLANK


def test_a_claim_that_can_not_be_saved_is_made_good_by_the_next(scanned: Site) -> None:
    scanned.store.fail = True
    with pytest.raises(TiergateError, match="on purpose"):
        scanned.do("/alus/vdb", "claim")
    scanned.do("/alus/vdb", "claim")
    assert states(scanned.restarted()) == {"vdb": AluState.OWNED}


def test_a_disk_of_ours_is_taken_back_without_a_question(site: Site) -> None:
    """R30: it bears our SUSID, and has volumes on it."""
    plug_in(site, "vdb", state=AluState.OWNED)
    site.do("/alus", "scan")
    assert states(site.restarted()) == {"vdb": AluState.OWNED}


def test_a_missing_alu_that_is_there_again_is_attached(furnished: Site) -> None:
    """R30: it is found by the next scan."""
    path = "/x/a0.img"
    away = furnished.sp.disks.pop(path)
    late = furnished.restarted()
    assert states(late)["a0"] == AluState.MISSING
    assert not late.do("/alus", "scan").changed
    late.sp.disks[path] = away
    assert "a0 (1 GiB, owned)" in late.do("/alus", "scan").message
    assert states(late)["a0"] == AluState.OWNED
    assert not late.do("/alus", "scan").changed


def test_a_disk_in_use_is_left_alone(site: Site) -> None:
    """The kernel says so when it is opened; the other disks are found all the same (C3)."""
    plug_in(site, "vda")
    del site.sp.disks[f"{BY_ID}/virtio-vda"]  # the twin refuses what it does not have
    plug_in(site, "vdb")
    assert "vdb" in site.do("/alus", "scan").message
    assert states(site) == {"vdb": AluState.BLANK}


def test_a_name_that_is_taken_gets_a_number(site: Site) -> None:
    """What was vdb when it was claimed may be vdc now, and another disk vdb."""
    site.do("/alus", "attach", path="/x/vdb.img", size="1G")
    plug_in(site, "vdb")
    plug_in(site, "vdb", path=f"{BY_ID}/virtio-other")
    site.do("/alus", "scan")
    assert states(site) == {"vdb": AluState.OWNED, "vdb-2": AluState.BLANK, "vdb-3": AluState.BLANK}


@pytest.mark.parametrize("path", ["/dev/vdb", f"{BY_ID}/virtio-vdb"], ids=["kernel's-name", "lasting-name"])
def test_an_attach_of_what_is_listed_says_what_to_type(scanned: Site, path: str) -> None:
    with pytest.raises(UsageError, match=r"is listed already, as alu vdb; `/alus/vdb claim` makes it ours"):
        scanned.do("/alus", "attach", path=path, name="mine")


@pytest.mark.parametrize("path", ["/dev/vdb", f"{BY_ID}/virtio-vdb"], ids=["kernel's-name", "lasting-name"])
def test_what_was_attached_by_hand_is_not_found_again(site: Site, path: str) -> None:
    plug_in(site, "vdb")
    site.sp.disks["/dev/vdb"] = blank("/dev/vdb", GIB)
    site.do("/alus", "attach", path=path, name="mine")
    assert not site.do("/alus", "scan").changed


def test_what_is_detached_is_free_until_the_next_scan(scanned: Site) -> None:
    assert "the next scan finds it again" in scanned.do("/alus/vdb", "detach").message
    assert states(scanned) == {"vdc": AluState.BLANK}
    scanned.do("/alus", "scan")
    assert states(scanned) == {"vdb": AluState.BLANK, "vdc": AluState.BLANK}
