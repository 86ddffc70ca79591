"""Reading configfs and explaining its refusals, on a folder of ordinary files that looks like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.lio import configfs
from appliance.lio.configfs import RESERVATIONS, Configfs, FolderStep, LioError
from appliance.lio.plan import (
    MakeFolder,
    MakeLink,
    Present,
    RemoveFolder,
    RemoveLink,
    RestoreReservations,
    Set,
    after,
    plan,
)
from appliance.lio.tree import ALIAS, HBA, NAMES, Disk, Group, Kind, Node, Site, wanted
from appliance.messages import Exposure, HostDefinition
from backstores.wwn import Wwn

SITE = Site("1a2b3c4d", "iqn.2026-11.example.tiergate:t1", (Group(1, ("127.0.0.1:3260",)),))
A = Wwn("6025447" + "0" * 24 + "1")
HOST = HostDefinition(name="web", iqn="iqn.2026-01.example:web", chap_user="web", chap_secret="geheim-und-lang")
FILLED = {  # what the kernel makes where a folder is made
    Kind.GROUP: ("lun", "acls", "np"),
    Kind.BACKSTORE: ("attrib", "wwn"),
}


def tree() -> dict[str, Node]:
    exposures = [Exposure(host="web", volume=A, lun=3)]
    return wanted(SITE, {A: Disk(A, 1 << 20, 512)}, [HOST], exposures, {A: 0})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "core").mkdir()
    (tmp_path / "iscsi").mkdir()
    (tmp_path / "dbroot").write_text(f"{tmp_path}/databases\n")
    return tmp_path


def build(root: Path, nodes: dict[str, Node]) -> Present:
    """Carry a plan out, with files made as the kernel would make them."""
    folders = Configfs(root)
    present = Present({})
    for step in plan(present, nodes):
        if isinstance(step, FolderStep):
            if isinstance(step, Set):
                file = root / step.path / step.name
                file.parent.mkdir(exist_ok=True)
                file.touch()
            folders.carry_out(step)
            if isinstance(step, MakeFolder):
                for name in FILLED.get(step.kind, ()):
                    (root / step.path / name).mkdir()
        present = after(present, step)
    for path in (path for path, node in nodes.items() if node.kind is Kind.BACKSTORE):
        parts = dict(part.split("=") for part in nodes[path].settings["control"].split(","))
        for name, value in parts.items():
            (root / path / "attrib" / name).write_text(f"{value}\n")
        serial = root / path / "wwn" / "vpd_unit_serial"
        serial.write_text(f"T10 VPD Unit Serial Number: {serial.read_text()}\n")
    return present


def test_what_was_made_reads_as_it_was_wanted(root: Path) -> None:
    """R31: a successor knows its predecessor's tree again, and has nothing to make anew."""
    build(root, tree())
    found = Configfs(root).read(SITE)
    assert found.nodes == tree()
    assert found.foreign == frozenset()


def test_things_of_others_are_told_from_ours(root: Path) -> None:
    """R31: in our HBA, beside it, and in other targets."""
    build(root, tree())
    strange = [f"{HBA}/theirs", f"{HBA}/tiergate-99999999-{A}", f"{SITE.target}/tpgt_2"]
    for path in (*strange, "core/user_0/theirs", "iscsi/iqn.2026-11.example:theirs/tpgt_1"):
        for below in ("lun/lun_0", "acls", "np"):
            (root / path / below).mkdir(parents=True)
    (root / SITE.target / "tpgt_2/param").mkdir()
    (root / SITE.target / "tpgt_2" / ALIAS).write_text("LIO Target\n")
    found = Configfs(root).read(SITE)
    assert found.foreign == {*strange, SITE.target}
    assert found.nodes.keys() == tree().keys() - {SITE.target}


@pytest.mark.parametrize(("enabled", "ours"), [("0", True), ("1", False)], ids=["bare", "in use"])
def test_a_portal_group_without_our_alias_is_ours_only_while_it_is_bare(root: Path, enabled: str, ours: bool) -> None:
    """R31: a start that was killed between its first two steps is gone on with; a target in use is not taken."""
    group = root / SITE.group(1)
    for name in ("lun", "acls", "np"):
        (group / name).mkdir(parents=True)
    for name in NAMES[Kind.GROUP]:
        (group / name).parent.mkdir(exist_ok=True)
        (group / name).write_text("")
    (group / ALIAS).write_text("LIO Target\n")
    (group / "enable").write_text(f"{enabled}\n")
    found = Configfs(root).read(SITE)
    assert (SITE.group(1) in found.nodes, SITE.target in found.foreign) == (ours, not ours)


