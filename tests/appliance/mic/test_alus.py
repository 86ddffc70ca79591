"""ALUs and pools as the management sees them (R1, R2, R8)."""

from __future__ import annotations

import msgspec
import pytest

from appliance.messages import AluState
from backstores.errors import TiergateError, UsageError
from tests.appliance.mic.conftest import Site
from tests.support.fake_sp import blank

GIB = 1 << 30


def test_a_new_file_is_attached_claimed_and_named_after_itself(site: Site) -> None:
    """R1, R2: what is blank becomes ours."""
    outcome = site.do("/alus", "attach", path="/x/disk0.img", size="1G")
    assert outcome.message == "alu disk0 is attached: 1 GiB, owned"
    (alu,) = site.do("/alus", "list")
    assert (alu.name, alu.state, alu.path, alu.size) == ("disk0", AluState.OWNED, "/x/disk0.img", "1 GiB")


def test_an_alu_with_data_is_listed_and_not_used_until_it_is_claimed_by_force(site: Site) -> None:
    """R2: an ALU without a valid SUSID is listed, never used, until a person claims it."""
    site.sp.disks["/dev/sdb"] = blank("/dev/sdb", GIB, detail="an ext4 file system")
    outcome = site.do("/alus", "attach", path="/dev/sdb")
    assert outcome.notes == ("it is not used yet: /dev/sdb holds an ext4 file system (`/alus/sdb claim force=yes`)",)
    assert site.do("/alus/sdb", "info").state == AluState.BLANK
    with pytest.raises(UsageError, match="alu sdb is blank, a volume takes owned ones only"):
        site.do("/volumes", "create", name="v", size="1M", alus="sdb")
    with pytest.raises(UsageError, match="holds an ext4 file system"):
        site.do("/alus/sdb", "claim")
    site.do("/alus/sdb", "claim", force=True)
    assert site.do("/alus/sdb", "info").state == AluState.OWNED
    assert not site.do("/alus/sdb", "claim").changed


def test_an_alu_of_another_appliance_is_not_claimed_on_the_way_in(site: Site) -> None:
    """R2: a foreign SUSID."""
    foreign = msgspec.structs.replace(blank("/dev/sdc", GIB, "SUSID of somebody else"), state=AluState.FOREIGN)
    site.sp.disks["/dev/sdc"] = foreign
    outcome = site.do("/alus", "attach", path="/dev/sdc")
    assert outcome.notes == ("it is foreign, and not used: SUSID of somebody else",)
    assert "claim" not in site.sp.calls


@pytest.mark.parametrize("failing", ["claim", "save"])
def test_an_attach_that_fails_half_way_is_undone(site: Site, failing: str) -> None:
    site.sp.fail, site.store.fail = failing, failing == "save"
    with pytest.raises(TiergateError, match="on purpose"):
        site.do("/alus", "attach", path="/x/disk0.img", size="1G")
    assert site.do("/alus", "list") == ()
    assert site.sp.alus() == []


def test_a_detach_that_can_not_be_saved_is_undone(site: Site) -> None:
    site.do("/alus", "attach", path="/x/disk0.img", size="1G")
    site.store.fail = True
    with pytest.raises(TiergateError, match="on purpose"):
        site.do("/alus/disk0", "detach")
    assert site.do("/alus/disk0", "info").state == AluState.OWNED


def test_an_alu_under_a_volume_is_not_detached(furnished: Site) -> None:
    furnished.do("/pools/fast", "delete")
    with pytest.raises(UsageError, match="alu a0 holds parts of volume db"):
        furnished.do("/alus/a0", "detach")


def test_a_detached_alu_comes_back_with_what_lies_on_it(site: Site) -> None:
    site.do("/alus", "attach", path="/x/disk0.img", size="1G")
    wwn = site.do("/alus/disk0", "info").wwn
    site.do("/alus/disk0", "detach")
    site.do("/alus", "attach", path="/x/disk0.img")
    assert site.do("/alus/disk0", "info").wwn == wwn


def test_after_a_restart_a_missing_alu_is_told_and_holds_nothing_up(furnished: Site) -> None:
    """C3; volumes start only when all ALUs that are there have been attached."""
    del furnished.sp.disks["/x/a1.img"]
    again = furnished.restarted()
    states = {alu.name: alu.state for alu in again.do("/alus", "list")}
    assert states == {"a0": "owned", "a1": "missing", "a2": "owned", "a3": "owned"}
    assert again.do("/alus/a1", "info").detail == "/x/a1.img does not exist; size= makes it"
    assert again.sp.calls == ["attach"] * 4 + ["bring_on_line"]
    assert again.sp.exposures == furnished.sp.exposures
    assert "missing" in again.do("/volumes/db", "info").alus[1]


def test_a_missing_alu_can_be_forgotten(furnished: Site) -> None:
    furnished.do("/pools/fast", "delete")
    del furnished.sp.disks["/x/a1.img"]
    again = furnished.restarted()
    again.do("/alus/a1", "detach")
    assert [alu.name for alu in again.do("/alus", "list")] == ["a0", "a2", "a3"]


def test_pools_keep_the_order_of_their_members_and_sum_them_up(furnished: Site) -> None:
    furnished.do("/pools", "create", name="p", alus="a3,a1")
    furnished.do("/pools/p", "add", alus="a1,a0")
    pool = furnished.do("/pools/p", "info")
    assert pool.alus == ("a3", "a1", "a0")
    assert pool.size_bytes == 3 * GIB
    assert not furnished.do("/pools/p", "add", alus="a0").changed
    furnished.do("/pools/p", "remove", alus="a3,a0")
    assert furnished.do("/pools/p", "info").alus == ("a1",)
    assert [pool.name for pool in furnished.do("/pools", "list")] == ["fast", "p"]
