"""Where the appliance listens: addresses, each in a network namespace of this machine.

A host with several networks reaches a volume by several paths. Each namespace stands for one network, and is one
target portal group: its portals lead to the same target port. Hosts are told of all groups whichever they ask, so an
address must mean the same everywhere. The kernel's target needs that, too: an address that another namespace has
already seems to succeed there, but nobody listens.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.namespaces import inside
from appliance.reach import address_for_hosts
from backstores.errors import UsageError

NAMESPACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class PortalAddress:
    """A numeric address (IPv6 without brackets) and a port; ``namespace`` "" is the one of this process."""

    address: str
    port: int
    namespace: str = ""

    @property
    def numeric(self) -> str:
        """As URLs and LIO have it: ``address:port``, IPv6 in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def for_hosts(self) -> str:
        """What to tell people: the same, but an address that this machine has in place of a wildcard."""
        address = inside(self.namespace, lambda: address_for_hosts(self.address))
        return PortalAddress(address, self.port).numeric

    def __str__(self) -> str:
        return f"{self.namespace}/{self.numeric}" if self.namespace else self.numeric


Groups = Mapping[int, Sequence[PortalAddress]]
"""Portals by the tag of their group."""


def groups(portals: Sequence[PortalAddress]) -> Groups:
    """Number the namespaces from 1 in their order: each is a target portal group."""
    namespaces = dict.fromkeys(portal.namespace for portal in portals)
    return {
        tag: [portal for portal in portals if portal.namespace == namespace]
        for tag, namespace in enumerate(namespaces, start=1)
    }


def parse_portals(texts: Sequence[str]) -> tuple[PortalAddress, ...]:
    """Read all portals.

    Raises:
        UsageError: one is none, or two can't stand beside each other.
    """
    portals = tuple(parse_portal(text) for text in texts)
    for numeric, count in Counter(portal.numeric for portal in portals).items():
        if count > 1:
            raise UsageError(f"portal {numeric} is there twice; each needs an address of its own, in any namespace")
    for portal in portals:
        if ipaddress.ip_address(portal.address).is_unspecified and len(groups(portals)) > 1:
            raise UsageError(
                f"portal {portal} listens on all addresses; with several network namespaces each portal needs one, "
                "for hosts are told of all of them"
            )
    return portals


def parse_portal(text: str) -> PortalAddress:
    """Read ``[namespace/]address:port``, an IPv6 address in brackets.

    Raises:
        UsageError: it is none.
    """
    namespace, slash, endpoint = text.rpartition("/")
    if slash and not NAMESPACE.fullmatch(namespace):
        raise UsageError(f"network namespace {namespace!r} is not 1 to 64 letters, digits, '_', '-' and '.'")
    host, _, port = endpoint.rpartition(":")
    try:
        address = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
        number = int(port)
    except ValueError:
        raise UsageError(
            f"portal {text!r} is not [NAMESPACE/]ADDRESS:PORT with a numeric address, such as 127.0.0.1:3260"
        ) from None
    if not 1 <= number <= 65535:
        raise UsageError(f"portal port {number} is not between 1 and 65535")
    return PortalAddress(address, number, namespace)
