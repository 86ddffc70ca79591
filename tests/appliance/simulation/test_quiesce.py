"""The quiesce (R28): whoever dies, sleeps or is cut off, at whichever moment, all go on with one tree (D3, D4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.control.reports import LegsLost
from appliance.control.requests import CreateVolume, ReplaceVolume, SetLocation
from appliance.simulation.history import grown
from appliance.simulation.invariants import after_quiet, at_every_moment, built_whole
from appliance.simulation.plant import Builder, alu_wwn, make_site, shown_by
from appliance.simulation.system import System
from backstores.objects import MirrorObject, VolumeObject
from backstores.wwn import Wwn
from tests.support.transcript import STEADY

CHANGE_S = 0.22  # how long the change takes when all goes well
STEP_S = 0.011  # neither a message nor a job takes as long: no stage is left out
QUIET_S = 40.0


def serving() -> tuple[System, Wwn]:
    """Give a system of four that has a mirror on line: two legs at sp1 and sp2, hosts at sp2, sp3 and sp4."""
    site, shelf = make_site(4, 5)
    system = System(site, shelf, 1, at_every_moment, built_whole)
    system.conditions = STEADY
    assert system.mic is not None
    system.mic.attached = list(shelf.alus)
    system.start_all()
    system.run(1.0)
    objects = Builder().volume("mirror", [alu_wwn(0), alu_wwn(1)])
    wwn = objects[0].wwn
    system.mic.shows[wwn] = shown_by(wwn, ["sp2", "sp3", "sp4"])
    system.ask(CreateVolume(objects=objects))
    system.ask(SetLocation(volume=wwn, show=system.mic.shows[wwn]))
    system.run(1.0)
    after_quiet(system)
    return system, wwn


def replace(system: System, wwn: Wwn) -> None:
    """Have a person change the tree."""
    head, *below = system.shelf.trees()[wwn]
    assert isinstance(head, VolumeObject)
    system.ask(ReplaceVolume(objects=(grown(head), *below)))


def lose_leg(system: System, wwn: Wwn) -> None:
    """Have a leg fail, which all notice."""
    mirror = next(obj for obj in system.shelf.trees()[wwn] if isinstance(obj, MirrorObject))
    for name in system.site.sps:
        system.lose_legs(name, LegsLost(volume=wwn, generation=0, legs=(mirror.legs[1].child,)))


CHANGES: dict[str, Callable[[System, Wwn], None]] = {"a change": replace, "a lost leg": lose_leg}
MISHAPS: dict[str, Callable[[System], None]] = {
    "the lead dies": lambda system: system.kill_sp("sp1"),
    "a follower dies": lambda system: system.kill_sp("sp3"),
    "a follower sleeps": lambda system: system.sleep_sp("sp4", 4.0),
    "a follower is cut off": lambda system: system.cut("sp3", 30.0),
    "the vcm dies": lambda system: system.kill_vcm(),
    "the mic dies": lambda system: system.kill_mic(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mishap", MISHAPS)
def test_all_go_on_with_one_tree_whatever_happens_when(change: str, mishap: str) -> None:
    """R28, D3, D4: at every moment, and in the end."""
    for moment in range(int(CHANGE_S / STEP_S)):
        system, wwn = serving()
        CHANGES[change](system, wwn)
        system.run(moment * STEP_S)
        MISHAPS[mishap](system)
        system.run(QUIET_S)
        after_quiet(system)


@pytest.mark.parametrize("change", CHANGES)
def test_the_pause_is_measured_and_told(change: str) -> None:
    """R28: it is as long as the stages between the first hold and the last resume."""
    system, wwn = serving()
    CHANGES[change](system, wwn)
    system.run(1.0)
    [told] = [text for _, text in system.log if "goes on after" in text]
    assert 0.05 < float(told.split()[-2]) < CHANGE_S
