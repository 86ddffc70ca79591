"""Fabrics of network namespaces: a bridge each, and a cable from it to every SP and host that is on it (R19).

    SP's namespace: fab1 ---- <prefix>s1f1 :bridge <prefix>f1: <prefix>s2f1 ---- fab1 :the next SP's namespace

Bridges lie in the namespace that the appliance was started in, where VCM and MIC stay; on the internal ones these have
an address, on no other. All names begin with the appliance's prefix: so what a crash has left is found, and what is
somebody else's is never touched. A part fails by its cables being set down at the bridge's end.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute, NetlinkError, netns

from appliance.fabric.addresses import PREFIX_BITS, Plan
from appliance.fabric.faults import Link
from appliance.namespaces import inside
from appliance.topology import Fabric, FabricKind
from backstores.errors import UsageError

SETTINGS: Final = Path("/proc/sys/net")
LOCAL_TABLE: Final = 255  # rtnetlink(7): addresses that are ours
LOCAL_RULE: Final = 0
MOVED_LOCAL_RULE: Final = 100
WALL_RULE: Final = 50
STRONG_HOST: Final = {"ipv4/conf/all/arp_ignore": "1", "ipv4/conf/all/arp_announce": "2"}
"""An address is answered for on its own fabric alone; Linux would do so on any."""


def build(plan: Plan) -> None:
    """Make all namespaces, bridges and cables; what a crash has left of them goes first.

    Raises:
        UsageError: we may not, or something of this name is somebody else's.
    """
    with _explained():
        remove(plan)
        with IPRoute() as route:
            for fabric in plan.topology.fabrics:
                _make_bridge(route, plan, fabric)
            for sp, fabric in plan.topology.links():
                _connect(route, plan, sp.name, f"s{sp.number}", fabric, plan.sp(sp, fabric))
            for host in plan.topology.hosts:
                for name in host.fabrics:
                    host_fabric = plan.topology.fabric(name)
                    assert host_fabric is not None, "the topology was checked"
                    _connect(route, plan, host.name, f"h{host.number}", host_fabric, plan.host(host, host_fabric))
        for sp in plan.topology.sps:
            inside(plan.namespace(sp.name), lambda: _wall_off(plan))


def remove(plan: Plan) -> None:
    """Take away all that has our prefix, whoever made it.

    Raises:
        UsageError: we may not.
    """
    ours = re.compile(rf"{re.escape(plan.prefix)}(f\d+|[sh]\d+f\d+)")
    with _explained():
        for name in netns.listnetns():
            if name.startswith(f"{plan.prefix}-"):
                netns.remove(name)
        with IPRoute() as route:
            for link in route.get_links():
                if ours.fullmatch(link.get_attr("IFLA_IFNAME")):
                    try:
                        route.link("del", index=link["index"])
                    except NetlinkError as error:
                        if error.code != errno.ENODEV:  # it went with its other end
                            raise


class NamespaceHands:
    """Sets cables down and up. Implements ``appliance.fabric.faults.Hands``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def sever(self, links: Set[Link]) -> None:
        """Make these the cables that are down."""
        await asyncio.to_thread(self._sever, links)  # netlink's library has a loop of its own

    def _sever(self, links: Set[Link]) -> None:
        with _explained(), IPRoute() as route:
            for sp, fabric in self._plan.topology.links():
                state = "down" if Link(sp.name, fabric.name) in links else "up"
                route.link("set", index=_index(route, f"{self._plan.prefix}s{sp.number}f{fabric.number}"), state=state)


def _make_bridge(route: IPRoute, plan: Plan, fabric: Fabric) -> None:
    name = f"{plan.prefix}f{fabric.number}"
    route.link("add", ifname=name, kind="bridge")
    # no address of its own by which a host could reach this machine (R15)
    (SETTINGS / f"ipv6/conf/{name}/disable_ipv6").write_text("1")
    index = _index(route, name)
    if fabric.kind == FabricKind.INTERNAL:
        route.addr("add", index=index, address=plan.vcm(fabric), prefixlen=PREFIX_BITS)
    route.link("set", index=index, state="up")


def _connect(route: IPRoute, plan: Plan, owner: str, short: str, fabric: Fabric, address: str) -> None:
    """Lay a cable from a bridge to somebody's namespace, which is made with the first."""
    namespace, outer, inner = plan.namespace(owner), f"{plan.prefix}{short}f{fabric.number}", _inner(fabric)
    if namespace not in netns.listnetns():
        netns.create(namespace)
        inside(namespace, _set_up_loopback)
    route.link("add", ifname=outer, kind="veth", peer={"ifname": inner, "net_ns_fd": namespace})
    bridge = _index(route, f"{plan.prefix}f{fabric.number}")
    (SETTINGS / f"ipv6/conf/{outer}/disable_ipv6").write_text("1")
    route.link("set", index=_index(route, outer), master=bridge, state="up")
    inside(namespace, lambda: _set_up(inner, address))


def _set_up_loopback() -> None:
    for name, value in STRONG_HOST.items():
        (SETTINGS / name).write_text(value)
    with IPRoute() as route:
        route.link("set", index=_index(route, "lo"), state="up")


def _set_up(interface: str, address: str) -> None:
    with IPRoute() as route:
        index = _index(route, interface)
        route.addr("add", index=index, address=address, prefixlen=PREFIX_BITS)
        route.link("set", index=index, state="up")


def _wall_off(plan: Plan) -> None:
    """Let nothing that comes from a host's fabric reach an address on another (R15); Linux would hand it over."""
    fabrics = plan.topology.fabrics
    with IPRoute() as route:
        there = {link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        for fabric in fabrics:
            if fabric.kind == FabricKind.HOST and _inner(fabric) in there:
                for other in fabrics:
                    if other != fabric:
                        network = plan.address(0, other)
                        route.rule(
                            "add",
                            priority=WALL_RULE,
                            iifname=_inner(fabric),
                            dst=network,
                            dst_len=PREFIX_BITS,
                            action="blackhole",
                        )
        # the kernel looks at its own addresses before all rules: that has to wait for these
        route.rule("add", priority=MOVED_LOCAL_RULE, table=LOCAL_TABLE)
        route.rule("del", priority=LOCAL_RULE, table=LOCAL_TABLE)


def _inner(fabric: Fabric) -> str:
    return f"fab{fabric.number}"


def _index(route: IPRoute, name: str) -> int:
    return int(route.link_lookup(ifname=name)[0])


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as error:
        reason = error.args[1] if isinstance(error, NetlinkError) else error.strerror
        raise UsageError(f"network namespaces can't be set up: {reason}; it takes root") from error
