"""Fabrics of network namespaces: who reaches whom, what a fault does, and that nothing is left (R15, R19)."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from appliance.fabric.addresses import Plan
from appliance.fabric.cables import NamespaceHands, build, remove
from appliance.fabric.faults import Link
from appliance.namespaces import inside
from appliance.topologyfile import read_topology
from tests.support.appliance import READY_S, need

TOPOLOGY = read_topology(
    "{sps: 2, hosts: [{name: web, iqn: 'iqn.2026-11.example:web', fabrics: [hostA]}]}", PurePath("/")
)
PLAN = Plan(TOPOLOGY, f"tg{os.getpid():x}")
SP1, SP2 = TOPOLOGY.sps
INT1, _, HOST_A, *_ = TOPOLOGY.fabrics
PORT = 3260
PATIENCE_S = 1.0  # of a connection that nobody answers

pytestmark = [pytest.mark.root, need("ip")]


@pytest.fixture
def fabrics() -> Iterator[None]:
    build(PLAN)
    yield
    remove(PLAN)


def listening(owner: str, address: str) -> socket.socket:
    """Listen in somebody's namespace."""
    return inside(PLAN.namespace(owner), lambda: socket.create_server((address, PORT)))


def reaches(owner: str, address: str) -> bool:
    """Whether somebody can connect to an address; "" is who started the appliance."""

    def connect() -> bool:
        try:
            socket.create_connection((address, PORT), PATIENCE_S).close()
        except OSError:
            return False
        return True

    return inside(PLAN.namespace(owner) if owner else "", connect)


def comes_to_reach(owner: str, address: str) -> bool:
    """Whether somebody can connect before long: the kernel takes its time to see that a link is up again."""
    until_s = time.monotonic() + READY_S
    while not reaches(owner, address):
        if time.monotonic() > until_s:
            return False
    return True


def ours() -> str:
    """List what there is of ours."""
    listed = [subprocess.run(["ip", *what], capture_output=True, text=True, check=True).stdout for what in
              (["-br", "link"], ["netns"])]  # fmt: skip
    return "\n".join(line for text in listed for line in text.splitlines() if line.startswith(PLAN.prefix))


@pytest.mark.usefixtures("fabrics")
def test_storage_processors_reach_each_other_and_the_vcm() -> None:
    with listening("sp2", PLAN.sp(SP2, INT1)), socket.create_server((PLAN.vcm(INT1), PORT)):
        assert comes_to_reach("sp1", PLAN.sp(SP2, INT1))
        assert comes_to_reach("sp1", PLAN.vcm(INT1))


@pytest.mark.usefixtures("fabrics")
def test_a_host_reaches_ports_and_nothing_else() -> None:
    """R15: not by a route of its own making, either."""
    address, inner = PLAN.sp(SP1, HOST_A), PLAN.sp(SP1, INT1)
    with listening("sp1", address), listening("sp1", inner), socket.create_server((PLAN.vcm(INT1), PORT)):
        assert comes_to_reach("web", address)
        add = ["ip", "netns", "exec", PLAN.namespace("web"), "ip", "route", "add", "10.0.0.0/8", "via", address]
        subprocess.run(add, check=True)
        assert comes_to_reach("sp2", inner), "somebody listens there"
        assert not reaches("web", inner)
        assert not reaches("web", PLAN.vcm(INT1))


@pytest.mark.usefixtures("fabrics")
def test_a_severed_link_carries_nothing_until_it_is_restored() -> None:
    """R19."""
    hands = NamespaceHands(PLAN)
    with listening("sp2", PLAN.sp(SP2, INT1)):
        asyncio.run(hands.sever({Link("sp1", "int1")}))
        assert not reaches("sp1", PLAN.sp(SP2, INT1))
        assert comes_to_reach("", PLAN.sp(SP2, INT1)), "its neighbour has its own"
        asyncio.run(hands.sever(set()))
        assert comes_to_reach("sp1", PLAN.sp(SP2, INT1))


def test_what_is_removed_is_gone_and_what_is_left_by_a_crash_is_no_hindrance() -> None:
    build(PLAN)
    assert len(ours().splitlines()) == 6 + 12 + 1 + 3, "bridges, cables of SPs, the host's, namespaces"
    build(PLAN)
    remove(PLAN)
    assert ours() == ""
    remove(PLAN)


def test_what_is_somebody_elses_stays() -> None:
    """A name that only looks like ours, too."""
    other = f"{PLAN.prefix}x-sp1"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        build(PLAN)
        remove(PLAN)
        assert ours().split() == [other]
    finally:
        subprocess.run(["ip", "netns", "delete", other], check=True)
