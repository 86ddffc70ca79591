"""Volumes: make them, show them to hosts, let them grow (R13, R14).

A volume itself lives on its ALUs; only who sees it is a setting. What a volume is made of is the
VBM's to decide, carrying it out is the storage processor's.
"""

from __future__ import annotations

from appliance.messages import AluState, AluStatus, Exposure, HostDefinition, VolumeStatus
from appliance.mic.hosts import OPEN_PATTERN
from appliance.mic.state import ManagementState, refuse_duplicate, with_item
from appliance.mic.values import LARGEST_LUN, human_size
from appliance.mic.views import (
    ExposureView,
    LegView,
    Outcome,
    ProgressReport,
    TreeNode,
    VolumeRow,
    VolumeView,
)
from appliance.mic.volumetree import below, volume_tree
from appliance.vbm import VolumeRequest, build_volume, grow_volume
from appliance.whole import build_whole
from backstores.errors import TiergateError, UsageError
from backstores.metadata.legacy import WHOLE_LAYOUTS
from backstores.objects import MirrorObject
from backstores.wwn import Wwn, short


class Volumes:
    """The commands of /volumes."""

    def __init__(self, state: ManagementState) -> None:
        self._state = state

    async def create(
        self,
        name: str,
        size: int | None,
        layout: str,
        pool: str | None,
        alus: tuple[str, ...] | None,
        chunk: int,
        legs: int,
        width: int,
        block: int,
        max_alus: int | None,
        progress: ProgressReport,
    ) -> Outcome:
        """Make a volume on named ALUs, on those of a pool, or wherever there is room, and bring it on line."""
        refuse_duplicate("volume", name, self._state.sp.volumes())
        if pool and alus:
            raise UsageError(f"volume {name}: say pool={pool} or alus={','.join(alus)}, not both")
        created = self._state.clock().isoformat(timespec="seconds")
        if layout in WHOLE_LAYOUTS:
            alu = self._only_alu(layout, alus)
            built = build_whole(name, layout, alu, block_bytes=block, size_bytes=size, created=created)
        elif size is None:
            raise UsageError(f"volume {name} needs a size, such as size=10G")
        else:
            inventory = self._inventory(alus or (self._state.pool(pool).alus if pool else None))
            built = build_volume(
                VolumeRequest(
                    name=name,
                    size_bytes=size,
                    layout=layout,
                    alus=tuple(status.wwn for status in inventory if status.wwn is not None) if alus else (),
                    chunk_bytes=chunk,
                    legs=legs,
                    width=width,
                    block_bytes=block,
                    max_alus=max_alus,
                    created=created,
                ),
                inventory,
            )
        progress(f"storing volume {name} on {', '.join(self._state.alus_of(built.objects))}", 1, 2)
        status = await self._state.sp.create_volume(built.objects)
        progress(f"volume {name} is {status.state}", 2, 2)
        return Outcome(
            f"volume {name} is {status.state}: {human_size(size_of(status))}, {status.layout}", notes=tuple(built.notes)
        )

    async def grow(self, name: str, size: int, progress: ProgressReport) -> Outcome:
        """Make a volume larger, with its hosts at work."""
        volume = self._state.volume(name)
        if volume.layout in WHOLE_LAYOUTS:
            [alu] = self._state.alus_of(volume.objects)
            raise UsageError(f"volume {name} is alu {alu} as it is, {human_size(size_of(volume))}: it can't grow")
        if size < size_of(volume):
            raise UsageError(
                f"size {human_size(size)} is less than volume {name} has ({human_size(size_of(volume))}); none shrinks"
            )
        if size == size_of(volume):
            return Outcome(f"volume {name} has {human_size(size)} already", changed=False)
        built = grow_volume(volume.objects, size - size_of(volume), self._inventory(None))
        progress(f"storing the larger volume {name}", 1, 2)
        grown = await self._state.sp.replace_volume(built.objects)
        progress(f"volume {name} has grown", 2, 2)
        return Outcome(f"volume {name} has {human_size(size_of(grown))} now", notes=tuple(built.notes))

    async def delete(self, name: str, force: bool) -> Outcome:
        """Delete a volume and what is on it; one that hosts see only by ``force``."""
        volume = self._state.volume(name)
        alus = self._state.alus_of(volume.objects)
        before = self._state.settings.exposures
        hosts = [exposure.host for exposure in before if exposure.volume == volume.wwn]
        if hosts and not force:
            raise UsageError(
                f"volume {name} is exposed to host {', '.join(hosts)}; unexpose it first, or say force=yes"
            )
        if hosts:
            await self._state.save(exposures=tuple(e for e in before if e.volume != volume.wwn))
        try:
            await self._state.sp.delete_volume(volume.wwn)
        except TiergateError:
            if hosts:
                await self._state.save(exposures=before)
            raise
        await self._state.forget_unit(volume.wwn)
        kept = f"; its data stay on alu {alus[0]}" if volume.layout in WHOLE_LAYOUTS else ""
        return Outcome(f"volume {name} is deleted{kept}")

    async def expose(self, name: str, host: str, lun: int | None, iqn: str | None) -> Outcome:
        """Let a host see a volume, under a LUN of choice or the lowest one free; with an iqn, a new host, too."""
        volume, definition = self._state.volume(name), self._host(host, iqn)
        exposures = self._state.settings.exposures
        taken = {e.lun: e.volume for e in exposures if e.host == host}
        for number, wwn in taken.items():
            if wwn == volume.wwn:
                if lun in (None, number):
                    return Outcome(f"volume {name} is exposed to host {host} as lun {number} already", changed=False)
                raise UsageError(
                    f"volume {name} is exposed to host {host} as lun {number} already;"
                    f" `/volumes/{name} unexpose host={host}` first"
                )
        if lun is None:
            lun = next((n for n in range(LARGEST_LUN + 1) if n not in taken), None)
        if lun is None:
            raise UsageError(f"host {host} has no lun free: 0 to {LARGEST_LUN} are taken")
        if lun in taken:
            raise UsageError(f"lun {lun} of host {host} is taken by volume {self._volume_name(taken[lun])}")
        wanted = (*exposures, Exposure(host=host, volume=volume.wwn, lun=lun))
        await self._state.save(
            hosts=with_item(self._state.settings.hosts, definition),
            exposures=tuple(sorted(wanted, key=lambda e: (e.host, e.lun))),
        )
        notes = list(self._urls(volume.wwn, definition, lun))
        if definition.iqn == OPEN_PATTERN:
            notes.append(f"host {host} is open: any initiator may log in as it")
        return Outcome(f"volume {name} is exposed to host {host} as lun {lun}", notes=tuple(notes))

    def _host(self, name: str, iqn: str | None) -> HostDefinition:
        """Give a host that is there, or a new one with this initiator name.

        Raises:
            UsageError: it is not there and no name is given, or it is there with another.
        """
        there = {host.name: host for host in self._state.settings.hosts}
        if iqn is None:
            return self._state.host(name)
        host = there.get(name, HostDefinition(name=name, iqn=iqn))
        if host.iqn != iqn:
            raise UsageError(f"host {name} logs in as {host.iqn}, not as {iqn}; leave iqn= out, or choose another name")
        return host

    async def unexpose(self, name: str, host: str) -> Outcome:
        """Take a volume away from a host."""
        volume = self._state.volume(name)
        self._state.host(host)
        before = self._state.settings.exposures
        after = tuple(e for e in before if (e.host, e.volume) != (host, volume.wwn))
        if after == before:
            return Outcome(f"volume {name} is not exposed to host {host}", changed=False)
        await self._state.save(exposures=after)
        return Outcome(f"host {host} sees volume {name} no more")

    async def info(self, name: str) -> VolumeView:
        """Tell all about one volume."""
        volume = self._state.volume(name)
        exposures = tuple(
            ExposureView(host=e.host, lun=e.lun, iscsi_urls=self._urls(e.volume, self._state.host(e.host), e.lun))
            for e in self._state.settings.exposures
            if e.volume == volume.wwn
        )
        return VolumeView(
            name=volume.name,
            state=volume.state,
            detail=volume.detail,
            size=human_size(size_of(volume)),
            size_bytes=size_of(volume),
            blocks=volume.blocks,
            block_bytes=volume.block_bytes,
            layout=volume.layout,
            wwn=volume.wwn,
            created=volume.created,
            resync_percent=volume.resync_percent,
            alus=self._state.alus_of(volume.objects),
            legs=self._legs(volume),
            exposures=exposures,
            iscsi_urls=tuple(url for exposure in exposures for url in exposure.iscsi_urls),
        )

    async def tree(self, name: str) -> TreeNode:
        """Show what a volume is made of, down to the ALUs."""
        return volume_tree(self._state.volume(name).objects, self._state.alu_names())

    async def rows(self) -> tuple[VolumeRow, ...]:
        """List the volumes, those off line included."""
        return tuple(self.row(volume) for volume in sorted(self._state.sp.volumes(), key=lambda v: v.name))

    def row(self, volume: VolumeStatus) -> VolumeRow:
        """Sum a volume up."""
        return VolumeRow(
            name=volume.name,
            state=volume.state,
            size=human_size(size_of(volume)),
            layout=volume.layout,
            hosts=tuple(e.host for e in self._state.settings.exposures if e.volume == volume.wwn),
            wwn=short(volume.wwn),
            size_bytes=size_of(volume),
        )

    def _inventory(self, names: tuple[str, ...] | None) -> list[AluStatus]:
        """Give the ALUs of these names in their order, or all that can be used."""
        if names is None:
            return [status for status in self._state.sp.alus() if status.state is AluState.OWNED]
        found = []
        for name in names:
            status = self._state.alu_status(self._state.alu(name))
            state = status.state if status else AluState.MISSING
            if state is AluState.LEGACY:
                raise UsageError(f"alu {name} is a legacy alu: layout legacy or direct takes it, as a whole")
            if status is None or state is not AluState.OWNED:
                raise UsageError(f"alu {name} is {state}, a volume takes owned ones only; see `/alus/{name} info`")
            found.append(status)
        return found

    def _only_alu(self, layout: str, names: tuple[str, ...] | None) -> AluStatus:
        """Give the one ALU that a volume is to be."""
        if names is None or len(names) != 1:
            raise UsageError(f"a {layout} volume is one alu as it is: name it with alus=NAME")
        status = self._state.alu_status(self._state.alu(names[0]))
        if status is None:
            raise UsageError(f"alu {names[0]} is missing; see `/alus/{names[0]} info`")
        return status

    def _legs(self, volume: VolumeStatus) -> tuple[LegView, ...]:
        return tuple(
            LegView(
                mirror=short(mirror.wwn),
                leg=short(leg.child),
                state=leg.state,
                alus=self._state.alus_of(below(volume.objects, leg.child)),
            )
            for mirror in volume.objects
            if isinstance(mirror, MirrorObject)
            for leg in mirror.legs
        )

    def _volume_name(self, wwn: str) -> str:
        names = {volume.wwn: volume.name for volume in self._state.sp.volumes()}
        return names.get(Wwn(wwn), f"{short(Wwn(wwn))}, which is missing")

    def _urls(self, volume: Wwn, host: HostDefinition, lun: int) -> tuple[str, ...]:
        """Give the URLs that libiscsi and QEMU take; behind ``user%`` goes the secret, for whoever knows it."""
        user = f"{host.chap_user}%@" if host.chap_user else ""
        sp = self._state.sp
        return tuple(f"iscsi://{user}{portal}/{sp.target_iqn}/{lun}" for portal in sp.portals_of(volume))


def size_of(volume: VolumeStatus) -> int:
    """Give a volume's size in bytes."""
    return volume.blocks * volume.block_bytes
