"""What answers a backstore's commands, up to the device that it opens."""

from __future__ import annotations

import asyncio

import pytest

from appliance.lio.handlers import Handlers
from backstores.device import MemoryDevice
from backstores.errors import UsageError
from backstores.scsi.model import Command, Nexus, Status
from backstores.scsi.reservations import ReservationType
from backstores.scsi.store import MemoryStore, NexusName, Registration, UnitState
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.tcmu import handler as tcmu
from tests.support.iscsi_client import write10
from tests.support.scsi import WWN

FOLDER = "core/user_5447001/tiergate-1a2b3c4d-v"
HOLDER = NexusName("iqn.2026-11.example:web,i,0x000000000001", 1)


class TwinHandler:
    """A handler of no device."""

    async def close(self) -> None:
        pass


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, Nexus]]:
    """What is opened in place of devices: HBA, name, nexus."""
    found: list[tuple[int, str, Nexus]] = []

    async def serve(hba: int, name: str, nexus: Nexus, on_lost: tcmu.OnLost) -> TwinHandler:
        await tcmu.hear_attentions(nexus)
        found.append((hba, name, nexus))
        return TwinHandler()

    monkeypatch.setattr(tcmu, "serve", serve)
    return found


def test_reservations_of_the_embedded_portal_shut_nobody_out(
    opened: list[tuple[int, str, Nexus]], caplog: pytest.LogCaptureFixture
) -> None:
    """R31: hosts could never clear them, for the kernel answers PERSISTENT RESERVE OUT; the log says so."""
    store = MemoryStore()
    state = UnitState(
        registrations=(Registration(HOLDER, 7),), holder=HOLDER, reservation_type=ReservationType.EXCLUSIVE_ACCESS
    )

    async def scenario() -> None:
        await store.save(WWN, state)
        unit = LogicalUnit(MemoryDevice(64), Identity(WWN), store)
        await Handlers("iqn.2026-11.example:t", (1, 2)).open(FOLDER, unit, lambda error: None)
        [(hba, name, nexus)] = opened
        assert (hba, name) == (5447001, "tiergate-1a2b3c4d-v")
        response = await nexus.execute(tcmu.LUN, Command(write10(0, 1)[:10], memoryview(bytes(512))))
        assert response is not None
        assert response.status is Status.GOOD

    asyncio.run(scenario())
    assert f"volume {WWN}: 1 registrations by the embedded portal don't count" in caplog.text
    assert store.load(WWN) == state


def test_a_device_that_can_not_be_opened_leaves_no_nexus(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*details: object) -> TwinHandler:
        raise UsageError("the device is busy")

    monkeypatch.setattr(tcmu, "serve", busy)
    unit = LogicalUnit(MemoryDevice(64), Identity(WWN))
    with pytest.raises(UsageError, match="the device is busy"):
        asyncio.run(Handlers("iqn.2026-11.example:t", (1,)).open(FOLDER, unit, lambda error: None))
    assert not list(unit.attachments)
