"""Which address everyone has on each fabric: follows from the topology alone, so that nobody has to be asked.

A fabric is a network of 16 bits, and in it SP number 258 has the address ...1.2. On loopback fabric 1 is 127.101.0.0,
in namespaces 10.101.0.0. Fabrics of two appliances on one machine differ in their ports then, or in their names.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from appliance.portals import PortalAddress
from appliance.topology import Fabric, FabricKind, Host, Port, Sp, Topology

PREFIX_BITS: Final = 16
FIRST_NETWORK: Final = 100  # so that people tell a fabric's addresses from others
LOOPBACK: Final = 127
PRIVATE: Final = 10  # RFC 1918
HOSTS_FROM: Final = 0xF000  # beyond the SPs
VCM_NUMBER: Final = 0xFF01


def same_fabric(one: str, other: str) -> bool:
    """Whether two addresses of a plan are on one fabric."""
    network = ipaddress.ip_network(f"{one}/{PREFIX_BITS}", strict=False)
    return ipaddress.ip_address(other) in network


@dataclass(frozen=True, slots=True)
class Plan:
    """All addresses. ``prefix`` is what the names of this appliance's namespaces begin with; "" is loopback.

    ``joined`` is where the VCM was found, for an SP that has joined from another machine.
    """

    topology: Topology
    prefix: str = ""
    joined: tuple[str, ...] = ()

    def address(self, number: int, fabric: Fabric) -> str:
        """Give the address that number so-and-so has on a fabric."""
        first = PRIVATE if self.prefix else LOOPBACK
        return f"{first}.{FIRST_NETWORK + fabric.number}.{number >> 8}.{number & 0xFF}"

    def namespace(self, name: str) -> str:
        """Name the network namespace of an SP or host; "" is the one in which we are."""
        return f"{self.prefix}-{name}" if self.prefix else ""

    def sp(self, sp: Sp, fabric: Fabric) -> str:
        """Give an SP's address on a fabric."""
        return dict(sp.addresses).get(fabric.name) or self.address(sp.number, fabric)

    def host(self, host: Host, fabric: Fabric) -> str:
        """Give a host's address on a fabric, when it is one of ours."""
        return self.address(HOSTS_FROM + host.number, fabric)

    def vcm(self, fabric: Fabric) -> str:
        """Give the VCM's address on an internal fabric."""
        return dict(self.topology.vcm).get(fabric.name) or self.address(VCM_NUMBER, fabric)

    def bus(self) -> tuple[str, ...]:
        """Where the VCM listens for all others: ``address:port`` on each internal fabric."""
        fabrics = self.topology.of_kind(FabricKind.INTERNAL)
        return tuple(f"{self.vcm(fabric)}:{self.topology.bus_port}" for fabric in fabrics)

    def bus_of(self, sp: Sp) -> tuple[str, ...]:
        """Where an SP finds the VCM: on the internal fabrics that it is on."""
        if self.joined:
            return self.joined
        fabrics = self.topology.of_kind(FabricKind.INTERNAL)
        return tuple(where for fabric, where in zip(fabrics, self.bus(), strict=True) if fabric.name in sp.internal)

    def internal(self, sp: Sp) -> tuple[PortalAddress, ...]:
        """Where an SP shows its first tier to other SPs."""
        fabrics = self.topology.of_kind(FabricKind.INTERNAL)
        return tuple(
            PortalAddress(self.sp(sp, fabric), self.topology.port, self.namespace(sp.name))
            for fabric in fabrics
            if fabric.name in sp.internal
        )

    def port(self, port: Port) -> PortalAddress:
        """Where hosts log in at a port."""
        sp, fabric = self.topology.sp(port.sp), self.topology.fabric(port.fabric)
        assert sp is not None
        assert fabric is not None
        return PortalAddress(port.address or self.sp(sp, fabric), port.port, self.namespace(sp.name))
