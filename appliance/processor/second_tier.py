"""The second tier of volumes on a storage processor: built over first tiers here and elsewhere, served to hosts (R12).

A volume is made off line, from the bottom up; it serves from ``go_on_line`` on, and only those hosts that it is shown
to. When legs of a mirror fail, the MVSP alone can make that durable (D3): the volume reports it, and the requests
concerned wait until the VCM has it resumed with the tree that says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.control.orders import HoldVolume, MakeT2, ResumeVolume
from appliance.control.reports import Held, LegsLost, VolumeIs
from appliance.control.values import Show
from appliance.processor.first_tier import FirstTier
from appliance.processor.remotes import Remotes
from appliance.vsmdb import dirty_logs
from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.errors import TiergateError
from backstores.objects import AnyObject, LegState, MirrorObject, VolumeObject
from backstores.scsi.shared import SHARED_COMMANDS
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume.gate import HoldLimits
from backstores.volume.references import referenced
from backstores.volume.volume import Volume
from backstores.wwn import Wwn, short

log = logging.getLogger(__name__)

Report = Callable[[LegsLost | VolumeIs], None]


class StillThere(TiergateError):
    """Legs that a volume has given up are a part of its tree still: that they have failed could not be recorded."""


@dataclass(slots=True)
class Served:
    """A volume's second tier here. ``resumed`` is set by each resumption."""

    made: MakeT2
    volume: Volume
    unit: LogicalUnit
    drivers: dict[Wwn, AluDriver]  # the volume's own: what is added here, it has from the next tree on
    on_line: bool = False
    show: Show = field(default_factory=Show)
    resync: asyncio.Task[None] | None = None
    resumed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """What people call the volume."""
        head = self.made.objects[0]
        assert isinstance(head, VolumeObject)
        return head.name


