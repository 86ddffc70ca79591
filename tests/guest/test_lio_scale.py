"""One more LUN where there are many already, in a guest kernel: LIO's tree, rings and handlers as they are (R31)."""

from __future__ import annotations

import asyncio
import time

import pytest

from appliance.lio.machine import prepare
from appliance.lio.make import make_lio
from appliance.messages import Exposure, HostDefinition
from appliance.portals import PortalAddress
from backstores.device import MemoryDevice
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wwn import Wwn
from tests.guest.inside import TARGET, Guest

THERE = 250
MORE = 5
LIMIT_S = 1.0
IQN = "iqn.2026-11.example.tiergate:many"
HOST = HostDefinition(name="web", iqn="iqn.2026-11.example.tiergate:guest")


@pytest.mark.guest(modules=["target_core_user", "iscsi_target_mod"])
def test_one_more_lun_at_250_takes_less_than_a_second(guest: Guest) -> None:
    """R31: ceph-iscsi took 51 s, for it looked everything up again. The best of some, for machines are shared."""
    prepare()
    volumes = [Wwn(f"6025447{number:025x}") for number in range(THERE + MORE)]
    units = {wwn: LogicalUnit(MemoryDevice(8), Identity(wwn)) for wwn in volumes}
    exposures = [Exposure(host="web", volume=wwn, lun=lun) for lun, wwn in enumerate(volumes)]

    async def scenario() -> list[float]:
        front_end = make_lio("TG-many", IQN, {1: [PortalAddress("127.0.0.1", 3260)]}, units.get)
        await front_end.set([HOST], exposures[:THERE])
        begin_s = time.monotonic()
        await front_end.start()
        print(f"{THERE} LUNs made in {time.monotonic() - begin_s:.1f} s")
        taken_s = []
        for count in range(THERE + 1, THERE + MORE + 1):
            begin_s = time.monotonic()
            await front_end.set([HOST], exposures[:count])
            taken_s.append(time.monotonic() - begin_s)
        assert len(list(TARGET.glob(f"iscsi/{IQN}/tpgt_1/acls/*/lun_*"))) == THERE + MORE
        await front_end.close()
        return taken_s

    taken_s = asyncio.run(scenario())
    print("one more:", ", ".join(f"{one:.3f} s" for one in taken_s))
    assert min(taken_s) < LIMIT_S
    assert not list(TARGET.glob("core/user_*"))
