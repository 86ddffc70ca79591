"""ALUs: attach, claim and detach what volumes are made on (R1, R2)."""

from __future__ import annotations

from pathlib import PurePosixPath

from appliance.messages import AluState
from appliance.mic.settings import AluSetting
from appliance.mic.state import ManagementState, refuse_duplicate, with_item, without
from appliance.mic.values import human_size, parse_name
from appliance.mic.views import AluView, Outcome
from backstores.errors import TiergateError, UsageError
from backstores.objects import PartitionObject


class Alus:
    """The commands of /alus."""

    def __init__(self, state: ManagementState) -> None:
        self._state = state

    async def attach(self, path: str, size: int | None, name: str | None) -> Outcome:
        """Open a file or device; a file is made when a size is given; what is blank is claimed."""
        state = self._state
        name = name or default_name(path)
        refuse_duplicate("alu", name, state.settings.alus)
        for alu in state.settings.alus:
            if alu.path == path:
                raise UsageError(f"{path} is attached already, as alu {alu.name}")
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

    async def detach(self, name: str) -> Outcome:
        """Close an ALU that no pool and no volume uses; what lies on it stays."""
        state = self._state
        setting = state.alu(name)
        pools = self._pools_of(name)
        if pools:
            raise UsageError(f"alu {name} is in pool {pools[0]}; `/pools/{pools[0]} remove alus={name}` first")
        volumes = self._volumes_of(setting)
        if volumes:
            raise UsageError(f"alu {name} holds parts of volume {', '.join(volumes)}")
        attached = state.alu_status(setting) is not None
        if attached:
            await state.sp.detach(setting.path)
        try:
            await state.save(alus=without(state.settings.alus, name))
        except TiergateError:
            if attached:
                await state.sp.attach(setting.path)
            raise
        state.missing.pop(setting.path, None)
        return Outcome(f"alu {name} is detached; what lies on it is kept")

    async def claim(self, name: str, force: bool) -> Outcome:
        """Make an ALU ours; ``force`` loses the data or the other appliance's volumes on it."""
        setting = self._state.alu(name)
        status = self._state.alu_status(setting)
        if status is None:
            raise UsageError(f"alu {name} is missing: {self._state.missing.get(setting.path, setting.path)}")
        if status.state is AluState.OWNED:
            return Outcome(f"alu {name} is owned by this appliance already", changed=False)
        status = await self._state.sp.claim(setting.path, force)
        return Outcome(f"alu {name} is claimed: {human_size(status.size_bytes)}, {status.state}")

    async def info(self, name: str) -> AluView:
        """Tell all about one ALU."""
        return self.view(self._state.alu(name))

    async def rows(self) -> tuple[AluView, ...]:
        """List the ALUs, those that are not owned or missing included."""
        return tuple(self.view(alu) for alu in self._state.settings.alus)

    def view(self, setting: AluSetting) -> AluView:
        """Put together what the settings and the storage processor know of an ALU."""
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
            volumes=self._volumes_of(setting),
            detail=status.detail if status else self._state.missing.get(setting.path, ""),
            wwn=(status.wwn or "") if status else "",
            size_bytes=size_bytes,
            free_bytes=free_bytes,
        )

    def _pools_of(self, name: str) -> tuple[str, ...]:
        return tuple(pool.name for pool in self._state.settings.pools if name in pool.alus)

    def _volumes_of(self, setting: AluSetting) -> tuple[str, ...]:
        status = self._state.alu_status(setting)
        if status is None or status.wwn is None:
            return ()
        return tuple(
            volume.name
            for volume in self._state.sp.volumes()
            if any(isinstance(item, PartitionObject) and item.alu == status.wwn for item in volume.objects)
        )


def default_name(path: str) -> str:
    """Name an ALU after its file: ``/srv/disk0.img`` is ``disk0``.

    Raises:
        UsageError: the file's name makes no name.
    """
    try:
        return parse_name(PurePosixPath(path).stem)
    except UsageError as error:
        raise UsageError(f"{error}; choose one with name=") from error