class SecondTier:
    """All volumes that a storage processor serves, or is about to."""

    def __init__(self, engine: Engine, first: FirstTier, remotes: Remotes, report: Report) -> None:
        self._engine = engine
        self._first = first
        self._remotes = remotes
        self._report = report
        self._volumes: dict[Wwn, Served] = {}

    # Orders

    async def make(self, order: MakeT2) -> None:
        """Build a volume, off line; one of an older generation makes room.

        Raises:
            TiergateError: a part of it can't be reached, or is no proper tree.
        """
        await self.remove(order.volume)
        drivers, remote = await self._below(order)
        logs = await dirty_logs(self._engine, drivers, order.objects, order.objects, remote=remote)
        served: Served | None = None

        async def persist(changed: Sequence[AnyObject]) -> None:
            assert served is not None
            await self._recorded(served, changed)

        volume = Volume(referenced(order.objects, remote), drivers, self._engine, logs, persist)
        unit = LogicalUnit(volume, Identity(order.volume), commands=SHARED_COMMANDS)
        await volume.publish_logs()
        served = self._volumes[order.volume] = Served(order, volume, unit, drivers)

    async def go_on_line(self, volume: Wwn, show: Show) -> None:
        """Serve a volume; what an unclean stop has left different between legs is copied meanwhile (D2)."""
        served = self._volumes[volume]
        served.on_line, served.show = True, show
        if served.volume.pin_reads():
            log.warning("volume %s was not stopped cleanly: copying its dirty regions", served.name)
            served.resync = asyncio.create_task(self._resynchronize(served))

    def set_show(self, volume: Wwn, show: Show) -> None:
        """Serve a volume to these hosts."""
        self._volumes[volume].show = show

    async def hold(self, order: HoldVolume) -> Held:
        """Let what runs end, and what comes wait."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        await self._volumes[order.volume].volume.hold_all(HoldLimits(longest_s=order.most_s))
        return Held(after_s=loop.time() - since_s)

    async def resume(self, order: ResumeVolume) -> None:
        """Go on with a volume, as it was or as another generation of it."""
        served = self._volumes[order.volume]
        if order.made is None:
            served.volume.resume()
        else:
            await self._resume_as(served, order.made)
        log.info("volume %s goes on", served.name)
        served.resumed.set()

    async def _resume_as(self, served: Served, made: MakeT2) -> None:
        drivers, remote = await self._below(made)
        before = {obj.wwn for obj in served.made.objects}
        added = [obj for obj in made.objects if obj.wwn not in before]
        logs = await dirty_logs(self._engine, drivers, added, made.objects, remote=remote)
        grown = made.objects[0] != served.made.objects[0]
        served.made = made
        served.drivers.update(drivers)
        served.volume.resume(referenced(made.objects, remote), logs)
        if grown:
            served.unit.resized()

    async def go_off_line(self, volume: Wwn) -> None:
        """Stop serving a volume, cleanly. One that is not here needs nothing."""
        served = self._volumes.get(volume)
        if served is None:
            return
        served.on_line = False
        if served.resync is not None:
            served.resync.cancel()
            await asyncio.gather(served.resync, return_exceptions=True)
        served.unit.close()
        try:
            await served.volume.close()
        except TiergateError as error:
            log.error("volume %s was not stopped cleanly: %s", served.name, error)

    async def remove(self, volume: Wwn) -> None:
        """Delete a volume's second tier."""
        await self.go_off_line(volume)
        self._volumes.pop(volume, None)

    async def close(self) -> None:
        """Stop all volumes cleanly."""
        await asyncio.gather(*(self.go_off_line(volume) for volume in self._volumes))

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
            if served.on_line:
                try:
                    await served.volume.clean()
                except TiergateError as error:
                    log.error("volume %s: %s", served.name, error)

    async def _below(self, made: MakeT2) -> tuple[dict[Wwn, AluDriver], frozenset[Wwn]]:
        """Give the drivers of a tree's partitions: of ALUs here (LRN), and of those elsewhere (RRN), by their names."""
        drivers = dict(self._first.drivers(made.volume))
        there = self._drivers_of(made.volume)
        for reference in made.references:
            path = f"{short(reference.object)} at {reference.sp}"
            known = there.get(reference.object)
            drivers[reference.object] = (
                known
                if known is not None and known.path == path
                else await self._remotes.open(reference.sp, reference.object, path)
            )
        return drivers, frozenset(reference.object for reference in made.references)

    def _drivers_of(self, volume: Wwn) -> Mapping[Wwn, AluDriver]:
        served = self._volumes.get(volume)
        return {} if served is None else served.drivers

    async def _recorded(self, served: Served, changed: Sequence[AnyObject]) -> None:
        """Have it made durable that legs have failed, and wait until the volume goes on without them.

        Raises:
            StillThere: it goes on with them.
        """
        legs = {leg.child for obj in changed if isinstance(obj, MirrorObject) for leg in obj.legs if _failed(leg.state)}
        served.resumed.clear()
        self._report(LegsLost(volume=served.made.volume, generation=served.made.generation, legs=tuple(sorted(legs))))
        await served.resumed.wait()
        stays = {
            leg.child
            for obj in served.made.objects
            if isinstance(obj, MirrorObject)
            for leg in obj.legs
            if not _failed(leg.state)
        }
        if legs & stays:
            raise StillThere(f"legs {', '.join(map(short, sorted(legs & stays)))} could not be recorded as failed")

    async def _resynchronize(self, served: Served) -> None:
        made = served.made

        def progress(fraction: float) -> None:
            percent = round(100 * fraction, 1)
            self._report(VolumeIs(volume=made.volume, generation=made.generation, resync_percent=percent))

        detail = ""
        try:
            await served.volume.resynchronize(progress)
            log.info("volume %s: all legs are equal again", served.name)
        except TiergateError as error:
            detail = f"resynchronization ended: {error}"
            log.error("volume %s: %s", served.name, detail)
        self._report(VolumeIs(volume=made.volume, generation=made.generation, detail=detail))


def _failed(state: LegState) -> bool:
    return state is not LegState.IN_SYNC
