"""Parts of a system that were failed on purpose, and what is severed by that (R19). No I/O.

link:sp1/int1   an SP's link to a fabric      port:sp1/hostA   its port for hosts, which is its link there
fabric:int1     the links of all SPs to it    sp:sp1, blade:b1   processes: the supervisor ends them
alu:a0          an ALU that the topology names; lost, too, to an SP whose links to it have all failed
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.mic.values import shown
from appliance.topology import Alu, FabricKind, Topology
from backstores.errors import UsageError

LINK: Final = "link"
PORT: Final = "port"
FABRIC: Final = "fabric"
SP: Final = "sp"
BLADE: Final = "blade"
ALU: Final = "alu"
MOST_SHOWN: Final = 8  # names that an error line lists


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """An SP on a fabric."""

    sp: str
    fabric: str

    @property
    def name(self) -> str:
        """As commands have it."""
        return f"{self.sp}/{self.fabric}"


def possible(topology: Topology) -> dict[str, tuple[str, ...]]:
    """List what can be failed, by its kind."""
    links = [(Link(sp.name, fabric.name), fabric.kind) for sp, fabric in topology.links()]
    return {
        LINK: tuple(link.name for link, _ in links),
        PORT: tuple(link.name for link, kind in links if kind == FabricKind.HOST),
        FABRIC: tuple(fabric.name for fabric in topology.fabrics),
        SP: tuple(sp.name for sp in topology.sps),
        BLADE: tuple(blade.name for blade in topology.blades),
        ALU: tuple(alu.name for alu in topology.alus),
    }


def check_part(part: str, topology: Topology) -> None:
    """See that there is a part of this name.

    Raises:
        UsageError: there is none; says what there is.
    """
    kind, colon, name = part.partition(":")
    there = possible(topology)
    if not colon or kind not in there:
        raise UsageError(f"{shown(part)} is no part that can be failed: {', '.join(f'{each}:…' for each in there)}")
    if name not in there[kind]:
        more = len(there[kind]) - MOST_SHOWN
        listed = ", ".join(there[kind][:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise UsageError(f"there is no {kind} {shown(name)}; there is {listed or 'none'}")


def links_of(part: str, topology: Topology) -> frozenset[Link]:
    """Give the links that are severed when a part has failed; a process has none of its own."""
    kind, _, name = part.partition(":")
    return frozenset(
        Link(sp.name, fabric.name)
        for sp, fabric in topology.links()
        if (kind in (LINK, PORT) and name == f"{sp.name}/{fabric.name}") or (kind == FABRIC and name == fabric.name)
    )


def severed(parts: Iterable[str], topology: Topology) -> frozenset[Link]:
    """Give all links that are severed while these parts have failed: one that two of them sever needs both restored."""
    return frozenset(link for part in parts for link in links_of(part, topology))


def lost_alus(parts: Iterable[str], topology: Topology, sp: str) -> frozenset[str]:
    """Give the paths of the ALUs that an SP can't reach while these parts have failed."""
    failed = frozenset(parts)
    links = severed(failed, topology)

    def is_lost(alu: Alu) -> bool:
        ways = [Link(path.sp, path.fabric) for path in alu.paths if path.sp == sp]
        return f"{ALU}:{alu.name}" in failed or (bool(ways) and links.issuperset(ways))

    return frozenset(alu.path for alu in topology.alus if is_lost(alu))
