"""What the system is made of, and what is connected with what (R19): plain data, and questions to it.

Storage processors sit on blades. Fabrics connect them: internal ones with each other, host fabrics with hosts, storage
fabrics with ALUs. A *link* is an SP on a fabric; on a host fabric that is a *port*, at which hosts log in. Only names
and connections stand here; which address a link has, and how it can be made to fail, is the matter of
``appliance.fabric``. ``appliance.topologyfile`` reads all this from a file.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_SPS: Final = 1000  # as many as the control plane is proved for
MOST_FABRICS: Final = 16  # of all kinds; each takes a network of its own
DEFAULT_PORT: Final = 3260  # IANA's for iSCSI
RESERVED: Final = frozenset({"vcm", "mic", "supervisor"})
"""Names on the bus that are no SP's."""


class FabricKind(enum.StrEnum):
    """What a fabric connects SPs with."""

    INTERNAL = "internal"  # each other, and the VCM
    HOST = "host"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class Fabric:
    """A network; ``number`` counts all fabrics from 1."""

    name: str
    kind: FabricKind
    number: int


@dataclass(frozen=True, slots=True)
class Sp:
    """A storage processor, and the fabrics on which it has a link; ``number`` counts the SPs from 1.

    One that is ``elsewhere`` runs on another machine and joins from there. ``addresses`` are those by fabric that do
    not follow from its number.
    """

    name: str
    number: int
    blade: str
    internal: tuple[str, ...]
    host: tuple[str, ...]
    storage: tuple[str, ...]
    elsewhere: bool = False
    addresses: tuple[tuple[str, str], ...] = ()

    @property
    def fabrics(self) -> tuple[str, ...]:
        """All of its links, by the fabric's name."""
        return self.internal + self.host + self.storage


@dataclass(frozen=True, slots=True)
class Blade:
    """SPs that fail together."""

    name: str
    sps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """Where hosts log in to an SP. Without an address it has the one that follows from fabric and SP."""

    sp: str
    fabric: str
    address: str | None = None
    port: int = DEFAULT_PORT

    @property
    def name(self) -> str:
        """As commands have it: ``sp1/hostA``."""
        return f"{self.sp}/{self.fabric}"


@dataclass(frozen=True, slots=True)
class AluPath:
    """A way to an ALU: an SP, and the storage fabric between."""

    sp: str
    fabric: str


@dataclass(frozen=True, slots=True)
class Alu:
    """An ALU that is attached at the start. The SP of its first path that lives has its T1 objects."""

    name: str
    path: str
    size_bytes: int | None
    paths: tuple[AluPath, ...]

    @property
    def sps(self) -> tuple[str, ...]:
        """The SPs that reach it, the preferred one first."""
        return tuple(dict.fromkeys(path.sp for path in self.paths))


@dataclass(frozen=True, slots=True)
class Host:
    """A host, and the ports that it is connected to."""

    name: str
    iqn: str
    number: int
    ports: tuple[Port, ...]

    @property
    def fabrics(self) -> tuple[str, ...]:
        """The host fabrics that it is on."""
        return tuple(dict.fromkeys(port.fabric for port in self.ports))


@dataclass(frozen=True, slots=True)
class Topology:
    """All of it. ``port`` is that of portals at derived addresses, ``bus_port`` the VCM's."""

    blades: tuple[Blade, ...]
    sps: tuple[Sp, ...]
    fabrics: tuple[Fabric, ...]
    ports: tuple[Port, ...]
    alus: tuple[Alu, ...] = ()
    hosts: tuple[Host, ...] = ()
    port: int = DEFAULT_PORT
    bus_port: int = DEFAULT_PORT + 1
    vcm: tuple[tuple[str, str], ...] = ()  # addresses of the VCM by internal fabric, where they do not follow

    def sp(self, name: str) -> Sp | None:
        """Find an SP."""
        return next((sp for sp in self.sps if sp.name == name), None)

    def fabric(self, name: str) -> Fabric | None:
        """Find a fabric."""
        return next((fabric for fabric in self.fabrics if fabric.name == name), None)

    def of_kind(self, kind: FabricKind) -> tuple[Fabric, ...]:
        """List the fabrics of one kind, in their order."""
        return tuple(fabric for fabric in self.fabrics if fabric.kind == kind)

    def links(self) -> Iterator[tuple[Sp, Fabric]]:
        """Yield every link: an SP, and a fabric that it is on."""
        by_name = {fabric.name: fabric for fabric in self.fabrics}
        for sp in self.sps:
            for name in sp.fabrics:
                yield sp, by_name[name]

    def ports_of(self, sp: str) -> tuple[Port, ...]:
        """List the ports of an SP."""
        return tuple(port for port in self.ports if port.sp == sp)
