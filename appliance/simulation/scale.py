"""How the control plane grows: many storage processors, ALUs and volumes, initialized in virtual time.

python -m appliance.simulation.scale 1000 4000 10000
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from appliance.simulation.plant import Builder, alu_wwn, make_site, shown_by
from appliance.simulation.system import System
from appliance.vcm.volume import Phase
from backstores.objects import PartitionObject

STEP_S = 0.5


@dataclass(frozen=True, slots=True)
class Growth:
    """What the initialization of a system takes.

    ``cpu_s`` is that of all processes together, and of this simulation. ``orders_a_volume`` is the most that any
    volume took; each order is one message there and one back.
    """

    sps: int
    alus: int
    volumes: int
    virtual_s: float
    cpu_s: float
    messages: int
    orders_a_volume: int


def initialize(sps: int, alus: int, volumes: int, *, most_s: float = 120.0) -> Growth:
    """Initialize a system whose ALUs hold volumes: mirrors, each seen through one storage processor.

    Raises:
        AssertionError: it does not get there in ``most_s`` of virtual time.
    """
    began_s = time.process_time()
    site, shelf = make_site(sps, alus)
    system = System(site, shelf, seed=1)
    builder = Builder()
    assert system.mic is not None
    system.mic.attached = list(shelf.alus)
    for number in range(volumes):
        objects = builder.volume("mirror", [alu_wwn(number % alus), alu_wwn((number + 1) % alus)])
        for obj in objects:
            if isinstance(obj, PartitionObject):
                shelf.by_wwn[obj.alu].trees[objects[0].wwn] = objects
        system.mic.shows[objects[0].wwn] = shown_by(objects[0].wwn, [site.sps[number % sps]])
    system.start_all()
    while on_line(system) < volumes:
        assert system.clock.now_s < most_s, f"{on_line(system)} of {volumes} on line after {most_s:.0f} s"
        system.run(STEP_S)
    used_s = time.process_time() - began_s
    most = max(system.orders.values())
    return Growth(sps, alus, volumes, system.clock.now_s, used_s, system.messages, most)


def on_line(system: System) -> int:
    """Count the volumes that are on line."""
    assert system.vcm is not None
    return sum(volume.phase is Phase.ON_LINE for volume in system.vcm.volumes)


if __name__ == "__main__":
    print(initialize(*map(int, sys.argv[1:4])))
