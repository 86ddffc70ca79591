"""Plans for LIO: from anything to anything, in an order that the kernel takes, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.lio.plan import (
    MakeFolder,
    MakeLink,
    NotOurs,
    Present,
    RemoveFolder,
    RestoreReservations,
    Set,
    Step,
    after,
    plan,
)
from appliance.lio.tree import ENABLE, HBA, OPEN, Disk, Group, Kind, Node, Site, Tree, lun_numbers, numbers_in, wanted
from appliance.messages import Exposure, HostDefinition
from backstores.wwn import Wwn
from tests.support.lio_kernel import LioKernel

SITE = Site("1a2b3c4d", "iqn.2026-11.example.tiergate:t1", (Group(1, ("127.0.0.1:3260",)),))
TWO = Site("1a2b3c4d", SITE.iqn, (Group(1, ("127.0.0.1:3260",)), Group(2, ("10.0.0.1:3260",), "san")))
MOVED = Site("1a2b3c4d", SITE.iqn, (Group(1, ("10.0.0.1:3260",), "san"), Group(2, ("127.0.0.1:3260", "[::1]:3260"))))
VOLUMES = tuple(Wwn(f"6025447{number:025x}") for number in range(4))
HOSTS = ("web1", "web2", "open")


@st.composite
def trees(draw: st.DrawFn, *sites: Site) -> dict[str, Node]:
    """Anything that an appliance can want: volumes on line, hosts with and without CHAP, exposures; or nothing.

    One portal group, or several, which may change from one tree to the other.
    """
    if not draw(st.integers(0, 5)):
        return {}
    site = draw(st.sampled_from(sites or (SITE, TWO, MOVED)))
    sizes = draw(st.dictionaries(st.sampled_from(VOLUMES), st.integers(1, 3).map(lambda n: n << 20)))
    disks = {wwn: Disk(wwn, size, 512) for wwn, size in sizes.items()}
    hosts = [
        HostDefinition(
            name=name,
            iqn=OPEN if name == "open" else f"iqn.2026-01.example:{name}",
            chap_user=name if secret else "",
            chap_secret=secret,
        )
        for name, secret in draw(st.dictionaries(st.sampled_from(HOSTS), st.sampled_from(("", "one", "two")))).items()
    ]
    rows = draw(st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(VOLUMES), st.integers(0, 5)), max_size=8))
    by_lun = {(host, lun): volume for host, volume, lun in rows}
    exposures = [Exposure(host=host, volume=volume, lun=lun) for (host, lun), volume in by_lun.items()]
    exposures = [row for row in exposures if row.host in {host.name for host in hosts}]
    return wanted(site, disks, hosts, exposures, lun_numbers(hosts, exposures, {}))


def kernel_with(tree: Tree) -> LioKernel:
    kernel = LioKernel()
    kernel.run(plan(kernel.present, tree))
    return kernel


@given(first=trees(), second=trees())
def test_any_tree_becomes_any_other_and_then_nothing_is_left_to_do(first: Tree, second: Tree) -> None:
    """R31: LIO's tree is derived from our settings, and the kernel takes each step in its order."""
    kernel = kernel_with(first)
    kernel.run(plan(kernel.present, second))
    assert kernel.present.nodes == second
    assert kernel.present.handled == {path for path, node in second.items() if node.kind is Kind.BACKSTORE}
    assert plan(kernel.present, second) == []


@given(data=st.data(), first=trees(), second=trees(), third=trees())
@settings(max_examples=200)
def test_a_kill_between_any_two_steps_is_recovered_from(data: st.DataObject, first: Tree, second: Tree, third: Tree):
    """R31: a successor takes over whatever a killed appliance has left, half made or half removed."""
    kernel = kernel_with(first)
    steps = plan(kernel.present, second)
    kernel.run(steps[: data.draw(st.integers(0, len(steps)))])
    kernel.killed()
    kernel.run(plan(kernel.present, third))
    assert kernel.present.nodes == third


@given(data=st.data(), first=trees(), second=trees())
def test_a_plan_that_failed_half_way_is_undone(data: st.DataObject, first: Tree, second: Tree) -> None:
    """R31: nothing half made is left in configfs."""
    kernel = kernel_with(first)
    steps = plan(kernel.present, second)
    kernel.run(steps[: data.draw(st.integers(0, len(steps)))])
    kernel.run(plan(kernel.present, first))
    assert kernel.present.nodes == first


