"""Where the appliance listens: what --portal takes, and which portals are one group."""

from __future__ import annotations

import pytest

from appliance.portals import PortalAddress, groups, parse_portal, parse_portals
from backstores.errors import UsageError


@pytest.mark.parametrize(
    ("text", "portal"),
    [
        ("127.0.0.1:3261", PortalAddress("127.0.0.1", 3261)),
        ("[::1]:3260", PortalAddress("::1", 3260)),
        ("0.0.0.0:1", PortalAddress("0.0.0.0", 1)),
        ("san-a/192.0.2.1:65535", PortalAddress("192.0.2.1", 65535, "san-a")),
        ("b/[fd00::2]:3260", PortalAddress("fd00::2", 3260, "b")),
    ],
)
def test_a_portal_is_an_address_and_a_port_and_reads_as_it_was_written(text: str, portal: PortalAddress) -> None:
    assert parse_portal(text) == portal
    assert str(portal) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1", r"is not \[NAMESPACE/\]ADDRESS:PORT"),
        ("localhost:3260", "numeric address"),
        ("127.0.0.1:http", "numeric address"),
        ("127.0.0.1:0", "port 0 is not between 1 and 65535"),
        ("[::1]:65536", "port 65536 is not between 1 and 65535"),
        ("/127.0.0.1:3260", "network namespace '' is not 1 to 64 letters"),
        ("../net/127.0.0.1:3260", "network namespace '../net' is not"),
        (f"{'n' * 65}/127.0.0.1:3260", "is not 1 to 64 letters"),
    ],
)
def test_what_is_no_portal_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_portal(text)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["127.0.0.1:1", "127.0.0.1:1"], "127.0.0.1:1 is there twice"),
        (["a/127.0.0.1:1", "b/127.0.0.1:1"], "127.0.0.1:1 is there twice; .* in any namespace"),
        (["0.0.0.0:1", "b/127.0.0.1:1"], "portal 0.0.0.0:1 listens on all addresses"),
        (["127.0.0.1:1", "b/[::]:1"], r"portal b/\[::\]:1 listens on all addresses"),
    ],
    ids=["twice", "in two namespaces", "all addresses, first", "all addresses, second"],
)
def test_portals_that_hosts_could_not_tell_apart_are_refused(texts: list[str], message: str) -> None:
    """R31: LIO would take the second of two equal ones, and listen nowhere."""
    with pytest.raises(UsageError, match=message):
        parse_portals(texts)


def test_each_namespace_is_a_group() -> None:
    """R31: numbered in the order in which they are given."""
    portals = parse_portals(["b/192.0.2.1:1", "192.0.2.2:1", "b/192.0.2.3:1"])
    assert groups(portals) == {1: [portals[0], portals[2]], 2: [portals[1]]}


def test_a_portal_on_all_addresses_in_one_namespace_is_told_by_one_that_is_there() -> None:
    [portal] = parse_portals(["0.0.0.0:3260"])
    assert not portal.for_hosts.startswith("0.")
    assert parse_portal("[::1]:3260").for_hosts == "[::1]:3260"
