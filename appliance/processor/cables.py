"""Has the links of a storage processor fail and come back (R19).

Every storage processor hears of every fault, and does its part. On loopback there are no cables: who has lost a link
closes what listens there, and all others turn away what comes from its address, so that nothing passes in either
direction. In namespaces the link itself is set down.

The VCM keeps one way to each storage processor whatever fails: it stands for the dedicated path of paragraph 048.
Without it nobody could be told that a fault is over.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Protocol

from appliance.fabric.addresses import Plan
from appliance.fabric.faults import Link, check_part, lost_alus, severed
from appliance.portals import PortalAddress
from appliance.topology import FabricKind, Sp, Topology


class Hands(Protocol):
    """What makes it so; ``LoopbackHands`` here, ``appliance.fabric.cables.NamespaceHands`` where there are cables."""

    async def sever(self, links: Set[Link]) -> None:
        """Make these the links that are severed; what was severed before and is not among them comes back."""


LoseAlus = Callable[[Set[str]], None]
"""Has the ALUs at exactly these paths fail."""


class Listener(Protocol):
    """What listens on several addresses, each of which can be closed and opened."""

    async def listen_only(self, addresses: Set[PortalAddress]) -> None:
        """Listen on these of its addresses, and on no other."""

    def turn_away(self, sources: Set[str]) -> None:
        """End what comes from these addresses, and let in no more from them."""


class LoopbackHands:
    """Without root: doors are closed. ``cut_bus`` is given the numbers of the internal fabrics that are lost."""

    def __init__(
        self, plan: Plan, sp: Sp, internal: Listener, hosts: Listener, cut_bus: Callable[[Set[int]], None]
    ) -> None:
        self._plan = plan
        self._sp = sp
        self._internal = internal
        self._hosts = hosts
        self._cut_bus = cut_bus

    async def sever(self, links: Set[Link]) -> None:
        """Close doors of ours, and turn away who has lost its link."""
        lost = {link.fabric for link in links if link.sp == self._sp.name}
        topology = self._plan.topology
        inner = zip(self._sp.internal, self._plan.internal(self._sp), strict=True)
        self._internal.turn_away(_addresses(links, self._plan))
        await self._internal.listen_only({address for fabric, address in inner if fabric not in lost})
        ports = topology.ports_of(self._sp.name)
        await self._hosts.listen_only({self._plan.port(port) for port in ports if port.fabric not in lost})
        ways = {number for number, fabric in enumerate(self._sp.internal) if fabric in lost}
        self._cut_bus(ways if len(ways) < len(self._sp.internal) else set())


class Cables:
    """The faults in force.

    ``hands`` have links fail, where they are at hand; ``lose_alus`` has ALUs fail that are out of ``sp``'s reach.
    """

    def __init__(
        self,
        topology: Topology,
        hands: Hands | None,
        sp: str = "",
        lose_alus: LoseAlus = lambda paths: None,
    ) -> None:
        self._topology = topology
        self._hands = hands
        self._sp = sp
        self._lose_alus = lose_alus
        self._failed: set[str] = set()

    async def set(self, part: str, failed: bool) -> None:
        """Fail a part, or restore it.

        Raises:
            UsageError: there is no such part.
            TiergateError: it could not be done.
        """
        check_part(part, self._topology)
        wanted = self._failed | {part} if failed else self._failed - {part}
        if self._hands is not None:
            await self._hands.sever(severed(wanted, self._topology))
        self._lose_alus(lost_alus(wanted, self._topology, self._sp))
        self._failed = wanted


def _addresses(links: Set[Link], plan: Plan) -> set[str]:
    """Give the addresses on internal fabrics that nothing can come from."""
    return {
        plan.sp(sp, fabric)
        for sp, fabric in plan.topology.links()
        if fabric.kind == FabricKind.INTERNAL and Link(sp.name, fabric.name) in links
    }
