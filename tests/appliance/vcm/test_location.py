"""Which storage processors serve a volume to its hosts (R12, R14, R19)."""

from __future__ import annotations

import pytest

from appliance.control.orders import Ordered
from appliance.control.reports import Done, FromSp, Hello, RunsPart, Scanned
from appliance.control.values import Show
from appliance.messages import Exposure, HostDefinition
from appliance.simulation.plant import object_wwn
from appliance.vcm.courier import Courier
from appliance.vcm.location import FACING, Location
from appliance.vcm.peers import Notices, Peers
from appliance.vcm.vocabulary import Site, Tell

VOLUME = object_wwn(1)
NAMES = ("sp1", "sp2", "sp3", "sp4")


def last_order(courier: Courier) -> int:
    """Give the number of the order that was given last."""
    bodies = [effect.message.body for effect in courier.effects if isinstance(effect, Tell)]
    return max(body.number for body in bodies if isinstance(body, Ordered))


def location(**faces: tuple[str, ...]) -> Location:
    """Give a location structure over four storage processors at work."""
    courier = Courier(incarnation=1)
    site = Site(NAMES, faces=faces)
    peers = Peers(courier, site, Notices(*[lambda peer: None] * 5))
    for name in NAMES:
        hello = Hello(blade="", internal_portals=(), host_portals=(f"{name}:3260",))
        peers.said(FromSp(name, 1, 1, hello))
        for result in (Scanned(found=()), RunsPart(t1=(), t2=(), cursor=None)):
            courier.answered(name, Done(number=last_order(courier), result=result))
    return Location(site, peers, known=True)


def shown(*rows: tuple[str, tuple[str, ...]]) -> Show:
    """Have hosts see the volume, each through these; through none: as the topology says."""
    hosts = tuple(HostDefinition(name=host, iqn=f"iqn.2026-01.example:{host}") for host, _ in rows)
    exposures = [Exposure(host=host, volume=VOLUME, lun=lun, sps=sps) for lun, (host, sps) in enumerate(rows)]
    return Show(hosts, tuple(exposures))


CASES = {
    "as a person wants": ([("h1", ("sp3", "sp1"))], ["sp3", "sp1"]),
    "as the topology says": ([("h2", ())], ["sp2", "sp4"]),
    "for several hosts together": ([("h1", ("sp3",)), ("h2", ())], ["sp3", "sp2", "sp4"]),
    "for nobody": ([], []),
    "one that is not there is left out": ([("h1", ("sp9", "sp1"))], ["sp1"]),
}


@pytest.mark.parametrize("name", CASES)
def test_who_faces_the_hosts_of_a_volume(name: str) -> None:
    """R12: exposures by the topology's host ports."""
    rows, facing = CASES[name]
    found = location(h2=("sp2", "sp4"))
    found.put(VOLUME, shown(*rows))
    assert found.facing(VOLUME, ()) == facing


def test_a_host_that_the_topology_does_not_place_has_two_ways() -> None:
    """R22: and keeps those that it has."""
    found = location()
    found.put(VOLUME, shown(("h1", ())))
    first = found.facing(VOLUME, ())
    assert len(first) == FACING
    other = [name for name in NAMES if name not in first]
    assert sorted(found.facing(VOLUME, other)) == other


def test_each_shows_the_volume_to_the_hosts_that_it_faces_and_no_other() -> None:
    """R15, S2."""
    found = location(h2=("sp2", "sp4"))
    found.put(VOLUME, shown(("h1", ("sp1", "sp2")), ("h2", ())))
    hosts = {sp: [host.name for host in (found.show(VOLUME, sp, ()) or Show()).hosts] for sp in NAMES}
    assert hosts == {"sp1": ["h1"], "sp2": ["h1", "h2"], "sp3": [], "sp4": ["h2"]}


def test_what_runs_is_left_as_it_is_until_the_mic_has_told_all() -> None:
    """C1."""
    found = location()
    found.known = False
    assert found.facing(VOLUME, ["sp4"]) == ["sp4"]
    assert found.show(VOLUME, "sp4", ["sp4"]) is None


def test_a_volume_that_is_no_more_is_forgotten() -> None:
    found = location()
    found.put(VOLUME, shown(("h1", ("sp1",))))
    found.forget(VOLUME)
    assert found.facing(VOLUME, ()) == []
