"""The VSMDB at the hands of its one master: the definitions of all volumes, as they lie on the ALUs (R3, R9).

Whoever has the ALUs open, be it in this process or by way of other storage processors, collects from them what
volumes there are, and stores what changes. What space a new volume takes is empty, and the bitmaps of its mirrors
are clean, before its objects are stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence

from appliance import assembly
from appliance.assembly import Judged
from appliance.inventory import Inventory
from appliance.objectstore import ObjectStore
from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.metadata.bitmap import Geometry
from backstores.metadata.merge import SystemImage, system_image
from backstores.objects import AnyObject, LegState, MirrorObject, PartitionObject, VolumeObject
from backstores.volume.dirty import DirtyLog, LegLog
from backstores.volume.references import leg_log
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

MakeLog = Callable[[Engine, Geometry, Sequence[LegLog]], Awaitable[DirtyLog]]


class Vsmdb:
    """All definitions on the ALUs of an inventory."""

    def __init__(self, engine: Engine, inventory: Inventory) -> None:
        self._engine = engine
        self._inventory = inventory
        self._store = ObjectStore(inventory)
        self._told: set[str] = set()

    async def collect(self, mend: bool = True) -> list[Judged]:
        """Read what volumes there are, and judge which can serve. ``mend``: the ALUs may be changed."""
        image = await self._store.mend() if mend else system_image(self._inventory.records())
        self._tell(image)
        suspects = self._inventory.suspects
        return [assembly.judge(tree, suspects) for tree in image.volumes]

    def _tell(self, image: SystemImage) -> None:
        """Log what is wrong with the metadata, each thing once."""
        for finding in map(str, image.findings):
            if finding not in self._told:
                self._told.add(finding)
                log.warning("%s", finding)

    async def create(self, tree: Sequence[AnyObject]) -> None:
        """Store a new volume, its space empty and its bitmaps clean.

        Raises:
            TiergateError: it could not be made; there is nothing of it.
        """
        await self._prepare(tree, tree)
        await self._store.create(tree)

    async def prepare(self, old: Sequence[AnyObject], new: Sequence[AnyObject]) -> None:
        """Make ready what a tree has and the one before it had not; ``change`` comes next.

        Raises:
            TiergateError: it could not be done; nothing that counts has changed.
        """
        before = {obj.wwn for obj in old}
        await self._prepare([obj for obj in new if obj.wwn not in before], new)

    async def change(self, old: Sequence[AnyObject], new: Sequence[AnyObject]) -> None:
        """Store a tree in place of another. Raises as ``ObjectStore.change`` does."""
        await self._store.change(old, new, assembly.spared_alus(new))

    async def record(self, tree: Sequence[AnyObject], changed: Sequence[AnyObject]) -> None:
        """Make it durable that legs of a volume have failed (D3). Raises as ``ObjectStore.record`` does."""
        await self._store.record(tree, changed, assembly.spared_alus(tree))

    async def remove(self, head: VolumeObject, whole: bool) -> None:
        """Remove a volume. Raises as ``ObjectStore.remove`` does."""
        await self._store.remove(head, whole)

    async def _prepare(self, added: Iterable[AnyObject], tree: Sequence[AnyObject]) -> None:
        """Give new partitions' space back: hosts must find zeros, and legs be equal, whatever lay there."""
        added = tuple(added)
        partitions = [obj for obj in added if isinstance(obj, PartitionObject)]
        self._inventory.require_room(partitions)
        for partition in partitions:
            driver = self._inventory.owned(partition.alu).driver
            await self._engine.discard(driver, partition.extent.start_bytes, partition.extent.length_bytes)
        await dirty_logs(self._engine, self._inventory.drivers, added, tree, DirtyLog.create)


async def dirty_logs(
    engine: Engine,
    drivers: Mapping[Wwn, AluDriver],
    among: Iterable[AnyObject],
    tree: Iterable[AnyObject],
    make: MakeLog = DirtyLog.load,
    remote: Container[Wwn] = (),
) -> dict[Wwn, DirtyLog]:
    """Load or create the dirty-region logs of the mirrors among some objects of a tree.

    ``drivers`` has ALUs by their names, and the partitions in ``remote``, which others have, by theirs.

    Raises:
        UsageError: a leg in sync can't be reached.
    """
    by_wwn = {obj.wwn: obj for obj in tree}
    mirrors = [obj for obj in among if isinstance(obj, MirrorObject)]

    def log_of(child: Wwn) -> LegLog:
        partition = assembly.first_partition(child, by_wwn)
        driver = drivers.get(partition.wwn if partition.wwn in remote else partition.alu)
        if driver is None:
            raise UsageError(f"alu {partition.alu} is not attached")
        return leg_log(child, partition, driver, remote)

    legs = [[log_of(leg.child) for leg in mirror.legs if leg.state is LegState.IN_SYNC] for mirror in mirrors]
    made = await asyncio.gather(
        *(make(engine, Geometry.of(mirror), some) for mirror, some in zip(mirrors, legs, strict=True))
    )
    return {mirror.wwn: one for mirror, one in zip(mirrors, made, strict=True)}


def newest(objects: Sequence[AnyObject], current: Iterable[AnyObject]) -> tuple[AnyObject, ...]:
    """Give a tree with those objects that changed meanwhile (a leg has failed) as they are now (D3)."""
    now = {obj.wwn: obj for obj in current}
    return tuple(max(obj, now.get(obj.wwn, obj), key=lambda one: one.generation) for obj in objects)