OTHER = Site("99999999", "iqn.2026-11.example:other", (Group(1, ("127.0.0.1:1",)),))


@given(first=trees(), second=trees(), theirs=trees(OTHER))
def test_what_others_have_made_is_not_touched(first: Tree, second: Tree, theirs: Tree) -> None:
    """R31: only what we own is changed; a folder of ours with something of theirs in it stays."""
    foreign = frozenset({*theirs, f"{HBA}/somebody-else"}) - {HBA}
    kernel = LioKernel(Present({HBA: Node(Kind.HBA)}, foreign))
    kernel.run(plan(kernel.present, first))
    kernel.run(plan(kernel.present, second))
    kernel.run(plan(kernel.present, {}))
    assert kernel.present.nodes == {HBA: Node(Kind.HBA)}
    assert kernel.present.foreign == foreign


@pytest.mark.parametrize(
    "path", [SITE.target, SITE.group(1), SITE.backstore(VOLUMES[0])], ids=["target", "portal group", "backstore"]
)
def test_a_namesake_that_is_not_ours_is_refused(path: str) -> None:
    """R31: we neither change it nor build into it."""
    disks = {VOLUMES[0]: Disk(VOLUMES[0], 1 << 20, 512)}
    host = HostDefinition(name="web1", iqn="iqn.2026-01.example:web1")
    exposures = [Exposure(host="web1", volume=VOLUMES[0], lun=0)]
    tree = wanted(SITE, disks, [host], exposures, {VOLUMES[0]: 0})
    with pytest.raises(NotOurs, match="was not made by this appliance"):
        plan(Present({}, frozenset({path})), tree)


def tree_of(count: int) -> dict[str, Node]:
    volumes = [Wwn(f"6025447{number:025x}") for number in range(count)]
    disks = {wwn: Disk(wwn, 1 << 20, 512) for wwn in volumes}
    host = HostDefinition(name="web1", iqn="iqn.2026-01.example:web1")
    exposures = [Exposure(host="web1", volume=wwn, lun=lun) for lun, wwn in enumerate(volumes)]
    return wanted(SITE, disks, [host], exposures, lun_numbers([host], exposures, {}))


@pytest.mark.parametrize("there", [1, 250])
def test_one_more_lun_costs_the_same_however_many_there_are(there: int) -> None:
    """R31: no rescan, no step for what has not changed."""
    kernel = kernel_with(tree_of(there))
    new = plan(kernel.present, tree_of(there + 1))
    assert len(new) == len(plan(kernel_with(tree_of(2)).present, tree_of(3)))
    assert not any(isinstance(step, RemoveFolder) for step in new)


def test_growth_is_one_write() -> None:
    """R16: hosts stay logged in, and their LUN stays where it is."""
    tree = tree_of(2)
    kernel = kernel_with(tree)
    path = SITE.backstore(VOLUMES[0])
    grown = {**tree, path: Node(Kind.BACKSTORE, {**tree[path].settings, "attrib/dev_size": str(2 << 20)})}
    assert plan(kernel.present, grown) == [Set(path, "attrib/dev_size", str(2 << 20))]


def test_a_portal_group_is_enabled_last_and_disabled_first() -> None:
    """R15: no host ever sees a half of what it should."""
    kernel = kernel_with({})
    building = plan(kernel.present, tree_of(2))
    assert building.index(Set(SITE.group(1), ENABLE, "1")) == len(building) - 1
    kernel.run(building)
    assert plan(kernel.present, {})[0] == Set(SITE.group(1), ENABLE, "0")


def test_another_secret_ends_the_sessions_that_knew_the_old_one() -> None:
    """R33: the ACL is made anew, which logs its initiator out."""

    def tree(secret: str) -> dict[str, Node]:
        host = HostDefinition(name="web1", iqn="iqn.2026-01.example:web1", chap_user="web1", chap_secret=secret)
        return wanted(SITE, {}, [host], [], {})

    kernel = kernel_with(tree("one"))
    steps: list[Step] = plan(kernel.present, tree("two"))
    assert steps[0] == RemoveFolder(f"{SITE.group(1)}/acls/iqn.2026-01.example:web1")


