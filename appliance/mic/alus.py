"""ALUs: attach, scan for, claim and detach what volumes are made on (R1, R2).

What a scan finds is attached, so that nobody else takes it, and listed; but it is no setting, so that it can go
again without being missed. It becomes one when it is claimed, or at once if it bears our SUSID: a disk of ours that
comes late brings its volumes back (R30).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from appliance.discovery import Disk, DiskFinder
from appliance.messages import AluState, AluStatus
from appliance.mic.settings import AluSetting
from appliance.mic.state import ManagementState, find, refuse_duplicate, with_item, without
from appliance.mic.values import human_size, parse_name
from appliance.mic.views import AluView, Outcome
from backstores.alu.url import is_url
from backstores.errors import TiergateError, UsageError
from backstores.objects import PartitionObject
from backstores.wwn import Wwn

log = logging.getLogger(__name__)


class Alus:
    """The commands of /alus."""

    def __init__(self, state: ManagementState, find_disks: DiskFinder) -> None:
        self._state = state
        self._find_disks = find_disks

    async def attach(
        self, path: str, size: int | None, name: str | None, legacy: bool = False, force: bool = False
    ) -> Outcome:
        """Open a file or device; a file is made when a size is given; what is blank is claimed.

        Unless it is ``legacy``: then nothing on it is touched; ``force``, though something else stood at the path.
        """
        name = name or default_name(path)
        found = next((disk for disk in self._state.found if path in (disk.path, disk.device)), None)
        refuse_duplicate("alu", name, self._state.settings.alus)
        refuse_duplicate("alu", name, (disk for disk in self._state.found if disk != found))
        for alu in self._state.settings.alus:
            if alu.path == path:
                raise UsageError(f"{path} is attached already, as alu {alu.name}")
        if legacy:
            if size is not None:
                raise UsageError("size= makes a file, legacy=yes takes what is there as it is: leave one of them out")
            return await self._attach_legacy(AluSetting(name, path, legacy=True), found, force)
        if force:
            raise UsageError(f"force=yes goes with legacy=yes; `/alus/{name} claim force=yes` loses what is on an alu")
        if found is not None:
            raise UsageError(f"{path} is listed already, as alu {found.name}; `/alus/{found.name} claim` makes it ours")
        return await self._attach_own(name, path, size)

    async def _attach_legacy(self, setting: AluSetting, found: Disk | None, force: bool) -> Outcome:
        """Attach an ALU as it is, also one that a scan has ``found``."""
        state = self._state
        if found is not None:
            await self._drop(found)
        status = await state.sp.attach_legacy(setting.path, force)
        try:
            await state.save(alus=with_item(state.settings.alus, setting))
        except TiergateError:
            await state.sp.detach(setting.path)
            raise
        return Outcome(f"alu {setting.name} is attached: {human_size(status.size_bytes)}, {status.state}")

    async def _attach_own(self, name: str, path: str, size: int | None) -> Outcome:
        state = self._state
        status = await state.sp.attach(path, size)
        notes: list[str] = []
        try:
            if status.state is AluState.BLANK:
                try:
                    status = await state.sp.claim(path)
                except UsageError as error:  # it holds somebody's data: listed, never used until claimed (R2)
                    notes.append(f"it is not used yet: {error} (`/alus/{name} claim force=yes`)")
            elif status.state is not AluState.OWNED:
                notes.append(f"it is {status.state}, and not used: {status.detail}")
            setting = AluSetting(name, path, size)
            await state.save(alus=with_item(state.settings.alus, setting))
        except TiergateError:
            await state.sp.detach(path)
            raise
        return Outcome(f"alu {name} is attached: {human_size(status.size_bytes)}, {status.state}", notes=tuple(notes))

    async def scan(self) -> Outcome:
        """Look again for ALUs that are missing, and for disks that nobody has attached and nothing uses."""
        disks = await asyncio.to_thread(self._find_disks)
        await self._forget_gone(disks)
        news = [text for alu in self._state.settings.alus if (text := await self._look_again(alu))]
        news += [text for disk in disks if not self._is_known(disk) and (text := await self._take_in(disk))]
        if not news:
            return Outcome("the scan has found nothing new", changed=False)
        return Outcome(f"the scan has found {', '.join(news)}")

    async def _forget_gone(self, disks: Sequence[Disk]) -> None:
        """Let go of what an earlier scan had found and is not there any more."""
        there = {disk.path for disk in disks}
        for disk in self._state.found:
            if disk.path not in there:
                await self._drop(disk)

    async def _look_again(self, alu: AluSetting) -> str:
        """Attach an ALU of the settings that was missing."""
        if alu.path not in self._state.missing:
            return ""
        try:
            status = await self._state.attach(alu)
        except TiergateError as error:
            self._state.missing[alu.path] = str(error)
            return ""
        del self._state.missing[alu.path]
        return _news(alu.name, status)

    def _is_known(self, disk: Disk) -> bool:
        return any(alu.path in (disk.path, disk.device) for alu in self._state.listed)

    async def _take_in(self, disk: Disk) -> str:
        """List a disk that nobody uses, under a name that is free."""
        state = self._state
        try:
            status = await state.sp.attach(disk.path)
        except TiergateError as error:  # mounted, held by something, or broken: no business of ours
            log.info("disk %s is left alone: %s", disk.name, error)
            return ""
        taken = {alu.name for alu in state.listed}
        names = (disk.name, *(f"{disk.name}-{number}" for number in range(2, len(taken) + 3)))
        named = replace(disk, name=next(name for name in names if name not in taken))
        state.found = (*state.found, named)
        if status.state is AluState.OWNED:
            await self._keep(named)
        return _news(named.name, status)

    async def _keep(self, disk: Disk) -> None:
        """Make what a scan has found a setting."""
        state = self._state
        await state.save(alus=with_item(state.settings.alus, AluSetting(disk.name, disk.path)))
        state.found = tuple(other for other in state.found if other != disk)

    async def _drop(self, disk: Disk) -> None:
        """Let go of what a scan has found."""
        await self._state.sp.detach(disk.path)
        self._state.found = tuple(other for other in self._state.found if other != disk)

    def _found(self, name: str) -> Disk | None:
        return next((disk for disk in self._state.found if disk.name == name), None)

    async def detach(self, name: str) -> Outcome:
        """Close an ALU that no pool and no volume uses; what lies on it stays."""
        state = self._state
        if (disk := self._found(name)) is not None:
            await self._drop(disk)
            return Outcome(f"alu {name} is detached; the next scan finds it again")
        setting = state.alu(name)
        pools = self._pools_of(name)
        if pools:
            raise UsageError(f"alu {name} is in pool {pools[0]}; `/pools/{pools[0]} remove alus={name}` first")
        status = state.alu_status(setting)
        if status and status.wwn and (volumes := self._users().get(status.wwn)):
            raise UsageError(f"alu {name} holds parts of volume {', '.join(volumes)}")
        if status is not None:
            await state.sp.detach(setting.path)
        else:
            await state.sp.forget(setting.path)
        try:
            await state.save(alus=without(state.settings.alus, name))
        except TiergateError:
            if status is not None:
                await state.attach(setting)
            raise
        state.missing.pop(setting.path, None)
        return Outcome(f"alu {name} is detached; what lies on it is kept")

    async def claim(self, name: str, force: bool) -> Outcome:
        """Make an ALU ours; ``force`` loses the data or the other appliance's volumes on it."""
        setting, disk = self._listed(name), self._found(name)
        status = self._state.alu_status(setting)
        if status is None:
            raise UsageError(f"alu {name} is missing: {self._state.missing.get(setting.path, setting.path)}")
        if status.state is AluState.OWNED and disk is None:
            return Outcome(f"alu {name} is owned by this appliance already", changed=False)
        if status.state is not AluState.OWNED:
            status = await self._state.sp.claim(setting.path, force)
        if disk is not None:
            await self._keep(disk)
        return Outcome(f"alu {name} is claimed: {human_size(status.size_bytes)}, {status.state}")

    async def claim_several(self, alus: tuple[str, ...], force: bool) -> Outcome:
        """Claim one after the other; a name that is wrong is refused before the first."""
        for name in alus:
            self._listed(name)
        done: list[Outcome] = []
        for name in alus:
            try:
                done.append(await self.claim(name, force))
            except UsageError as error:
                raise UsageError(f"{error} ({len(done)} of {len(alus)} done)") from error
        return Outcome("; ".join(outcome.message for outcome in done), changed=any(o.changed for o in done))

    async def info(self, name: str) -> AluView:
        """Tell all about one ALU."""
        return self.view(self._listed(name), self._users())

    async def rows(self) -> tuple[AluView, ...]:
        """List the ALUs, those that are not owned or missing included."""
        users = self._users()
        return tuple(self.view(alu, users) for alu in self._state.listed)

    def _listed(self, name: str) -> AluSetting:
        return find("alu", name, self._state.listed)

    def view(self, setting: AluSetting, users: Mapping[Wwn, Sequence[str]]) -> AluView:
        """Put together what the settings and the storage processor know of an ALU. ``users``: volumes by ALU."""
        status = self._state.alu_status(setting)
        size_bytes = status.size_bytes if status else setting.size_bytes or 0
        free_bytes = status.free_bytes if status else 0
        return AluView(
            name=setting.name,
            state=status.state if status else AluState.MISSING,
            size=human_size(size_bytes),
            free=human_size(free_bytes),
            kind=status.kind if status else "",
            path=setting.path,
            pools=self._pools_of(setting.name),
            volumes=tuple(users.get(status.wwn, ())) if status and status.wwn else (),
            detail=status.detail if status else self._state.missing.get(setting.path, ""),
            wwn=(status.wwn or "") if status else "",
            gs="member" if status and status.gs_member else "",
            size_bytes=size_bytes,
            free_bytes=free_bytes,
        )

    def _pools_of(self, name: str) -> tuple[str, ...]:
        return tuple(pool.name for pool in self._state.settings.pools if name in pool.alus)

    def _users(self) -> dict[Wwn, list[str]]:
        """Say which volumes have parts on which ALU."""
        users: defaultdict[Wwn, list[str]] = defaultdict(list)
        for volume in self._state.sp.volumes():
            for alu in {item.alu for item in volume.objects if isinstance(item, PartitionObject)}:
                users[alu].append(volume.name)
        return dict(users)


def _news(name: str, status: AluStatus) -> str:
    return f"{name} ({human_size(status.size_bytes)}, {status.state})"


def default_name(path: str) -> str:
    """Name an ALU after its file: ``/srv/disk0.img`` is ``disk0``.

    Raises:
        UsageError: the file's name makes no name, or it is no file.
    """
    if is_url(path):
        raise UsageError("a unit of a target has no name of its own; choose one with name=")
    try:
        return parse_name(PurePosixPath(path).stem)
    except UsageError as error:
        raise UsageError(f"{error}; choose one with name=") from error
