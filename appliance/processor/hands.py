"""All hands of a storage processor: each order of the control plane, and who carries it out.

What hosts reach, and what other storage processors reach, is opened once; what is shown there changes with the orders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.control.orders import (
    BeMaster,
    CloseAlus,
    Discover,
    ExposeT1,
    Follow,
    GoOffLine,
    GoOnLine,
    HoldVolume,
    MakeT1,
    MakeT2,
    MasterOrder,
    OpenAlus,
    RemoveT1,
    RemoveT2,
    Report,
    ResumeVolume,
    Scan,
    SetFault,
    SetShow,
)
from appliance.control.reports import LegsLost, Result, SessionsAre, VolumeIs
from appliance.control.values import Access, VolumeImage
from appliance.decisions import Action, RecordLegs
from appliance.front_end import Embedded
from appliance.portals import Groups, PortalAddress
from appliance.processor.attached import AttachedAlus
from appliance.processor.cables import Cables, Listener, LoseAlus
from appliance.processor.first_tier import FirstTier
from appliance.processor.internal import InternalTarget
from appliance.processor.leads import Leads
from appliance.processor.master import Master, MasterAction
from appliance.processor.names import internal_target, master_initiator, tier_initiator
from appliance.processor.remotes import MasterOpener, Remotes
from appliance.processor.second_tier import SecondTier
from appliance.recognition import Recognize, recognize_nothing
from backstores.engine.engine import Engine
from backstores.errors import UsageError

log = logging.getLogger(__name__)

OTHERS_S: Final = 10.0
"""How long the end waits for storage processors that have not ended yet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a storage processor is in the system: its name, its appliance's names, and its addresses.

    ``elsewhere`` are the portals for hosts that the others have.
    """

    sp: str
    susid: str
    iqn: str
    internal: tuple[PortalAddress, ...]
    hosts: Groups
    elsewhere: Groups


class AllHands:
    """Implements ``appliance.processor.process.Hands``."""

    def __init__(
        self,
        engine: Engine,
        place: Place,
        report: Callable[[LegsLost | VolumeIs], None],
        recognize: Recognize = recognize_nothing,
        make_cables: Callable[[Listener, Listener, LoseAlus], Cables] | None = None,
    ) -> None:
        """``make_cables`` is given what listens for other SPs, what listens for hosts, and what has ALUs fail."""
        self._engine = engine
        self._place = place
        self._recognize = recognize
        self._target = InternalTarget(internal_target(place.iqn, place.sp), place.internal)
        self._alus = AttachedAlus(engine, place.susid, place.iqn, place.sp, self._target, recognize)
        self._first = FirstTier(engine, place.iqn, self._alus, self._target)
        self._remotes = Remotes(place.iqn, self._as_second_tier, place.internal)
        leads = Leads(place.iqn, self._target, self._remotes)
        self._second = SecondTier(engine, self._first, self._remotes, leads, report)
        self._front_end = Embedded(place.iqn, place.hosts, self._second.unit, place.elsewhere)
        self._cables = make_cables(self._target, self._front_end, self._alus.lose) if make_cables else None
        self._master: Master | None = None
        self._masters_remotes: Remotes | None = None
        self._mastering = asyncio.Lock()

    async def start(self) -> None:
        """Let the others in, and hosts, who see nothing yet.

        Raises:
            UsageError: an address is not ours, or a port is taken.
        """
        await self._target.start()
        await self._front_end.start()

    async def close(self) -> None:
        """End it all cleanly: hosts first, then volumes, then what others reach here, when they have done as much.

        All storage processors of a system end together, and each needs the others to stop its volumes cleanly.
        """
        await self._front_end.close()
        await self._second.close()
        async with self._mastering:
            await self._end_mastership(cleanly=True)
        await self._remotes.close()
        try:
            async with asyncio.timeout(OTHERS_S):
                await self._target.deserted()
        except TimeoutError:
            log.warning("some of the others are still here, and are let down: we have waited for %g s", OTHERS_S)
        await self._target.close()
        await self._alus.close_all()

    async def carry_out(self, action: Action) -> tuple[Result | None, Sequence[VolumeImage] | None]:
        """Carry an action out; give the system image, too, if all of it may have changed.

        Raises:
            TiergateError: it can't be done, or failed.
        """
        if isinstance(action, MasterOrder | RecordLegs):
            async with self._mastering:
                return await self._as_master(action)
        return await self._as_any(action), None

    async def _as_any(self, order: Action) -> Result | None:
        match order:
            case Scan():
                return await self._alus.scan(order.paths)
            case OpenAlus():
                return await self._alus.open(order)
            case CloseAlus():
                await self._alus.close(order.paths)
            case Follow():
                await self._follow(order)
            case MakeT1():
                await self._first.make(order)
            case ExposeT1():
                await self._first.expose(order)
            case RemoveT1():
                await self._first.remove(order.volume)
            case Discover():
                await self._remotes.discover(order.access, set(order.objects))
            case MakeT2():
                await self._second.make(order)
            case HoldVolume():
                return await self._second.hold(order)
            case ResumeVolume():
                await self._second.resume(order)
                await self._show()
            case GoOnLine():
                await self._second.go_on_line(order.volume, order.show)
                await self._show()
            case SetShow():
                self._second.set_show(order.volume, order.show)
                await self._show()
            case GoOffLine():
                await self._second.go_off_line(order.volume)
                await self._show()
            case RemoveT2():
                await self._second.remove(order.volume)
                await self._show()
            case SetFault():
                if self._cables is None:
                    raise UsageError(f"{order.part} can't be failed by storage processor {self._place.sp}")
                await self._cables.set(order.part, order.failed)
            case Report():
                raise AssertionError("the VSM answers this itself")
        return None

    # The MVSP

    async def _as_master(self, action: MasterAction) -> tuple[Result | None, Sequence[VolumeImage] | None]:
        if isinstance(action, BeMaster):
            await self._end_mastership(cleanly=False)
            self._masters_remotes = Remotes(self._place.iqn, self._as_master_of, self._place.internal)
            opener = MasterOpener(self._engine, self._alus, self._masters_remotes)
            self._master = Master(action.epoch, self._engine, self._place.susid, opener, self._recognize)
            return None, None
        assert self._master is not None, "the MVSM lets nothing through before it is seated"
        return await self._master.carry_out(action)

    async def _follow(self, order: Follow) -> None:
        """Take another for the MVSP; what this one was doing as such ends first."""
        if order.grant.sp != self._place.sp:
            async with self._mastering:
                await self._end_mastership(cleanly=False)
        await self._alus.follow(order)

    async def _end_mastership(self, cleanly: bool) -> None:
        if self._master is not None:
            await (self._master.close() if cleanly else self._master.abandon())
        if self._masters_remotes is not None:
            await self._masters_remotes.close()
        self._master = self._masters_remotes = None

    def images(self) -> Sequence[VolumeImage] | None:
        """Give the system image as it is after a failure, if the MVSP is here."""
        return None if self._master is None else self._master.images

    def _as_second_tier(self, access: Access) -> str:
        return tier_initiator(self._place.iqn, self._place.sp)

    def _as_master_of(self, access: Access) -> str:
        return master_initiator(self._place.iqn, self._place.sp, access.secret)

    # Hosts

    async def _show(self) -> None:
        """Let hosts see what the volumes here are shown to."""
        shows = self._second.shows()
        hosts = {host.name: host for show in shows for host in show.hosts}
        rows = [row for show in shows for row in show.exposures]
        await self._front_end.set(tuple(hosts.values()), rows)
        await self._front_end.refresh()

    def sessions(self) -> SessionsAre:
        """List the sessions of hosts."""
        return SessionsAre(sessions=tuple(self._front_end.sessions()))

    # What goes on by itself

    async def tend(self) -> None:
        """Do what is to be done every few seconds: clear dirty bits, look after the GS set."""
        await self._second.clean()
        await self._remotes.tidy()
        async with self._mastering:
            if self._master is not None and self._masters_remotes is not None:
                await self._master.watch()
                await self._masters_remotes.tidy()
