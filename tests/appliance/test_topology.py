"""Topologies: what a file means, what is made up, and what is refused (R19)."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from appliance.topology import FabricKind, Topology
from appliance.topologyfile import generate, read_topology
from backstores.errors import UsageError

STATE = PurePath("/state")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def read(text: str) -> Topology:
    return read_topology(text, STATE)


def test_one_line_is_a_whole_file() -> None:
    """R19: two fabrics of each kind, and every SP is on all of them."""
    topology = read("sps: 6")
    assert topology == generate(6)
    assert [(blade.name, blade.sps) for blade in topology.blades] == [
        ("b1", ("sp1", "sp2", "sp3", "sp4")),
        ("b2", ("sp5", "sp6")),
    ]
    assert [fabric.name for fabric in topology.fabrics] == ["int1", "int2", "hostA", "hostB", "stoA", "stoB"]
    assert {(sp.name, fabric.name) for sp, fabric in topology.links()} == {
        (sp.name, fabric.name) for sp in topology.sps for fabric in topology.fabrics
    }
    assert [port.name for port in topology.ports_of("sp2")] == ["sp2/hostA", "sp2/hostB"]
    assert (topology.port, topology.bus_port) == (3260, 3261)


def test_the_first_sps_of_alus_differ_so_that_each_sp_has_some() -> None:
    """R12: the first SP of an ALU has its T1 objects."""
    topology = read("{sps: 3, alus: [{name: a, path: a}, {name: b, path: b}, {name: c, path: c}, {name: d, path: d}]}")
    assert [alu.sps for alu in topology.alus] == [
        ("sp1", "sp2", "sp3"),
        ("sp2", "sp3", "sp1"),
        ("sp3", "sp1", "sp2"),
        ("sp1", "sp2", "sp3"),
    ]
    assert [(path.sp, path.fabric) for path in topology.alus[0].paths[:2]] == [("sp1", "stoA"), ("sp1", "stoB")]


@pytest.mark.parametrize(("given", "taken"), [("a.img", "/state/a.img"), ("/dev/sdb", "/dev/sdb")])
def test_a_path_begins_at_the_state_folder(given: str, taken: str) -> None:
    [alu] = read(f"{{sps: 1, alus: [{{name: a, path: {given}, size: 64M}}]}}").alus
    assert (alu.path, alu.size_bytes) == (taken, 64 << 20)


def test_a_host_is_on_the_ports_of_its_fabrics() -> None:
    topology = read("{sps: 2, hosts: [{name: h, iqn: 'iqn.2026-11.example:h', fabrics: [hostB]}]}")
    assert [port.name for port in topology.hosts[0].ports] == ["sp1/hostB", "sp2/hostB"]


def test_a_host_may_be_on_some_ports_alone() -> None:
    topology = read("{sps: 2, hosts: [{name: h, iqn: 'iqn.2026-11.example:h', ports: [sp2/hostA]}]}")
    assert [port.name for port in topology.hosts[0].ports] == ["sp2/hostA"]
    assert topology.hosts[0].fabrics == ("hostA",)


def test_ports_may_have_addresses_of_their_own() -> None:
    topology = read(
        "{sps: 1, ports: [{sp: sp1, fabric: hostA, address: '[2001:db8::1]:3000'}, {sp: sp1, fabric: hostB}]}"
    )
    assert [(port.address, port.port) for port in topology.ports] == [("2001:db8::1", 3000), (None, 3260)]


def test_figure_10_is_an_example() -> None:
    """R19: four blades, sixteen SPs; 1 to 8 face hosts, 9 to 16 storage; ALUs behind both storage fabrics."""
    text = (Path(__file__).parents[2] / "examples/fig10.yaml").read_text()
    topology = read(text)
    assert [len(blade.sps) for blade in topology.blades] == [4, 4, 4, 4]
    assert [(sp.host, sp.storage) for sp in topology.sps] == (
        [(("hostA",), ())] * 4 + [(("hostB",), ())] * 4 + [((), ("stoA",))] * 4 + [((), ("stoB",))] * 4
    )
    assert all(sp.internal == ("int1", "int2") for sp in topology.sps)
    assert [len(topology.of_kind(kind)) for kind in FabricKind] == [2, 2, 2]
    for alu in topology.alus:
        assert {path.fabric for path in alu.paths} == {"stoA", "stoB"}
    assert len(topology.hosts[0].ports) == 8


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_can_be_read(example: Path) -> None:
    assert read(example.read_text()).sps


BAD = {
    "an SP on two blades": (
        "blades: [{name: b1, sps: [s]}, {name: b2, sps: [s]}]",
        "sp s is on blade b1 and on blade b2; it can be on one",
    ),
    "an SP on no blade": (
        "{sps: [{name: s}, {name: t}], blades: [{name: b1, sps: [s]}]}",
        "sp t is on no blade; there is b1",
    ),
    "a blade of an unknown SP": ("{sps: 1, blades: [{name: b1, sps: [sp9]}]}", "blade b1: there is no sp 'sp9'"),
    "a link to nothing": (
        "sps: [{name: s, host: [hostC]}]",
        "sp s: there is no host fabric 'hostC'; there is hostA, hostB",
    ),
    "a link of another kind": (
        "sps: [{name: s, host: [stoA]}]",
        "sp s: there is no host fabric 'stoA'; there is hostA, hostB",
    ),
    "a link twice": ("sps: [{name: s, storage: [stoA, stoA]}]", "sp s: storage fabric 'stoA' is there 2 times"),
    "an SP nobody reaches": ("sps: [{name: s, internal: []}]", "sp s is on no internal fabric"),
    "an SP name twice": ("sps: [{name: s}, {name: s}]", "sp 's' is there 2 times"),
    "a fabric name twice": ("{sps: 1, fabrics: {host: [stoA]}}", "fabric 'stoA' is there 2 times"),
    "a blade name twice": ("blades: [{name: b, sps: [s]}, {name: b, sps: [t]}]", "blade 'b' is there 2 times"),
    "an ALU name twice": ("{sps: 1, alus: [{name: a, path: a}, {name: a, path: b}]}", "alu 'a' is there 2 times"),
    "an ALU path twice": (
        "{sps: 1, alus: [{name: a, path: a}, {name: b, path: /state/a}]}",
        "alu path '/state/a' is there 2 times",
    ),
    "a host name twice": (
        "{sps: 1, hosts: [{name: h, iqn: 'iqn.2026-11.example:h'}, {name: h, iqn: 'iqn.2026-11.example:i'}]}",
        "host 'h' is there 2 times",
    ),
    "a name of another process": ("sps: [{name: vcm}]", "sp vcm has a name that another process has"),
    "a name of strange letters": ("sps: [{name: 's p'}]", "sp name 's p' is not a letter with up to 31"),
    "an ALU on no SP": ("{sps: 2, alus: [{name: a, path: a, sps: []}]}", "alu a is on no sp; there is sp1, sp2"),
    "an ALU on no fabric": ("{sps: 2, alus: [{name: a, path: a, fabrics: []}]}", "alu a is on no sp"),
    "an ALU of an unknown SP": ("{sps: 2, alus: [{name: a, path: a, sps: [sp3]}]}", "alu a: there is no sp 'sp3'"),
    "an ALU of an SP off its fabric": (
        "{sps: [{name: s, storage: [stoA]}], alus: [{name: a, path: a, sps: [s], fabrics: [stoB]}]}",
        "alu a: sp s is on none of its storage fabrics; it is on stoB",
    ),
    "an ALU of a bad size": ("{sps: 1, alus: [{name: a, path: a, size: 1X}]}", "alu a: size: '1X' is no size"),
    "a host on no port": (
        "{sps: 1, hosts: [{name: h, iqn: 'iqn.2026-11.example:h', ports: []}]}",
        "host h is on no port; there is sp1/hostA, sp1/hostB",
    ),
    "a host of an unknown port": (
        "{sps: 1, hosts: [{name: h, iqn: 'iqn.2026-11.example:h', ports: [sp1/hostC]}]}",
        "host h: there is no port 'sp1/hostC'; there is sp1/hostA, sp1/hostB",
    ),
    "a host without a name of its own": (
        "{sps: 1, hosts: [{name: h, iqn: nonsense}]}",
        "host h: iqn: 'nonsense' is no iSCSI name",
    ),
    "a port off its fabric": (
        "{sps: [{name: s, host: [hostA]}], ports: [{sp: s, fabric: hostB}]}",
        "port 's/hostB': sp s is not on fabric hostB; it is on hostA",
    ),
    "a port twice": ("{sps: 1, ports: [{sp: sp1, fabric: hostA}, {sp: sp1, fabric: hostA}]}", "port 'sp1/hostA' is"),
    "two ports at one address": (
        "{sps: 1, ports: [{sp: sp1, fabric: hostA, address: '192.0.2.1:1'}, "
        "{sp: sp1, fabric: hostB, address: '192.0.2.1:1'}]}",
        "port address '192.0.2.1:1' is there 2 times",
    ),
    "a port by name": (
        "{sps: 1, ports: [{sp: sp1, fabric: hostA, address: 'localhost:1'}]}",
        "address 'localhost:1' is not ADDRESS:PORT with a numeric address",
    ),
    "a port everywhere": (
        "{sps: 1, ports: [{sp: sp1, fabric: hostA, address: '0.0.0.0:3260'}]}",
        "address 0.0.0.0:3260 means all of them",
    ),
    "a port without a number": (
        "{sps: 1, ports: [{sp: sp1, fabric: hostA, address: '192.0.2.1:x'}]}",
        "has no port, such as 192.0.2.1:3260",
    ),
    "a port number too high": ("{sps: 1, port: 65536}", "port 65536 is not between 1 and 65535"),
    "no port left for the bus": ("{sps: 1, port: 65535}", "bus-port 65536 is not between 1 and 65535"),
    "one port for two things": ("{sps: 1, bus-port: 3260}", "bus-port 3260 is the port of the portals, too"),
    "an address on a fabric that it is not on": (
        "sps: [{name: s, host: [], addresses: {hostA: 192.0.2.1}}]",
        "sp s: addresses: there is no link to fabric 'hostA'; there is int1, int2, stoA, stoB",
    ),
    "an address that is none": (
        "sps: [{name: s, addresses: {int1: here}}]",
        "sp s: address 'here' on int1 is no numeric IPv4 address",
    ),
    "a VCM on a fabric for hosts": (
        "{sps: 1, vcm: {hostA: 192.0.2.1}}",
        "vcm: addresses: there is no link to fabric 'hostA'; there is int1, int2",
    ),
    "an unknown key": ("{sps: 1, colour: red}", "unknown field `colour`"),
    "an unknown key of an entry": ("sps: [{name: s, colour: red}]", "unknown field `colour`"),
    "no SP": ("sps: 0", "sps: 0 is not between 1 and 1000"),
    "nothing": ("{}", "sps: 0 is not between 1 and 1000"),
    "too many SPs": ("sps: 1001", "sps: 1001 is not between 1 and 1000"),
    "no internal fabric": ("{sps: 1, fabrics: {internal: []}}", "there is no internal fabric"),
    "too many fabrics": (
        f"{{sps: 1, fabrics: {{host: [{', '.join(f'h{number}' for number in range(13))}]}}}}",
        "fabrics: 17 are more than 16",
    ),
    "no mapping": ("- sps", "the file is no topology"),
    "no YAML": ("sps: [", "the file is no topology"),
    "an alias": ("sps: &a [*a]", "line 1 of the file has an alias"),
    "a tag": ("sps: !!python/object:os.system 1", "line 1 of the file has a tag"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_is_no_topology_is_refused_by_its_name(text: str, message: str) -> None:
    """R19: one line, with what is possible."""
    with pytest.raises(UsageError) as refused:
        read(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
