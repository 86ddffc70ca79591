"""What a storage processor closes when links have failed (R19)."""

from __future__ import annotations

import asyncio
from collections.abc import Set

import pytest

from appliance.fabric.addresses import Plan
from appliance.portals import PortalAddress
from appliance.processor.cables import Cables, LoopbackHands
from appliance.topologyfile import generate
from backstores.errors import UsageError

PLAN = Plan(generate(2))
SP1 = PLAN.topology.sps[0]


class Door:
    """What listens."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.turned_away: Set[str] = set()

    async def listen_only(self, addresses: Set[PortalAddress]) -> None:
        self.open = {address.address for address in addresses}

    def turn_away(self, sources: Set[str]) -> None:
        self.turned_away = set(sources)


class Sp:
    """The doors of a storage processor, and its cables."""

    def __init__(self) -> None:
        self.internal, self.hosts = Door(), Door()
        self.cut: Set[int] = set()
        self.cables = Cables(PLAN.topology, LoopbackHands(PLAN, SP1, self.internal, self.hosts, self.cut_bus))

    def cut_bus(self, ways: Set[int]) -> None:
        self.cut = ways

    def set(self, *parts: str, failed: bool = True) -> None:
        for part in parts:
            asyncio.run(self.cables.set(part, failed))


@pytest.mark.parametrize("part", ["link:sp1/int1", "fabric:int1"])
def test_its_own_link_closes_its_door_there_and_the_way_to_the_vcm(part: str) -> None:
    sp = Sp()
    sp.set(part)
    assert sp.internal.open == {"127.102.0.1"}
    assert sp.hosts.open == {"127.103.0.1", "127.104.0.1"}
    assert sp.cut == {0}


def test_the_link_of_another_has_it_turned_away() -> None:
    """It may come from there to us as well as we to it."""
    sp = Sp()
    sp.set("link:sp2/int2")
    assert sp.internal.open == {"127.101.0.1", "127.102.0.1"}
    assert sp.internal.turned_away == {"127.102.0.2"}
    assert sp.cut == set()


def test_a_port_closes_its_door_for_hosts() -> None:
    sp = Sp()
    sp.set("port:sp1/hostB")
    assert sp.hosts.open == {"127.103.0.1"}


def test_one_way_to_the_vcm_stays_whatever_fails() -> None:
    sp = Sp()
    sp.set("fabric:int1", "fabric:int2")
    assert sp.internal.open == set()
    assert sp.cut == set()


def test_what_is_restored_is_open_again() -> None:
    sp = Sp()
    sp.set("fabric:int1", "link:sp2/int1")
    sp.set("fabric:int1", failed=False)
    assert sp.internal.open == {"127.101.0.1", "127.102.0.1"}
    assert sp.internal.turned_away == {"127.101.0.2"}
    assert sp.cut == set()


def test_what_is_no_part_changes_nothing() -> None:
    sp = Sp()
    with pytest.raises(UsageError, match="there is no fabric 'int9'"):
        sp.set("fabric:int9")
    assert sp.internal.open == set(), "nobody was called"
