"""The second tier of volumes on a storage processor: built over first tiers here and elsewhere, served to hosts (R12).

A volume is made off line, from the bottom up; it serves from ``go_on_line`` on, and only those hosts that it is shown
to. When legs of a mirror fail, the MVSP alone can make that durable (D3): the volume reports it, and the requests
concerned wait until the VCM has it resumed with the tree that says so.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.control.orders import HoldVolume, MakeT2, ResumeVolume
from appliance.control.reports import Held, LegsLost, VolumeIs
from appliance.control.values import Role, Show
from appliance.processor.first_tier import FirstTier
from appliance.processor.leads import Leads
from appliance.processor.remotes import Remotes
from appliance.vsmdb import dirty_logs
from backstores.alu.base import AluDriver
from backstores.alu.remote import RemoteLun
from backstores.engine.engine import Engine
from backstores.errors import TiergateError
from backstores.objects import AnyObject, LegState, MirrorObject, VolumeObject
from backstores.scsi.opcodes import CommandSet
from backstores.scsi.shared import SHARED_COMMANDS, UNORDERED_COMMANDS
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume.follower import Follower
from backstores.volume.gate import HoldLimits
from backstores.volume.lead import Lead
from backstores.volume.references import referenced
from backstores.volume.volume import Volume
from backstores.wwn import Wwn, short

log = logging.getLogger(__name__)

Report = Callable[[LegsLost | VolumeIs], None]

HOLD_LIMITS: Final = HoldLimits()
FIND_LEAD_S: Final = 0.5
"""How long until a lead is looked for again."""


class StillThere(TiergateError):
    """Legs that a volume has given up are a part of its tree still: that they have failed could not be recorded."""


@dataclass(slots=True)
class Served:
    """A volume's second tier here. ``resumed`` is set by each resumption, ``followers`` are those that the lead has."""

    made: MakeT2
    instance: Volume | Follower
    unit: LogicalUnit
    drivers: dict[Wwn, AluDriver]  # the instance's own: what is added here, it has from the next tree on
    lead: Lead | None = None
    on_line: bool = False
    show: Show = field(default_factory=Show)
    resync: asyncio.Task[None] | None = None
    resumed: asyncio.Event = field(default_factory=asyncio.Event)
    looked_s: float = -math.inf  # when a lead was looked for last
    ending: bool = False  # it goes off line: there will be no tree of it here any more

    @property
    def name(self) -> str:
        """What people call the volume."""
        head = self.made.objects[0]
        assert isinstance(head, VolumeObject)
        return head.name


