"""Volumes: create, expose, grow, delete, and what is told of them (R13, R14)."""

from __future__ import annotations

import pytest

from appliance.messages import Exposure
from appliance.mic.views import TreeNode
from backstores.errors import TiergateError, UsageError
from backstores.objects import MirrorObject, StripeObject
from tests.appliance.mic.conftest import NOW, Site


def test_a_new_volume_is_on_line_and_its_progress_was_told(furnished: Site) -> None:
    """R13: from the request to the "on line" notice; C2: the outcome is told."""
    furnished.progress.clear()
    outcome = furnished.do("/volumes", "create", name="v", size="64M", layout="stripe", alus="a2,a0", chunk="128K")
    assert outcome.message == "volume v is on line: 64 MiB, stripe"
    assert [done for _, done, _ in furnished.progress] == [1, 2]
    info = furnished.do("/volumes/v", "info")
    assert (info.size_bytes, info.layout, info.alus) == (64 << 20, "stripe", ("a2", "a0"))
    assert info.created == NOW.isoformat()


def test_the_parameters_reach_the_tree(furnished: Site) -> None:
    furnished.do(
        "/volumes", "create", name="v", size="60M", layout="stripe-mirror",
        width="2", legs=2, chunk="16K", block=4096, alus="a3,a2,a1,a0",
    )  # fmt: skip
    status = next(v for v in furnished.sp.volumes() if v.name == "v")
    assert status.block_bytes == 4096
    stripe = next(item for item in status.objects if isinstance(item, StripeObject))
    mirrors = [item for item in status.objects if isinstance(item, MirrorObject)]
    assert stripe.chunk_blocks * 4096 == 16 << 10
    assert [len(mirror.legs) for mirror in mirrors] == [2, 2]
    info = furnished.do("/volumes/v", "info")
    assert info.alus == ("a3", "a2", "a1", "a0")
    assert [leg.alus for leg in info.legs] == [("a3",), ("a2",), ("a1",), ("a0",)]


def test_a_volume_stays_on_the_alus_of_its_pool(furnished: Site) -> None:
    """R8: allocation by pool."""
    furnished.do("/pools", "create", name="p", alus="a1,a3")
    furnished.do("/volumes", "create", name="v", size="64M", layout="mirror", pool="p")
    assert set(furnished.do("/volumes/v", "info").alus) == {"a1", "a3"}


def test_a_volume_that_the_storage_processor_refuses_is_not_there(furnished: Site) -> None:
    furnished.sp.fail = "create_volume"
    with pytest.raises(TiergateError, match="on purpose"):
        furnished.do("/volumes", "create", name="v", size="1M")
    assert [v.name for v in furnished.do("/volumes", "list")] == ["db"]


def test_exposing_takes_the_lowest_free_lun_and_tells_the_host(furnished: Site) -> None:
    for name in ("v1", "v2", "v3"):
        furnished.do("/volumes", "create", name=name, size="1M")
    furnished.do("/volumes/v1", "expose", host="web1", lun=2)
    furnished.do("/volumes/v2", "expose", host="web1")
    furnished.do("/volumes/v3", "expose", host="web1")
    wwns = {v.name: v.wwn for v in furnished.sp.volumes()}
    assert furnished.sp.exposures == tuple(
        Exposure(host="web1", volume=wwns[name], lun=lun) for lun, name in enumerate(("db", "v2", "v1", "v3"))
    )


def test_a_taken_lun_is_refused_with_who_has_it(furnished: Site) -> None:
    furnished.do("/volumes", "create", name="v", size="1M")
    with pytest.raises(UsageError, match="lun 0 of host web1 is taken by volume db"):
        furnished.do("/volumes/v", "expose", host="web1", lun=0)


def test_asking_for_what_is_so_already_changes_nothing_and_is_no_error(furnished: Site) -> None:
    again = furnished.do("/volumes/db", "expose", host="web1", lun=0)
    gone = furnished.do("/volumes/db", "unexpose", host="any")
    same = furnished.do("/volumes/db", "grow", size="256M")
    assert [again.changed, gone.changed, same.changed] == [False, False, False]


