"""The embedded front end: several portals, each group a port of one target (R32)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from appliance.front_end import Embedded
from appliance.messages import Exposure, HostDefinition, SessionStatus
from appliance.portals import PortalAddress
from backstores.device import MemoryDevice
from backstores.errors import UsageError
from backstores.scsi.cdb import Inquiry
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.appliance import free_port
from tests.support.iscsi_client import Client, SocketChannel
from tests.support.scsi import WWN

TARGET: Final = "iqn.2026-11.example.tiergate:t"
WEB: Final = HostDefinition(name="web", iqn="iqn.2026-11.example:web")
SEES: Final = Exposure(host="web", volume=WWN, lun=0)


def on_loopback() -> PortalAddress:
    return PortalAddress("127.0.0.1", free_port())


def serve(groups: dict[int, list[PortalAddress]], work: Callable[[], object]) -> list[SessionStatus]:
    """Serve a volume while ``work`` runs in a thread; give the sessions that there are then."""

    async def main() -> list[SessionStatus]:
        unit = LogicalUnit(MemoryDevice(64), Identity(WWN))
        front_end = Embedded(TARGET, groups, {WWN: unit}.get)
        await front_end.set([WEB], [SEES])
        try:
            await front_end.start()
            await asyncio.to_thread(work)
            return front_end.sessions()
        finally:
            await front_end.close()

    return asyncio.run(main())


def logged_in(at: PortalAddress) -> Client:
    """Log in by a portal."""
    client = Client(SocketChannel((at.address, at.port)), WEB.iqn)
    client.login(target=TARGET)
    while client.command(bytes(16)).status:  # unit attentions come first
        pass
    return client


def identification(client: Client) -> bytes:
    """Read page 83."""
    cdb = Inquiry.build(vital_product_data=1, page=0x83, allocation_bytes=0xFFFF)
    return client.command(cdb.ljust(16, b"\0"), read=0xFFFF).data


def test_each_group_is_a_port_of_its_own_and_each_session_is_listed_once() -> None:
    """R32: two paths of one host; a session of a group with two portals is not told twice."""
    groups = {1: [on_loopback(), on_loopback()], 2: [on_loopback()]}
    clients: list[Client] = []
    pages: list[bytes] = []

    def work() -> None:
        clients.extend(logged_in(portals[0]) for portals in groups.values())
        pages.extend(map(identification, clients))

    sessions = serve(groups, work)
    assert [f"{TARGET},t,0x000{tag}".encode() in page for tag, page in zip((1, 2), pages, strict=True)] == [True, True]
    assert [(session.initiator, session.luns) for session in sessions] == [(WEB.iqn, (0,))] * 2


def test_a_portal_that_can_not_be_is_told_and_the_others_end() -> None:
    """R32: with the portal as it was typed, and what to do; the first of the two listens no more."""
    first = on_loopback()
    with pytest.raises(UsageError, match=r"portal 192\.0\.2\.1:1: can't listen on .*; choose another with --portal"):
        serve({1: [first, PortalAddress("192.0.2.1", 1)]}, lambda: None)
    with pytest.raises(ConnectionRefusedError):
        SocketChannel((first.address, first.port))


def test_a_namespace_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="no network namespace nowhere"):
        serve({1: [PortalAddress("127.0.0.1", 1, "nowhere")]}, lambda: None)
