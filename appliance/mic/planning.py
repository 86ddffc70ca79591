"""The plan of ``apply``: what a document wants and what is present, compared entry by entry.

Steps are in an order in which each finds what it needs: first what is taken away, then ALUs, pools,
volumes, hosts, and who sees what. Every reference and every change that is impossible is found
while planning, so that an error means that nothing has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from appliance.messages import HostDefinition, VolumeStatus
from appliance.mic import values
from appliance.mic.alus import Alus
from appliance.mic.document import AluEntry, Document, HostEntry, PoolEntry, VolumeEntry, size_in
from appliance.mic.hosts import check_chap
from appliance.mic.settings import PoolSetting
from appliance.mic.state import HasName, ManagementState, Named, with_item
from appliance.mic.views import Outcome, untold
from appliance.mic.volumes import Volumes
from backstores.errors import UsageError
from backstores.metadata.legacy import WHOLE_LAYOUTS
from backstores.secretfile import check_secret, read_secret

_YES_NO: Final = {True: "yes", False: "no"}


@dataclass(frozen=True, slots=True)
class Step:
    """What is done at once, and how it is told."""

    texts: tuple[str, ...]
    run: Callable[[], Awaitable[Outcome]]


class Planner:
    """Compares a document with what is present. ``prune``: what the document does not name shall go."""

    def __init__(
        self,
        state: ManagementState,
        alus: Alus,
        volumes: Volumes,
        wanted: Document,
        present: Document,
        described: Callable[[VolumeStatus], VolumeEntry],
        prune: bool,
    ) -> None:
        self._state = state
        self._alus = alus
        self._volumes = volumes
        self._wanted = wanted
        self._present = present
        self._described = described
        self._prune = prune

    async def plan(self) -> list[Step]:
        """Give the steps from what is present to what is wanted.

        Raises:
            UsageError: a reference leads nowhere, or a difference can't be made.
        """
        self._check_references()
        hidden, shown = self._exposure_steps()
        hosts = await self._host_steps()
        return [
            *hidden,
            *self._deleted_volume_steps(),
            *self._deleted_pool_steps(),
            *self._new_alu_steps(),
            *self._pool_steps(),
            *self._detached_alu_steps(),
            *self._volume_steps(),
            *hosts,
            *shown,
        ]

    def _check_references(self) -> None:
        alus, pools = self._names("alus"), self._names("pools")
        volumes, hosts = self._names("volumes"), self._names("hosts")
        for pool in self._wanted.pools:
            _refer(f"pool {pool.name}", "alu", pool.alus, alus)
        for volume in self._wanted.volumes:
            _refer(f"volume {volume.name}", "alu", volume.alus or (), alus)
            _refer(f"volume {volume.name}", "pool", (volume.pool,) if volume.pool else (), pools)
            if volume.alus and volume.pool:
                raise UsageError(f"volume {volume.name}: alus and pool are both given; say one of them")
        for exposure in self._wanted.exposures:
            _refer(f"exposure of {exposure.volume}", "volume", (exposure.volume,), volumes)
            _refer(f"exposure of {exposure.volume}", "host", (exposure.host,), hosts)

    def _names(self, kind: str) -> set[str]:
        """Name what there will be of a kind when all is done."""
        wanted: Iterable[HasName] = getattr(self._wanted, kind)
        present: Iterable[HasName] = getattr(self._present, kind)
        return {e.name for e in wanted} | (set() if self._prune else {e.name for e in present})

    def _new_alu_steps(self) -> Iterator[Step]:
        present = {entry.name: entry for entry in self._present.alus}
        for entry in sorted(self._wanted.alus, key=lambda alu: alu.legacy):  # what is known of those lies on the others
            there = present.get(entry.name)
            size = size_in(entry.size) if entry.size is not None else None
            if there is None:
                how = ", a legacy one" if entry.legacy else ""
                yield Step((f"attach alu {entry.name} at {entry.path}{how}",), partial(self._attach, entry, size))
                continue
            _same("alu", entry.name, "legacy", _YES_NO[there.legacy], _YES_NO[entry.legacy], "detach it first")
            _same("alu", entry.name, "path", there.path, values.parse_location(entry.path), "detach it first")
            if size is not None and there.size is not None:
                _same("alu", entry.name, "size", size_in(there.size), size, "its size can't be changed")

    async def _attach(self, entry: AluEntry, size: int | None) -> Outcome:
        return await self._alus.attach(values.parse_location(entry.path), size, entry.name, entry.legacy, force=False)

    def _detached_alu_steps(self) -> Iterator[Step]:
        for entry in self._surplus(self._present.alus, self._wanted.alus):
            yield Step((f"detach alu {entry.name}",), partial(self._alus.detach, entry.name))

    def _pool_steps(self) -> Iterator[Step]:
        present = {entry.name: entry for entry in self._present.pools}
        for entry in self._wanted.pools:
            there = present.get(entry.name)
            if there is None or there.alus != entry.alus:
                before = f" instead of {', '.join(there.alus)}" if there else ""
                text = f"make pool {entry.name} of {', '.join(entry.alus)}{before}"
                yield Step((text,), partial(self._put_pool, entry))

    async def _put_pool(self, entry: PoolEntry) -> Outcome:
        pools = self._state.settings.pools
        await self._state.save(pools=with_item(pools, PoolSetting(entry.name, entry.alus)))
        return Outcome(f"pool {entry.name} is made of {', '.join(entry.alus)}")

    def _deleted_pool_steps(self) -> Iterator[Step]:
        for entry in self._surplus(self._present.pools, self._wanted.pools):
            yield Step((f"delete pool {entry.name}",), partial(self._delete_pool, entry.name))

    async def _delete_pool(self, name: str) -> Outcome:
        await self._state.save(pools=tuple(pool for pool in self._state.settings.pools if pool.name != name))
        return Outcome(f"pool {name} is deleted")

    def _volume_steps(self) -> Iterator[Step]:
        present = {entry.name: entry for entry in self._present.volumes}
        for entry in self._wanted.volumes:
            there = present.get(entry.name)
            size = size_in(entry.size)
            if there is None:
                yield Step((f"create volume {entry.name}, {entry.size}, {entry.layout}",), partial(self._create, entry))
            elif _growth(there, entry):
                grow = partial(self._volumes.grow, entry.name, size, untold)
                yield Step((f"grow volume {entry.name} from {there.size} to {entry.size}",), grow)

    async def _create(self, entry: VolumeEntry) -> Outcome:
        """Create a volume, unless ALUs that were just attached have brought it along: the settings had been lost."""
        brought = next((volume for volume in self._state.sp.volumes() if volume.name == entry.name), None)
        if brought is not None:
            if _growth(self._described(brought), entry):
                await self._volumes.grow(entry.name, size_in(entry.size), untold)
            return Outcome(f"volume {entry.name} is there", notes=(f"volume {entry.name} was found on its ALUs",))
        return await self._volumes.create(
            entry.name,
            size_in(entry.size),
            entry.layout,
            entry.pool,
            entry.alus,
            size_in(entry.chunk or "64K"),
            entry.legs or 2,
            entry.width or 2,
            entry.block,
            None,
            untold,
        )

    def _deleted_volume_steps(self) -> Iterator[Step]:
        for entry in self._surplus(self._present.volumes, self._wanted.volumes):
            delete = partial(self._volumes.delete, entry.name, force=True)
            yield Step((f"delete volume {entry.name} and its data",), delete)

    async def _host_steps(self) -> list[Step]:
        """Change the hosts in one go: two that swap their names must never be equal in between."""
        present = {host.name: host for host in self._state.settings.hosts}
        final = {} if self._prune else dict(present)
        for entry in self._wanted.hosts:
            final[entry.name] = await _definition(entry, present.get(entry.name))
        owners: dict[str, str] = {}
        for host in final.values():
            other = owners.setdefault(host.iqn, host.name)
            if other != host.name:
                raise UsageError(f"iqn {host.iqn} is host {other}'s and host {host.name}'s")
        texts = [f"delete host {name}" for name in present.keys() - final.keys()]
        texts += [f"create host {name} as {final[name].iqn}" for name in final.keys() - present.keys()]
        texts += [f"change host {name}" for name in final.keys() & present.keys() if final[name] != present[name]]
        return [Step(tuple(sorted(texts)), partial(self._put_hosts, tuple(final.values())))] if texts else []

    async def _put_hosts(self, hosts: tuple[HostDefinition, ...]) -> Outcome:
        names = {host.name for host in hosts}
        await self._state.save(
            hosts=tuple(sorted(hosts, key=lambda host: host.name)),
            exposures=tuple(e for e in self._state.settings.exposures if e.host in names),
        )
        return Outcome("the hosts are changed")

    def _exposure_steps(self) -> tuple[list[Step], list[Step]]:
        """Give the steps that take volumes away from hosts, and those that show them."""
        present = {(e.host, e.volume): e.lun for e in self._present.exposures}
        wanted = {(e.host, e.volume): e.lun for e in self._wanted.exposures}
        stays = {key: lun for key, lun in present.items() if key not in wanted and not self._prune}
        for key, lun in wanted.items():
            if lun is None and key in present:
                wanted[key] = present[key]
        self._check_luns(stays, wanted)
        gone = [key for key in present if wanted.get(key, stays.get(key, -1)) != present[key]]
        new = [key for key in wanted if key not in present or key in gone]
        return (
            [
                Step((f"unexpose volume {volume} from host {host}",), partial(self._volumes.unexpose, volume, host))
                for host, volume in gone
            ],
            [
                Step((_expose_text(host, volume, lun),), partial(self._volumes.expose, volume, host, lun, None))
                for (host, volume), lun in ((key, wanted[key]) for key in sorted(new, key=lambda k: wanted[k] is None))
            ],
        )

    def _check_luns(self, *maps: dict[tuple[str, str], int | None]) -> None:
        taken: dict[tuple[str, int], str] = {}
        for (host, volume), lun in ((key, lun) for one in maps for key, lun in one.items()):
            if lun is not None:
                other = taken.setdefault((host, lun), volume)
                if other != volume:
                    raise UsageError(f"lun {lun} of host {host} is volume {other}'s and volume {volume}'s")

    def _surplus(self, present: Sequence[Named], wanted: Iterable[HasName]) -> list[Named]:
        names = {entry.name for entry in wanted}
        return [entry for entry in present if entry.name not in names] if self._prune else []


def _expose_text(host: str, volume: str, lun: int | None) -> str:
    return f"expose volume {volume} to host {host}" + ("" if lun is None else f" as lun {lun}")


def _refer(who: str, what: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{who} names {what} {values.shown(name)}, which is neither in the file nor there already")


def _same(kind: str, name: str, what: str, has: object, says: object, way_out: str) -> None:
    if has != says:
        raise UsageError(f"{kind} {name} has {what} {has}, the file says {says}; {way_out}")


def _growth(there: VolumeEntry, entry: VolumeEntry) -> bool:
    """Say whether a volume is to grow, and refuse what can't be changed; what the file leaves out is as it is."""
    checks: tuple[tuple[str, object, object], ...] = (
        ("layout", there.layout, entry.layout),
        ("block", there.block, entry.block),
        ("alus", there.alus, entry.alus),
        ("legs", there.legs, entry.legs),
        ("width", there.width, entry.width),
        ("chunk", there.chunk and size_in(there.chunk), entry.chunk and size_in(entry.chunk)),
    )
    for what, has, says in checks:
        if has is not None and says is not None:
            _same("volume", entry.name, what, has, says, "it can't be changed; delete the volume first")
    if entry.layout in WHOLE_LAYOUTS:
        _same(
            "volume", entry.name, "size", there.size, values.exact_size(size_in(entry.size)), "it is its alu as it is"
        )
    if size_in(entry.size) < size_in(there.size):
        raise UsageError(f"volume {entry.name} has {there.size}, the file says {entry.size}; none shrinks")
    return size_in(entry.size) > size_in(there.size)


async def _definition(entry: HostEntry, present: HostDefinition | None) -> HostDefinition:
    """Turn an entry into a host; a secret that it leaves out is the one that the host has."""
    chap = await _secret(entry.name, "chap", entry.chap_secret, entry.chap_secret_file)
    mutual = await _secret(entry.name, "mutual", entry.mutual_secret, entry.mutual_secret_file)
    if present and entry.chap_user == present.chap_user:
        chap = chap or present.chap_secret
    if present and entry.mutual_user == present.mutual_user:
        mutual = mutual or present.mutual_secret
    return check_chap(
        HostDefinition(
            name=entry.name,
            iqn=values.parse_iscsi_pattern(entry.iqn),
            chap_user=entry.chap_user or "",
            chap_secret=chap,
            mutual_user=entry.mutual_user or "",
            mutual_secret=mutual,
        )
    )


async def _secret(host: str, what: str, secret: str | None, path: str | None) -> str:
    if secret is not None and path is not None:
        raise UsageError(f"host {host}: {what}-secret and {what}-secret-file are both given; say one of them")
    if secret is not None:
        return check_secret(secret, f"host {host}: the {what}-secret")
    return await asyncio.to_thread(read_secret, path) if path is not None else ""