def test_an_exposure_that_can_not_be_saved_never_reaches_the_hosts(furnished: Site) -> None:
    before = furnished.snapshot()
    furnished.store.fail = True
    with pytest.raises(TiergateError, match="on purpose"):
        furnished.do("/volumes/db", "expose", host="any")
    assert furnished.snapshot() == before


def test_the_urls_are_what_libiscsi_and_qemu_take(furnished: Site) -> None:
    """R33; the user of CHAP is in it, the secret never (S2)."""
    info = furnished.do("/volumes/db", "info")
    assert info.iscsi_urls == ("iscsi://127.0.0.1:3260/iqn.2026-01.org.tiergate:fake/0",)
    assert [(e.host, e.lun) for e in info.exposures] == [("web1", 0)]


def test_a_grown_volume_keeps_its_name_and_gains_blocks(furnished: Site) -> None:
    """R16: grow."""
    before = furnished.do("/volumes/db", "info")
    outcome = furnished.do("/volumes/db", "grow", size="512M")
    after = furnished.do("/volumes/db", "info")
    assert outcome.message == "volume db has 512 MiB now"
    assert (after.wwn, after.size_bytes) == (before.wwn, 512 << 20)


def test_a_volume_that_hosts_see_is_deleted_only_by_force(furnished: Site) -> None:
    furnished.do("/volumes/db", "expose", host="any")
    with pytest.raises(UsageError, match="exposed to host any, web1; unexpose it first, or say force=yes"):
        furnished.do("/volumes/db", "delete")
    (volume,) = furnished.sp.volumes()
    furnished.do("/volumes/db", "delete", force="yes")
    assert furnished.do("/volumes", "list") == ()
    assert furnished.sp.exposures == ()
    assert furnished.store.dropped == [volume.wwn]


def test_a_delete_that_fails_gives_the_hosts_their_volume_back(furnished: Site) -> None:
    before = furnished.snapshot()
    furnished.sp.fail = "delete_volume"
    with pytest.raises(TiergateError, match="on purpose"):
        furnished.do("/volumes/db", "delete", force="yes")
    assert furnished.snapshot() == before


def test_the_tree_leads_from_the_volume_to_the_alus(furnished: Site) -> None:
    tree = furnished.do("/volumes/db", "tree")
    lines = []

    def walk(node: TreeNode, depth: int = 0) -> None:
        lines.append(
            "  " * depth + node.name.split()[0] + (f" {node.summary.split(',')[0]}" if not node.children else "")
        )
        for child in node.children:
            walk(child, depth + 1)

    walk(tree)
    assert lines == [
        "volume",
        "  stripe",
        "    mirror",
        "      partition a0",
        "      partition a1",
        "    mirror",
        "      partition a2",
        "      partition a3",
    ]


def test_volumes_are_found_again_when_the_settings_are_lost(furnished: Site) -> None:
    """R3: definitions live on the ALUs; attaching them by their paths is enough."""
    furnished.store.settings = type(furnished.store.settings)()
    again = furnished.restarted()
    for number in range(4):
        again.do("/alus", "attach", path=f"/x/a{number}.img")
    info = again.do("/volumes/db", "info")
    assert info.alus == ("a0", "a1", "a2", "a3")
    assert info.iscsi_urls == ()


def test_a_volume_is_exposed_to_a_host_that_is_made_for_it(furnished: Site) -> None:
    """R14: one line instead of two."""
    outcome = furnished.do("/volumes/db", "expose", host="web2", iqn="iqn.2026-01.org.example:web2")
    assert outcome.message == "volume db is exposed to host web2 as lun 0"
    assert furnished.do("/hosts/web2", "info").volumes == ("db",)
    assert not furnished.do("/volumes/db", "expose", host="web2", iqn="iqn.2026-01.org.example:web2").changed


def test_a_host_that_is_there_keeps_its_initiator_name(furnished: Site) -> None:
    with pytest.raises(UsageError, match=r"host web1 logs in as iqn\.2026-01\.org\.example:web1, not as"):
        furnished.do("/volumes/db", "expose", host="web1", iqn="*")


def test_a_host_made_for_any_initiator_is_told(furnished: Site) -> None:
    outcome = furnished.do("/volumes/db", "expose", host="all", iqn="*")
    assert "host all is open: any initiator may log in as it" in outcome.notes
