"""Reads a topology from YAML. What a small system needs not say is made up, so that ``sps: 4`` is a whole file.

What is made up: SPs sp1, sp2, ..., four to a blade b1, b2, ...; the fabrics int1, int2, hostA, hostB, stoA, stoB, with
a link from each SP to each of them; a port of each SP on each of its host fabrics; an ALU is reached by every SP that
is on one of its storage fabrics, and the first ALU prefers the first of these, the second the next; a host is connected
to every port of its fabrics.

An entry that is wrong is told by its name, with what is possible, and nothing is started.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Final, TypeVar

import msgspec
import yaml

from appliance.mic.values import parse_iscsi_pattern, parse_path, parse_size, shown
from appliance.plainyaml import check_plain
from appliance.topology import (
    DEFAULT_PORT,
    MOST_FABRICS,
    MOST_SPS,
    RESERVED,
    Alu,
    AluPath,
    Blade,
    Fabric,
    FabricKind,
    Host,
    Port,
    Sp,
    Topology,
)
from backstores.errors import UsageError

SPS_PER_BLADE: Final = 4
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)
MOST_SHOWN: Final = 8  # names that an error line lists

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """What all entries have in common: unknown words are errors, and words have hyphens."""


class SpEntry(Entry, frozen=True, kw_only=True):
    """An SP; without a list of fabrics of a kind it is on all of them. ``elsewhere``: it joins from another machine."""

    name: str
    internal: tuple[str, ...] | None = None
    host: tuple[str, ...] | None = None
    storage: tuple[str, ...] | None = None
    elsewhere: bool = False
    addresses: dict[str, str] = {}


class BladeEntry(Entry, frozen=True, kw_only=True):
    """A blade."""

    name: str
    sps: tuple[str, ...]


class FabricsEntry(Entry, frozen=True, kw_only=True):
    """The fabrics by their kinds."""

    internal: tuple[str, ...] = ("int1", "int2")
    host: tuple[str, ...] = ("hostA", "hostB")
    storage: tuple[str, ...] = ("stoA", "stoB")


class PortEntry(Entry, frozen=True, kw_only=True):
    """A port at an address of its own: ``address: 192.0.2.1:3260``."""

    sp: str
    fabric: str
    address: str | None = None


class AluEntry(Entry, frozen=True, kw_only=True):
    """An ALU; ``size`` for a file that is to be made."""

    name: str
    path: str
    size: str | int | None = None
    sps: tuple[str, ...] | None = None
    fabrics: tuple[str, ...] | None = None


class HostEntry(Entry, frozen=True, kw_only=True):
    """A host; ``ports`` such as sp1/hostA, when it is not connected to all ports of its fabrics."""

    name: str
    iqn: str
    fabrics: tuple[str, ...] | None = None
    ports: tuple[str, ...] | None = None


class TopologyEntry(Entry, frozen=True, kw_only=True):
    """The file."""

    sps: int | tuple[SpEntry, ...] | None = None
    blades: tuple[BladeEntry, ...] | None = None
    fabrics: FabricsEntry = FabricsEntry()
    ports: tuple[PortEntry, ...] | None = None
    alus: tuple[AluEntry, ...] = ()
    hosts: tuple[HostEntry, ...] = ()
    port: int = DEFAULT_PORT
    bus_port: int | None = None
    vcm: dict[str, str] = {}


def read_topology(text: str, folder: PurePath) -> Topology:
    """Read a file's text; a path of an ALU that is not absolute begins at the folder.

    Raises:
        UsageError: it is no YAML, no topology, or an entry is wrong; one line that names it.
    """
    try:
        check_plain(text)
        entry = msgspec.yaml.decode(text.encode(), type=TopologyEntry)
    except UsageError as error:
        raise UsageError(f"the topology can't be used: {error}") from error
    except (msgspec.MsgspecError, yaml.YAMLError, ValueError) as error:  # ValueError: a number or date that is none
        raise UsageError(f"the file is no topology: {' '.join(str(error).split())}") from error
    return build(entry, folder)


def generate(count: int) -> Topology:
    """Make up a topology of so many SPs.

    Raises:
        UsageError: too few or too many.
    """
    return build(TopologyEntry(sps=count), PurePath("/"))


def build(entry: TopologyEntry, folder: PurePath) -> Topology:
    """Fill in what an entry leaves out, and check it.

    Raises:
        UsageError: an entry is wrong.
    """
    fabrics = _fabrics(entry.fabrics)
    blades, sp_entries = _blades(entry)
    sps = _sps(sp_entries, blades, fabrics)
    port = _port_number("port", entry.port)
    bus_port = _port_number("bus-port", port + 1 if entry.bus_port is None else entry.bus_port)
    if bus_port == port:
        raise UsageError(f"bus-port {bus_port} is the port of the portals, too; it needs another")
    ports = _ports(entry.ports, sps, fabrics, port)
    alus = _alus(entry.alus, sps, fabrics, folder)
    hosts = _hosts(entry.hosts, ports, fabrics)
    vcm = _addresses("vcm", entry.vcm, entry.fabrics.internal)
    return Topology(blades, tuple(sps.values()), tuple(fabrics.values()), ports, alus, hosts, port, bus_port, vcm)


def _fabrics(entry: FabricsEntry) -> dict[str, Fabric]:
    wanted = [
        (name, kind)
        for kind, names in (
            (FabricKind.INTERNAL, entry.internal),
            (FabricKind.HOST, entry.host),
            (FabricKind.STORAGE, entry.storage),
        )
        for name in names
    ]
    _check_names("fabric", [name for name, _ in wanted])
    if not entry.internal:
        raise UsageError("fabrics: there is no internal fabric; name one at least, or leave the line out for two")
    if len(wanted) > MOST_FABRICS:
        raise UsageError(f"fabrics: {len(wanted)} are more than {MOST_FABRICS}")
    return {name: Fabric(name, kind, number) for number, (name, kind) in enumerate(wanted, start=1)}


def _blades(entry: TopologyEntry) -> tuple[tuple[Blade, ...], tuple[SpEntry, ...]]:
    """Give the blades, and the SPs in their order; each is on one blade."""
    sps = _sp_entries(entry)
    names = [sp.name for sp in sps]
    if entry.blades is None:
        rows = [tuple(names[first : first + SPS_PER_BLADE]) for first in range(0, len(names), SPS_PER_BLADE)]
        return tuple(Blade(f"b{number}", row) for number, row in enumerate(rows, start=1)), sps
    _check_names("blade", [blade.name for blade in entry.blades])
    home: dict[str, str] = {}
    for blade in entry.blades:
        for name in blade.sps:
            _find("sp", name, names, f"blade {blade.name}")
            if name in home:
                raise UsageError(f"sp {name} is on blade {home[name]} and on blade {blade.name}; it can be on one")
            home[name] = blade.name
    for name in names:
        if name not in home:
            raise UsageError(f"sp {name} is on no blade; there is {_listed([blade.name for blade in entry.blades])}")
    return tuple(Blade(blade.name, blade.sps) for blade in entry.blades), sps


def _sp_entries(entry: TopologyEntry) -> tuple[SpEntry, ...]:
    sps: tuple[SpEntry, ...]
    if isinstance(entry.sps, tuple):
        sps = entry.sps
    elif entry.sps is not None:
        _check_count(entry.sps)
        sps = tuple(SpEntry(name=f"sp{number}") for number in range(1, entry.sps + 1))
    else:
        named = dict.fromkeys(name for blade in entry.blades or () for name in blade.sps)
        sps = tuple(SpEntry(name=name) for name in named)
    _check_count(len(sps))
    _check_names("sp", [sp.name for sp in sps])
    for sp in sps:
        if sp.name in RESERVED:
            raise UsageError(f"sp {sp.name} has a name that another process has; take another one")
    return sps


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_SPS:
        raise UsageError(f"sps: {count} is not between 1 and {MOST_SPS}")


def _sps(entries: Sequence[SpEntry], blades: Sequence[Blade], fabrics: Mapping[str, Fabric]) -> dict[str, Sp]:
    home = {name: blade.name for blade in blades for name in blade.sps}
    found: dict[str, Sp] = {}
    for number, entry in enumerate(entries, start=1):
        internal = _links(entry.name, entry.internal, FabricKind.INTERNAL, fabrics)
        host = _links(entry.name, entry.host, FabricKind.HOST, fabrics)
        storage = _links(entry.name, entry.storage, FabricKind.STORAGE, fabrics)
        if not internal:
            raise UsageError(f"sp {entry.name} is on no internal fabric; nobody could reach it")
        at = _addresses(f"sp {entry.name}", entry.addresses, (*internal, *host, *storage))
        found[entry.name] = Sp(entry.name, number, home[entry.name], internal, host, storage, entry.elsewhere, at)
    return found


def _links(sp: str, names: tuple[str, ...] | None, kind: FabricKind, fabrics: Mapping[str, Fabric]) -> tuple[str, ...]:
    possible = [fabric.name for fabric in fabrics.values() if fabric.kind == kind]
    if names is None:
        return tuple(possible)
    for name in names:
        _find(f"{kind} fabric", name, possible, f"sp {sp}")
    _check_once(f"sp {sp}: {kind} fabric", names)
    return names


def _ports(
    entries: Sequence[PortEntry] | None, sps: Mapping[str, Sp], fabrics: Mapping[str, Fabric], port: int
) -> tuple[Port, ...]:
    if entries is None:
        return tuple(Port(sp.name, fabric, None, port) for sp in sps.values() for fabric in sp.host)
    ports: list[Port] = []
    for entry in entries:
        where = f"port {shown(f'{entry.sp}/{entry.fabric}')}"
        sp = sps[_find("sp", entry.sp, sps, where)]
        _find("host fabric", entry.fabric, [f.name for f in fabrics.values() if f.kind == FabricKind.HOST], where)
        if entry.fabric not in sp.host:
            raise UsageError(f"{where}: sp {sp.name} is not on fabric {entry.fabric}; it is on {_listed(sp.host)}")
        address, number = (None, port) if entry.address is None else _address(where, entry.address)
        ports.append(Port(entry.sp, entry.fabric, address, number))
    _check_once("port", [port.name for port in ports])
    _check_once("port address", [f"{port.address}:{port.port}" for port in ports if port.address])
    return tuple(ports)


def _addresses(where: str, given: Mapping[str, str], fabrics: Sequence[str]) -> tuple[tuple[str, str], ...]:
    for fabric, address in given.items():
        _find("link to fabric", fabric, fabrics, f"{where}: addresses")
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            raise UsageError(f"{where}: address {shown(address)} on {fabric} is no numeric IPv4 address") from None
    return tuple(given.items())


def _address(where: str, text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise UsageError(f"{where}: address {shown(text)} is not ADDRESS:PORT with a numeric address") from None
    if address.is_unspecified:
        raise UsageError(f"{where}: address {text} means all of them; hosts need one that they can log in to")
    if not number.isascii() or not number.isdigit():
        raise UsageError(f"{where}: address {shown(text)} has no port, such as {address}:{DEFAULT_PORT}")
    return str(address), _port_number(f"{where}: port", int(number))


def _alus(
    entries: Sequence[AluEntry], sps: Mapping[str, Sp], fabrics: Mapping[str, Fabric], folder: PurePath
) -> tuple[Alu, ...]:
    _check_names("alu", [entry.name for entry in entries])
    possible = [fabric.name for fabric in fabrics.values() if fabric.kind == FabricKind.STORAGE]
    alus: list[Alu] = []
    for number, entry in enumerate(entries):
        where = f"alu {entry.name}"
        for name in entry.fabrics or ():
            _find("storage fabric", name, possible, where)
        over = possible if entry.fabrics is None else entry.fabrics
        paths = _paths(where, entry, number, sps, over)
        size = None if entry.size is None else _told(where, "size", parse_size, str(entry.size))
        path = _told(where, "path", parse_path, str(folder / entry.path))
        alus.append(Alu(entry.name, path, size, paths))
    _check_once("alu path", [alu.path for alu in alus])
    return tuple(alus)


def _paths(where: str, entry: AluEntry, number: int, sps: Mapping[str, Sp], over: Sequence[str]) -> tuple[AluPath, ...]:
    """List the ways to an ALU: those of the SP that is preferred first, each over all fabrics that it shares."""
    shared = {sp.name: tuple(fabric for fabric in over if fabric in sp.storage) for sp in sps.values()}
    reaching = [name for name, fabrics in shared.items() if fabrics]
    if entry.sps is None:
        first = number % len(reaching) if reaching else 0
        chosen = reaching[first:] + reaching[:first]
    else:
        chosen = list(entry.sps)
        _check_once(f"{where}: sp", chosen)
        for name in chosen:
            _find("sp", name, sps, where)
            if name not in reaching:
                raise UsageError(f"{where}: sp {name} is on none of its storage fabrics; it is on {_listed(over)}")
    if not chosen:
        raise UsageError(f"{where} is on no sp; there is {_listed(reaching or sps)}")
    return tuple(AluPath(name, fabric) for name in chosen for fabric in shared[name])


def _hosts(entries: Sequence[HostEntry], ports: Sequence[Port], fabrics: Mapping[str, Fabric]) -> tuple[Host, ...]:
    _check_names("host", [entry.name for entry in entries])
    possible = [fabric.name for fabric in fabrics.values() if fabric.kind == FabricKind.HOST]
    by_name = {port.name: port for port in ports}
    hosts: list[Host] = []
    for number, entry in enumerate(entries, start=1):
        where = f"host {entry.name}"
        for name in entry.fabrics or ():
            _find("host fabric", name, possible, where)
        over = possible if entry.fabrics is None else entry.fabrics
        if entry.ports is None:
            chosen = tuple(port for port in ports if port.fabric in over)
        else:
            _check_once(f"{where}: port", entry.ports)
            chosen = tuple(by_name[_find("port", name, by_name, where)] for name in entry.ports)
        if not chosen:
            raise UsageError(f"{where} is on no port; there is {_listed(by_name)}")
        hosts.append(Host(entry.name, _told(where, "iqn", parse_iscsi_pattern, entry.iqn), number, chosen))
    return tuple(hosts)


def _told(where: str, word: str, parse: Callable[[str], T], text: str) -> T:
    """Read a value as commands do, and say where it stands if it is wrong."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{where}: {word}: {error}") from error


def _port_number(where: str, number: int) -> int:
    if not 1 <= number <= 65535:
        raise UsageError(f"{where} {number} is not between 1 and 65535")
    return number


def _find(kind: str, name: str, possible: Collection[str], where: str) -> str:
    """Give a name back that is one of those possible."""
    if name not in possible:
        raise UsageError(f"{where}: there is no {kind} {shown(name)}; there is {_listed(possible)}")
    return name


def _check_names(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{kind} name {shown(name)} is not a letter with up to 31 letters, digits, '_', '-' behind"
            )
    _check_once(kind, names)


def _check_once(kind: str, names: Sequence[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(f"{kind} {shown(name)} is there {times} times; once is possible")


def _listed(names: Collection[str]) -> str:
    if not names:
        return "none"
    first = list(names)[:MOST_SHOWN]
    return ", ".join(first) + (f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else "")