def test_secrets_that_are_not_set_are_written_as_the_kernel_wants_it(root: Path) -> None:
    """R33: to the kernel NULL means none, and it reads back so."""
    build(root, tree())
    acl = root / SITE.group(1) / "acls" / HOST.iqn / "auth"
    assert (acl / "userid_mutual").read_text() == "NULL"
    assert (acl / "password").read_text() == HOST.chap_secret


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (MakeFolder("no/np/127.0.0.1:3260", Kind.PORTAL), "can't listen on 127.0.0.1:3260.*--portal ADDRESS:PORT"),
        (MakeFolder("np/192.0.2.1:3260", Kind.PORTAL), "can't listen on 192.0.2.1:3260.*not ours .*assign requested"),
        (MakeFolder("np/[2001:db8::1]:1", Kind.PORTAL), r"can't listen on \[2001:db8::1\]:1.*not ours"),
        (MakeFolder("no/iqn.x", Kind.TARGET), "refuses the target name iqn.x.*--iqn"),
        (MakeFolder("no/acls/iqn.x", Kind.ACL), "refuses the initiator name iqn.x"),
        (MakeLink("no/lun/lun_0", "core"), "refuses MakeLink at no/lun/lun_0"),
        (RemoveFolder("no/lun/lun_0"), "refuses RemoveFolder at no/lun/lun_0"),
        (RemoveLink("no/lun/lun_0"), "refuses RemoveLink at no/lun/lun_0"),
        (Set("no", "auth/password", "geheim-und-lang"), "has no no/auth/password; Linux 6.0 or later"),
    ],
    ids=["portal", "address of nobody", "of IPv6", "target", "acl", "link", "busy folder", "no link", "setting"],
)
def test_a_refusal_says_what_and_what_to_do_but_no_value(root: Path, step: FolderStep, said: str) -> None:
    """R31: and the step's place, by which its volume is found."""
    with pytest.raises(LioError, match=said) as failure:
        Configfs(root).carry_out(step)
    assert failure.value.path == step.path
    assert "geheim" not in str(failure.value)


def test_portals_of_other_networks_read_as_they_were_wanted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R31: each is made in its namespace, and the alias of its group says in which."""
    made: list[tuple[str, str]] = []

    def inside(namespace: str, work: Callable[[], None]) -> None:
        before = set(root.glob("iscsi/*/*/np/*"))
        work()
        made.extend((namespace, path.name) for path in set(root.glob("iscsi/*/*/np/*")) - before)

    monkeypatch.setattr(configfs, "inside", inside)
    site = replace(SITE, groups=(*SITE.groups, Group(2, ("127.0.0.2:3260",), "san")))
    nodes = wanted(site, {}, [HOST], [], {})
    build(root, nodes)
    assert sorted(made) == [("", "127.0.0.1:3260"), ("san", "127.0.0.2:3260")]
    assert Configfs(root).read(site).nodes == nodes


def test_a_group_of_an_appliance_with_a_longer_mark_is_not_ours() -> None:
    site = replace(SITE, mark="1a2b")
    assert [site.namespace_in(SITE.alias()), SITE.namespace_in(SITE.alias("san")), site.namespace_in("LIO Target")] == [
        None,
        "san",
        None,
    ]


def test_reservations_that_were_kept_are_handed_over_one_by_one(root: Path) -> None:
    """R31: and what the kernel does not take is told with the file that it comes from."""
    kept = root / "databases" / "pr" / "aptpl_123"
    kept.parent.mkdir(parents=True)
    kept.write_text("PR_REG_START: 0\nsa_res_key=1\ntarget_lun=0\nPR_REG_END: 0\n")
    step = RestoreReservations("core/v", "123", 4)
    with pytest.raises(LioError, match=r"kept for v can't be restored .* remove pr/aptpl_123"):
        Configfs(root).carry_out(step)
    metadata = root / "core/v" / RESERVATIONS
    metadata.parent.mkdir(parents=True)
    metadata.touch()
    Configfs(root).carry_out(step)
    assert metadata.read_text() == "sa_res_key=1,target_lun=4"
