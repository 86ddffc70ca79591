"""The MVSP at work: what it could not reach it tries again (R9)."""

from __future__ import annotations

import pytest

from appliance.control.orders import Admit
from appliance.control.reports import Opened, Result
from appliance.control.values import Found, VolumeImage
from appliance.decisions import Action
from appliance.simulation.plane import SimPlane
from appliance.simulation.plant import make_site
from appliance.simulation.system import System
from appliance.vcm.mastership import AGAIN_S
from tests.support.transcript import STEADY


def test_an_alu_that_the_master_could_not_reach_is_admitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: the way to it was down for a moment."""
    admitted: list[str] = []
    carry_out = SimPlane.carry_out

    def refusing(plane: SimPlane, action: Action) -> tuple[Result | None, tuple[VolumeImage, ...] | None]:
        if isinstance(action, Admit):
            paths = [at.path for at in action.alus]
            admitted.extend(paths)
            if admitted.count("a1") == paths.count("a1") == 1:
                return Opened(alus=(), refused=(Found("a1", 0, "no way to it"),)), None
        return carry_out(plane, action)

    monkeypatch.setattr(SimPlane, "carry_out", refusing)
    site, shelf = make_site(3, 3, reach=1)
    system = System(site, shelf, 1)
    system.conditions = STEADY
    assert system.mic is not None
    system.mic.attached = list(shelf.alus)
    system.start_all()
    system.run(AGAIN_S / 2)
    assert admitted.count("a1") == 1
    system.run(AGAIN_S)
    assert admitted.count("a1") == 2
    assert admitted.count("a0") == 1