class SecondTier:
    """All volumes that a storage processor serves, or is about to."""

    def __init__(self, engine: Engine, first: FirstTier, remotes: Remotes, leads: Leads, report: Report) -> None:
        self._engine = engine
        self._first = first
        self._remotes = remotes
        self._leads = leads
        self._report = report
        self._volumes: dict[Wwn, Served] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # Orders

    async def make(self, order: MakeT2) -> None:
        """Build a volume, off line; one of an older generation makes room.

        Raises:
            TiergateError: a part of it can't be reached, or is no proper tree.
        """
        await self.remove(order.volume)
        drivers, remote = await self._below(order)
        instance = await self._instance(order, drivers, remote)
        unit = LogicalUnit(instance, Identity(order.volume), commands=_commands(order.role))
        served = self._volumes[order.volume] = Served(order, instance, unit, drivers)
        self._lead_if_told(served)

    async def _instance(
        self, order: MakeT2, drivers: Mapping[Wwn, AluDriver], remote: frozenset[Wwn]
    ) -> Volume | Follower:
        objects = referenced(order.objects, remote)
        if order.role is Role.FOLLOWER:
            port = await self._leads.port(order)
            return Follower(
                objects,
                drivers,
                self._engine,
                port,
                legs_lost=lambda lost: self._lose_legs(order.volume, set().union(*lost.values())),
                lead_lost=lambda: self._follow_again(order.volume),
                limits=HOLD_LIMITS,
            )
        logs = await dirty_logs(self._engine, drivers, order.objects, order.objects, remote=remote)

        async def persist(changed: Sequence[AnyObject]) -> None:
            await self._recorded(self._volumes[order.volume], changed)

        volume = Volume(objects, drivers, self._engine, logs, persist)
        await volume.publish_logs()
        return volume

    def _lead_if_told(self, served: Served) -> None:
        """Begin to lead, end it, or lead others than before."""
        made = served.made
        if made.role is Role.LEAD and isinstance(served.instance, Volume):
            if served.lead is None:
                served.lead = Lead(served.instance, lambda follower: self._leads.fenced(made.volume, follower))
            self._leads.grant(made, served.lead)

    async def _lead_no_more(self, served: Served) -> None:
        if served.lead is not None:
            self._leads.withdraw(served.made.volume)
            await served.lead.close()
            served.lead = None

    async def go_on_line(self, volume: Wwn, show: Show) -> None:
        """Serve a volume; what an unclean stop has left different between legs is copied meanwhile (D2)."""
        served = self._volumes[volume]
        served.on_line, served.show = True, show
        self._copy_dirty(served)

    def _copy_dirty(self, served: Served) -> None:
        if isinstance(served.instance, Volume) and served.instance.pin_reads():
            log.warning("volume %s was not stopped cleanly: copying its dirty regions", served.name)
            served.resync = asyncio.create_task(self._resynchronize(served, served.instance))

    def set_show(self, volume: Wwn, show: Show) -> None:
        """Serve a volume to these hosts."""
        self._volumes[volume].show = show

    async def hold(self, order: HoldVolume) -> Held:
        """Let what runs end, and what comes wait."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        served = self._volumes[order.volume]
        self._hurry(served, True)
        await served.instance.hold_all(HoldLimits(longest_s=order.most_s))
        return Held(after_s=loop.time() - since_s)

    def _hurry(self, served: Served, on: bool) -> None:
        """While a volume is held, requests that find no way to a leg end, and are planned anew when it goes on."""
        for driver in served.drivers.values():
            if isinstance(driver, RemoteLun):
                driver.hurry(on)
        if served.made.lead is not None:
            self._leads.hurry(served.made, on)

    async def resume(self, order: ResumeVolume) -> None:
        """Go on with a volume, as it was or as another generation of it."""
        served = self._volumes[order.volume]
        self._hurry(served, False)
        if order.made is None:
            served.instance.resume()
        else:
            await self._resume_as(served, order.made)
        log.info("volume %s goes on", served.name)
        served.resumed.set()
        await self._release_unused(served)

    async def _resume_as(self, served: Served, made: MakeT2) -> None:
        drivers, remote = await self._below(made)
        if served.made.lead is not None and (made.lead is None or made.lead.sp != served.made.lead.sp):
            self._leads.forget(served.made)
        moved = [old for wwn, old in served.drivers.items() if drivers.get(wwn, old) is not old]
        served.drivers.update(drivers)
        grown = made.objects[0] != served.made.objects[0]
        followed = served.made.role is Role.FOLLOWER
        if followed is not (made.role is Role.FOLLOWER):
            await self._put_other(served, made, remote)
        elif isinstance(served.instance, Follower):
            served.made = made
            served.instance.resume(referenced(made.objects, remote), await self._leads.port(made))
        else:
            before = {obj.wwn for obj in served.made.objects}
            added = [obj for obj in made.objects if obj.wwn not in before]
            logs = await dirty_logs(self._engine, served.drivers, added, made.objects, remote=remote)
            if made.role is not Role.LEAD:
                await self._lead_no_more(served)
            served.made = made
            self._lead_if_told(served)
            served.instance.resume(referenced(made.objects, remote), logs)
        served.unit.commands = _commands(made.role)
        if grown:
            served.unit.resized()
        for driver in moved:
            if isinstance(driver, RemoteLun):
                await self._let_go(driver)

    async def _put_other(self, served: Served, made: MakeT2, remote: frozenset[Wwn]) -> None:
        """Lead in place of following, or follow in place of leading. Who waits at the old instance asks again."""
        instance = await self._instance(made, served.drivers, remote)
        await self._lead_no_more(served)
        old, served.instance, served.made = served.instance, instance, made
        if served.resync is not None:
            served.resync.cancel()
            await asyncio.gather(served.resync, return_exceptions=True)
            served.resync = None
        self._lead_if_told(served)
        served.unit.device = instance
        served.unit.refresh()
        old.abandon()
        if served.on_line:
            self._copy_dirty(served)

    async def _release_unused(self, served: Served) -> None:
        """Let go of objects of other storage processors that are not referred to any more."""
        used = {reference.object for reference in served.made.references}
        for wwn, driver in list(served.drivers.items()):
            if isinstance(driver, RemoteLun) and wwn not in used:
                del served.drivers[wwn]
                await self._let_go(driver)

    async def _let_go(self, driver: RemoteLun) -> None:
        driver.hurry(True)
        await self._engine.release(driver)

    async def go_off_line(self, volume: Wwn) -> None:
        """Stop serving a volume, cleanly. One that is not here needs nothing."""
        served = self._volumes.get(volume)
        if served is None:
            return
        served.on_line, served.ending = False, True
        served.resumed.set()
        if served.resync is not None:
            served.resync.cancel()
            await asyncio.gather(served.resync, return_exceptions=True)
        served.unit.close()
        await self._lead_no_more(served)
        try:
            await served.instance.close()
        except TiergateError as error:
            log.error("volume %s was not stopped cleanly: %s", served.name, error)

    async def remove(self, volume: Wwn) -> None:
        """Delete a volume's second tier."""
        await self.go_off_line(volume)
        served = self._volumes.pop(volume, None)
        if served is not None and served.made.lead is not None:
            self._leads.forget(served.made)
        for driver in served.drivers.values() if served is not None else ():
            if isinstance(driver, RemoteLun):
                await self._let_go(driver)

    async def close(self) -> None:
        """Stop all volumes cleanly: those that follow first, for they have ranges of others' leads."""
        for follow in (True, False):
            some = [w for w, served in self._volumes.items() if (served.made.role is Role.FOLLOWER) is follow]
            await asyncio.gather(*map(self.go_off_line, some))

    # What hosts see

    def unit(self, volume: Wwn) -> LogicalUnit | None:
        """Give the logical unit of a volume that is on line."""
        served = self._volumes.get(volume)
        return None if served is None or not served.on_line else served.unit

    def shows(self) -> list[Show]:
        """List who sees what."""
        return [served.show for served in self._volumes.values()]

    # What goes on by itself

    async def clean(self) -> None:
        """Clear the dirty bits of regions that are idle."""
        for served in list(self._volumes.values()):
            if served.on_line and isinstance(served.instance, Volume):
                try:
                    await served.instance.clean()
                except TiergateError as error:
                    log.error("volume %s: %s", served.name, error)

    async def _below(self, made: MakeT2) -> tuple[dict[Wwn, AluDriver], frozenset[Wwn]]:
        """Give the drivers of a tree's partitions: of ALUs here (LRN), and of those elsewhere (RRN), by their names."""
        drivers = dict(self._first.drivers(made.volume))
        there = self._drivers_of(made.volume)
        for reference in made.references:
            path = f"{short(reference.object)} at {reference.sp}"
            known = there.get(reference.object)
            if isinstance(known, RemoteLun) and self._remotes.leads_to(known, reference.sp, reference.object):
                drivers[reference.object] = known
            else:
                drivers[reference.object] = await self._remotes.open(reference.sp, reference.object, path)
        return drivers, frozenset(reference.object for reference in made.references)

    def _drivers_of(self, volume: Wwn) -> Mapping[Wwn, AluDriver]:
        served = self._volumes.get(volume)
        return {} if served is None else served.drivers

    def _lose_legs(self, volume: Wwn, legs: set[Wwn]) -> None:
        generation = self._volumes[volume].made.generation
        self._report(LegsLost(volume=volume, generation=generation, legs=tuple(sorted(legs))))

    def _follow_again(self, volume: Wwn) -> None:
        """Go on with the same lead by another session, as soon as there is one. Another lead, the VCM tells of."""
        task = asyncio.create_task(self._find_lead(volume))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_lead(self, volume: Wwn) -> None:
        served = self._volumes.get(volume)
        while served is not None and isinstance(served.instance, Follower) and served is self._volumes.get(volume):
            made = served.made
            await self._not_too_often(served)
            try:
                port = await self._leads.port(made)
            except TiergateError as error:
                log.warning("volume %s has no lead: %s", served.name, error)
                continue
            if made is served.made:
                served.instance.follow(port)
            return

    async def _not_too_often(self, served: Served) -> None:
        """Look for a lead at once, but not again and again: one that is found may be none any more."""
        now_s = asyncio.get_running_loop().time()
        await asyncio.sleep(served.looked_s + FIND_LEAD_S - now_s)
        served.looked_s = asyncio.get_running_loop().time()

    async def _recorded(self, served: Served, changed: Sequence[AnyObject]) -> None:
        """Have it made durable that legs have failed, and wait until the volume goes on without them.

        Raises:
            StillThere: it goes on with them.
        """
        legs = {leg.child for obj in changed if isinstance(obj, MirrorObject) for leg in obj.legs if _failed(leg.state)}
        if not served.ending:
            served.resumed.clear()
            self._lose_legs(served.made.volume, legs)
        await served.resumed.wait()
        if served.ending:
            raise StillThere("the volume goes off line here: whoever serves it next will meet the same failure")
        stays = {
            leg.child
            for obj in served.made.objects
            if isinstance(obj, MirrorObject)
            for leg in obj.legs
            if not _failed(leg.state)
        }
        if legs & stays:
            raise StillThere(f"legs {', '.join(map(short, sorted(legs & stays)))} could not be recorded as failed")

    async def _resynchronize(self, served: Served, volume: Volume) -> None:
        made = served.made

        def progress(fraction: float) -> None:
            percent = round(100 * fraction, 1)
            self._report(VolumeIs(volume=made.volume, generation=made.generation, resync_percent=percent))

        detail = ""
        try:
            await volume.resynchronize(progress)
            log.info("volume %s: all legs are equal again", served.name)
        except TiergateError as error:
            detail = f"resynchronization ended: {error}"
            log.error("volume %s: %s", served.name, detail)
        self._report(VolumeIs(volume=made.volume, generation=made.generation, detail=detail))


def _failed(state: LegState) -> bool:
    return state is not LegState.IN_SYNC


def _commands(role: Role) -> CommandSet:
    return UNORDERED_COMMANDS if role is Role.FREE else SHARED_COMMANDS
