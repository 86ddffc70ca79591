"""What the parts of the management share: the settings, the store behind them, and the storage processor.

A change of the settings is made durable first, then it takes effect. Reading never waits: the
settings are in memory, and so is what a storage processor tells of its ALUs and volumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

from appliance.discovery import Disk
from appliance.messages import AluStatus, HostDefinition, StorageProcessorPort, VolumeStatus
from appliance.mic.settings import AluSetting, PoolSetting, Settings, SettingsStore
from backstores.errors import TiergateError, UsageError
from backstores.objects import AnyObject, PartitionObject
from backstores.wwn import Wwn

Clock = Callable[[], datetime]


class HasName(Protocol):
    """Whatever people call by a name."""

    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=HasName)


class ManagementState:
    """The truth that the commands read and change."""

    def __init__(self, store: SettingsStore, sp: StorageProcessorPort, clock: Clock) -> None:
        self.store = store
        self.sp = sp
        self.clock = clock
        self.settings = Settings()
        self.missing: dict[str, str] = {}  # path of an ALU that could not be opened: why
        self.found: tuple[Disk, ...] = ()  # the non-owned pool: attached by a scan, and no setting until claimed (R2)

    async def load(self) -> None:
        """Take over what was saved: attach the ALUs, bring the volumes on line, let the hosts in.

        An ALU that can't be opened is listed as missing; it holds nothing else up (C3). Legacy ALUs come last: what
        is known of them lies on the others.
        """
        self.settings = await asyncio.to_thread(self.store.load)
        await self._attach_all(legacy=False)
        await self.sp.bring_on_line()
        await self._attach_all(legacy=True)
        await self.sp.set_exposures(self.settings.hosts, self.settings.exposures)

    async def _attach_all(self, legacy: bool) -> None:
        for alu in self.settings.alus:
            if alu.legacy is legacy:
                try:
                    await self.attach(alu)
                except TiergateError as error:
                    self.missing[alu.path] = str(error)

    async def attach(self, alu: AluSetting) -> AluStatus:
        """Have an ALU of the settings attached as what it is."""
        return await (self.sp.attach_legacy(alu.path) if alu.legacy else self.sp.attach(alu.path))

    async def save(self, **changes: object) -> None:
        """Change the settings: all of it, or with an error nothing."""
        before, wanted = self.settings, msgspec.structs.replace(self.settings, **changes)
        await self.sp.set_exposures(wanted.hosts, wanted.exposures)  # first, because the front end may refuse
        try:
            await asyncio.to_thread(self.store.save, wanted)
        except BaseException:
            await self.sp.set_exposures(before.hosts, before.exposures)
            raise
        self.settings = wanted

    async def forget_unit(self, wwn: Wwn) -> None:
        """Drop what was saved of a deleted volume's logical unit."""
        await asyncio.to_thread(self.store.drop_unit, wwn)

    @property
    def listed(self) -> tuple[AluSetting, ...]:
        """The ALUs in the settings and those that a scan has found, in the order of their names."""
        found = (AluSetting(disk.name, disk.path) for disk in self.found)
        return tuple(sorted((*self.settings.alus, *found)))

    def alu(self, name: str) -> AluSetting:
        """Find an ALU's setting by its name.

        Raises:
            UsageError: there is none, or a scan has found it, and it is nobody's yet.
        """
        if any(disk.name == name for disk in self.found):
            raise UsageError(f"alu {name} is not used until it is claimed: `/alus/{name} claim`")
        return find("alu", name, self.settings.alus)

    def pool(self, name: str) -> PoolSetting:
        """Find a pool by its name."""
        return find("pool", name, self.settings.pools)

    def host(self, name: str) -> HostDefinition:
        """Find a host by its name."""
        return find("host", name, self.settings.hosts)

    def volume(self, name: str) -> VolumeStatus:
        """Find a volume by its name."""
        return find("volume", name, self.sp.volumes())

    def alu_status(self, alu: AluSetting) -> AluStatus | None:
        """Give what the storage processor says of an ALU; None while it is missing."""
        return next((status for status in self.sp.alus() if status.path == alu.path), None)

    def alu_names(self) -> dict[Wwn, str]:
        """Give the name of each ALU by its WWN."""
        by_path = {status.path: status.wwn for status in self.sp.alus()}
        pairs = ((by_path.get(alu.path), alu.name) for alu in self.settings.alus)
        return {wwn: name for wwn, name in pairs if wwn is not None}

    def alus_of(self, objects: Iterable[AnyObject]) -> tuple[str, ...]:
        """Name the ALUs that objects lie on, each once, in the order of the tree."""
        names = self.alu_names()
        used = (item.alu for item in objects if isinstance(item, PartitionObject))
        return tuple(dict.fromkeys(names.get(wwn, f"missing {wwn}") for wwn in used))


def find(what: str, name: str, things: Iterable[Named]) -> Named:
    """Pick a thing by its name.

    Raises:
        UsageError: there is none; names those there are.
    """
    names = []
    for thing in things:
        if thing.name == name:
            return thing
        names.append(thing.name)
    raise UsageError(f"there is no {what} {name}; {listing(what, names)}")


def listing(what: str, names: list[str]) -> str:
    """Say which names there are, for an error line."""
    if not names:
        return f"there are no {what}s"
    some = ", ".join(sorted(names)[:10])
    return f"there are {some} and {len(names) - 10} more" if len(names) > 10 else f"there is {some}"


def refuse_duplicate(what: str, name: str, things: Iterable[HasName]) -> None:
    """Refuse a name that is taken.

    Raises:
        UsageError: it is.
    """
    if any(thing.name == name for thing in things):
        raise UsageError(f"{what} {name} exists already")


def with_item(things: tuple[Named, ...], item: Named) -> tuple[Named, ...]:
    """Put an item in the place of the one with its name, or add it; in the order of names."""
    return tuple(sorted((*without(things, item.name), item), key=lambda thing: thing.name))


def without(things: tuple[Named, ...], name: str) -> tuple[Named, ...]:
    """Leave the item of this name out."""
    return tuple(thing for thing in things if thing.name != name)
