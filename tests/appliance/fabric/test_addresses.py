"""Everyone's address on each fabric follows from the topology (R19)."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from appliance.fabric.addresses import Plan, same_fabric
from appliance.portals import PortalAddress
from appliance.topologyfile import generate, read_topology


def test_on_loopback_a_fabric_is_a_network() -> None:
    plan = Plan(generate(2))
    second = plan.topology.sps[1]
    assert plan.internal(second) == (PortalAddress("127.101.0.2", 3260), PortalAddress("127.102.0.2", 3260))
    assert [str(plan.port(port)) for port in plan.topology.ports_of("sp2")] == ["127.103.0.2:3260", "127.104.0.2:3260"]
    assert plan.bus() == ("127.101.255.1:3261", "127.102.255.1:3261")


def test_in_namespaces_each_sp_has_its_own() -> None:
    plan = Plan(generate(1), "tg00")
    [port, _] = plan.topology.ports
    assert str(plan.port(port)) == "tg00-sp1/10.103.0.1:3260"


def test_an_sp_looks_for_the_vcm_where_it_is_connected() -> None:
    topology = read_topology("sps: [{name: s, internal: [int2]}]", PurePath("/"))
    plan = Plan(topology)
    assert plan.bus_of(topology.sps[0]) == ("127.102.255.1:3261",)


def test_a_port_may_have_an_address_of_its_own() -> None:
    topology = read_topology("{sps: 1, ports: [{sp: sp1, fabric: hostA, address: '192.0.2.1:1000'}]}", PurePath("/"))
    assert str(Plan(topology).port(topology.ports[0])) == "192.0.2.1:1000"


def test_addresses_that_are_given_do_not_follow() -> None:
    """R9: those of another machine, and the VCM's as seen from there."""
    text = "{sps: [{name: s, elsewhere: true, addresses: {int2: 192.0.2.7}}], vcm: {int2: 192.0.2.1}}"
    topology = read_topology(text, PurePath("/"))
    plan = Plan(topology)
    assert [portal.address for portal in plan.internal(topology.sps[0])] == ["127.101.0.1", "192.0.2.7"]
    assert plan.bus() == ("127.101.255.1:3261", "192.0.2.1:3261")
    assert Plan(topology, joined=("192.0.2.9:1",)).bus_of(topology.sps[0]) == ("192.0.2.9:1",)


@pytest.mark.parametrize("prefix", ["", "tg00"], ids=["loopback", "namespaces"])
def test_no_two_things_have_one_address(prefix: str) -> None:
    """Not in the largest system, either."""
    plan = Plan(generate(1000), prefix)
    found = [plan.sp(sp, fabric) for sp, fabric in plan.topology.links()]
    found += [plan.vcm(fabric) for fabric in plan.topology.fabrics]
    assert len(set(found)) == len(found)


def test_addresses_tell_the_fabric() -> None:
    plan = Plan(generate(300))
    first, second, *_ = plan.topology.fabrics
    near, far = plan.topology.sps[0], plan.topology.sps[-1]
    assert same_fabric(plan.sp(near, first), plan.sp(far, first))
    assert not same_fabric(plan.sp(near, first), plan.sp(near, second))
