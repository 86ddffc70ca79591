"""Under which address hosts reach a portal that listens on all addresses."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

ELSEWHERE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): nobody has them, so the way there is the default route."""
LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def address_for_hosts(address: str) -> str:
    """Give an address to tell people: the same, or for a wildcard this machine's primary one."""
    found = ipaddress.ip_address(address)
    if not found.is_unspecified:
        return address
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ELSEWHERE[family], 9))  # asks for a route; nothing is sent
        except OSError:  # there is none
            return LOOPBACK[family]
        return str(probe.getsockname()[0])
