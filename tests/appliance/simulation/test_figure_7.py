"""Figures 6 and 7 by the whole control plane: found on the ALUs, distributed, linked, on line (R10, R12, R15)."""

from __future__ import annotations

import pytest

from appliance.control.reports import LegsLost
from appliance.control.values import InstanceState, Role
from appliance.simulation.invariants import after_quiet, at_every_moment, built_whole
from appliance.simulation.plane import Shelf, SimAlu
from appliance.simulation.plant import Builder, alu_wwn, shown_by
from appliance.simulation.system import System
from appliance.vcm.mastership import MasterState
from appliance.vcm.vocabulary import Site
from appliance.vcm.volume import Phase
from backstores.objects import MirrorObject, PartitionObject
from backstores.volume.loss import degraded
from tests.support.transcript import STEADY

REACH = {"a440": ("sp410",), "a444": ("sp410",), "a446": ("sp420",), "a448": ("sp430",)}
FAIL_OVER_S = 5.0


@pytest.fixture
def system() -> System:
    """Give the system of Fig. 7, started: two hosts see one volume through two of three storage processors."""
    shelf = Shelf()
    for number, path in enumerate(REACH):
        shelf.add(SimAlu(path, alu_wwn(number)))
    objects = Builder().volume("stripe-mirror", list(shelf.by_wwn))
    for obj in objects:
        if isinstance(obj, PartitionObject):
            shelf.by_wwn[obj.alu].trees[objects[0].wwn] = objects
    system = System(Site(("sp410", "sp420", "sp430"), REACH), shelf, 1, at_every_moment, built_whole)
    system.conditions = STEADY
    assert system.mic is not None
    system.mic.attached = list(REACH)
    system.mic.shows[objects[0].wwn] = shown_by(objects[0].wwn, ["sp420", "sp430"])
    system.start_all()
    system.run(1.0)
    return system


def test_the_volume_is_found_and_placed_object_by_object(system: System) -> None:
    """R10, R12: steps 502 to 542."""
    after_quiet(system)
    [(volume, objects)] = system.shelf.trees().items()
    p620, p630, p640, p650 = [obj for obj in objects if isinstance(obj, PartitionObject)]
    planes = {name: process.plane for name, process in system.processes.items()}
    assert {name: plane.t1[volume] for name, plane in planes.items()} == {
        "sp410": (p620, p630),
        "sp420": (p640,),
        "sp430": (p650,),
    }
    for name, here in (("sp420", {p640.wwn}), ("sp430", {p650.wwn})):
        instance = planes[name].t2[volume]
        assert (instance.state, instance.made.role) == (InstanceState.ON_LINE, Role.FOLLOWER)
        assert instance.made.objects == objects
        assert {one.object for one in instance.made.references} == {p620.wwn, p630.wwn, p640.wwn, p650.wwn} - here
        assert [exposure.sps for exposure in instance.show.exposures] == [("sp420", "sp430")]


def test_what_serves_no_host_shows_nothing(system: System) -> None:
    """R15: the lead has a tree of its own, and no host."""
    [volume] = system.shelf.trees()
    lead = system.processes["sp410"].plane.t2[volume]
    assert lead.made.role is Role.LEAD
    assert lead.show.exposures == ()


def test_first_tier_objects_are_shown_to_those_that_refer_to_them_alone(system: System) -> None:
    """R12, R15."""
    [volume] = system.shelf.trees()
    shown = {name: process.plane.shown_to[volume] for name, process in system.processes.items()}
    assert shown == {
        "sp410": {"sp420", "sp430"},
        "sp420": {"sp410", "sp430"},
        "sp430": {"sp410", "sp420"},
    }


def test_the_one_with_most_alus_is_the_mvsp(system: System) -> None:
    """R10: step 508."""
    assert system.vcm is not None
    assert (system.vcm.mastership.master, system.vcm.mastership.state) == ("sp410", MasterState.READY)


@pytest.mark.parametrize("how", ["killed", "asleep"])
def test_the_role_of_the_mvsp_moves_in_time(system: System, how: str) -> None:
    """R9: in a higher epoch, and in less than 5 s; the one that slept knows that it is none."""
    assert system.vcm is not None
    epoch = system.vcm.mastership.epoch
    if how == "killed":
        system.kill_sp("sp410")
    else:
        system.sleep_sp("sp410", 8.0)
    system.run(FAIL_OVER_S)
    assert system.vcm.mastership.state is MasterState.READY
    assert system.vcm.mastership.master != "sp410"
    assert system.vcm.mastership.epoch > epoch
    system.run(10.0)
    after_quiet(system)
    assert system.processes["sp410"].core.mvsm.master_epoch == 0


@pytest.mark.parametrize("mic", [True, False], ids=["with the mic", "before the mic is there"])
def test_a_vcm_that_starts_anew_touches_nothing_that_is_right(system: System, mic: bool) -> None:
    """C1, R9: it finds the volume on line, and orders nothing for it. The MVSP gets an epoch that is its own again."""
    assert system.vcm is not None
    orders, epoch = system.orders.copy(), system.vcm.mastership.epoch
    if not mic:
        system.mic = None
    system.kill_vcm()
    system.run(10.0)
    assert system.orders == orders
    assert system.vcm.mastership.master == "sp410"
    assert system.vcm.mastership.epoch > epoch
    [volume] = system.vcm.volumes
    assert volume.phase is Phase.ON_LINE


def test_a_leg_that_fails_while_the_mic_is_away_is_dealt_with(system: System) -> None:
    """C1, D3: the hosts wait for no person."""
    [(wwn, objects)] = system.shelf.trees().items()
    mirror = next(obj for obj in objects if isinstance(obj, MirrorObject))
    system.mic = None
    system.kill_vcm()
    system.run(5.0)
    report = LegsLost(volume=wwn, generation=0, legs=(mirror.legs[1].child,))
    for name in REACH.values():
        system.lose_legs(name[0], report)
    system.run(2.0)
    assert all(process.plane.t2[wwn].state is InstanceState.ON_LINE for process in system.processes.values())
    assert degraded(system.shelf.trees()[wwn])