@pytest.mark.parametrize("sees", [True, False], ids=["sees a volume", "sees nothing"])
def test_strangers_are_let_in_and_told_of_the_target_only_by_an_open_host_that_sees_something(sees: bool) -> None:
    """R15 (S2): by default nobody but known initiators is."""
    disks = {VOLUMES[0]: Disk(VOLUMES[0], 1 << 20, 512)}
    exposures = [Exposure(host="open", volume=VOLUMES[0], lun=4)] if sees else []
    tree = wanted(SITE, disks, [HostDefinition(name="open", iqn=OPEN)], exposures, {VOLUMES[0]: 4})
    found = tree[SITE.group(1)].settings
    told = {name: found[f"attrib/{name}"] for name in ("generate_node_acls", "demo_mode_discovery")}
    assert set(told.values()) == {"1" if sees else "0"}
    assert found["attrib/authentication"] == ("0" if sees else "1")


def test_secrets_stay_out_of_what_may_be_logged() -> None:
    """R33 (S2): neither a node nor a step shows them."""
    host = HostDefinition(name="web1", iqn="iqn.2026-01.example:web1", chap_user="web1", chap_secret="geheimnis")
    tree = wanted(SITE, {}, [host], [], {})
    steps = plan(Present({}), tree)
    present = Present({})
    for step in steps:
        present = after(present, step)
    assert "geheimnis" in str([node.settings for node in tree.values()])
    assert "geheimnis" not in repr((tree, steps, present))


@given(first=trees(), second=trees())
def test_volumes_keep_their_numbers_in_the_portal_group(first: Tree, second: Tree) -> None:
    """R31: a LUN that stays is not moved, unless the open host needs its number."""
    hosts = [HostDefinition(name="web1", iqn="iqn.2026-01.example:web1")]
    before = numbers_in(SITE, first)
    exposures = [Exposure(host="web1", volume=wwn, lun=lun) for lun, wwn in enumerate(VOLUMES)]
    numbers = lun_numbers(hosts, exposures, before)
    assert {wwn: numbers[wwn] for wwn in before} == before
    assert len(set(numbers.values())) == len(VOLUMES)


def test_by_each_portal_group_a_host_sees_the_same_backstore() -> None:
    """R31: two ways to one volume, so that they share its reservations; each portal listens in its own network."""
    disks = {VOLUMES[0]: Disk(VOLUMES[0], 1 << 20, 512)}
    web = HostDefinition(name="web1", iqn="iqn.2026-01.example:web1")
    tree = wanted(TWO, disks, [web], [Exposure(host="web1", volume=VOLUMES[0], lun=3)], {VOLUMES[0]: 7})
    for group in TWO.group_folders:
        assert tree[f"{group}/acls/{web.iqn}/lun_3"].link == f"{group}/lun/lun_7"
        assert tree[f"{group}/lun/lun_7"].link == TWO.backstore(VOLUMES[0])
    assert [node.kind for node in tree.values()].count(Kind.BACKSTORE) == 1
    portals = {path: node.namespace for path, node in tree.items() if node.kind is Kind.PORTAL}
    assert portals == {f"{TWO.group(1)}/np/127.0.0.1:3260": "", f"{TWO.group(2)}/np/10.0.0.1:3260": "san"}
    assert MakeFolder(f"{TWO.group(2)}/np/10.0.0.1:3260", Kind.PORTAL, "san") in plan(Present({}), tree)


def test_reservations_are_handed_to_a_new_backstore_alone() -> None:
    """R31: before the first LUN leads there, with the number of that LUN; one that outlived a kill has its own."""
    tree = tree_of(3)
    path = SITE.backstore(VOLUMES[2])
    steps = plan(Present({}), tree)
    restored = RestoreReservations(path, VOLUMES[2][-25:], 2)
    assert restored in steps
    assert steps.index(restored) < steps.index(MakeLink(f"{SITE.group(1)}/lun/lun_2", path))
    kernel = kernel_with(tree)
    kernel.killed()
    assert not [step for step in plan(kernel.present, tree) if isinstance(step, RestoreReservations)]
