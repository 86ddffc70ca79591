"""The first tier of volumes on a storage processor: partitions of its ALUs, shown to those who build on them (R12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.control.orders import ExposeT1, MakeT1
from appliance.processor.attached import AttachedAlus
from appliance.processor.internal import InternalTarget, MakeUnit
from appliance.processor.names import tier_initiator
from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.objects import PartitionObject
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume.extents import ExtentDevice
from backstores.volume.references import extents_of
from backstores.wwn import Wwn


@dataclass(slots=True)
class Made:
    """A volume's first-tier objects that are here."""

    block_bytes: int
    objects: dict[Wwn, PartitionObject] = field(default_factory=dict)
    drivers: dict[Wwn, AluDriver] = field(default_factory=dict)  # by the object
    shown_to: dict[str, str] = field(default_factory=dict)  # initiator names, with their secrets


class FirstTier:
    """All first-tier objects of one storage processor."""

    def __init__(self, engine: Engine, iqn: str, alus: AttachedAlus, target: InternalTarget) -> None:
        self._engine = engine
        self._iqn = iqn
        self._alus = alus
        self._target = target
        self._volumes: dict[Wwn, Made] = {}

    async def make(self, order: MakeT1) -> None:
        """Instantiate objects, in place of those of an older generation.

        Raises:
            UsageError: the ALU of one is not here, or does not reach as far.
        """
        made = Made(order.block_bytes)
        for partition in order.objects:
            driver = await self._alus.by_wwn(partition.alu)
            ExtentDevice(self._engine, driver, extents_of(partition), order.block_bytes)
            made.objects[partition.wwn], made.drivers[partition.wwn] = partition, driver
        before = self._volumes.get(order.volume, Made(order.block_bytes))
        made.shown_to = before.shown_to  # who sees the volume's objects sees those that are new, too
        await self._target.withdraw_quietly(
            {wwn for wwn, old in before.objects.items() if made.objects.get(wwn) != old}
        )
        self._volumes[order.volume] = made
        self._show(made)

    async def expose(self, order: ExposeT1) -> None:
        """Show a volume's objects to these storage processors, and to no other."""
        made = self._volumes.get(order.volume)
        if made is None:
            raise UsageError(f"volume {order.volume} has no first-tier object here")
        made.shown_to = {tier_initiator(self._iqn, grant.sp): grant.secret for grant in order.grants}
        await self._target.withdraw_quietly(made.objects.keys(), but=made.shown_to)
        self._show(made)

    def _show(self, made: Made) -> None:
        for initiator, secret in made.shown_to.items():
            self._target.grant(initiator, secret, {wwn: self._maker(made, wwn) for wwn in made.objects})

    async def remove(self, volume: Wwn) -> None:
        """Delete a volume's objects."""
        made = self._volumes.pop(volume, None)
        if made is not None:
            await self._target.withdraw_quietly(made.objects.keys())

    def drivers(self, volume: Wwn) -> Mapping[Wwn, AluDriver]:
        """Give the drivers below a volume's objects that are here, by their ALUs: for local reference nodes."""
        made = self._volumes.get(volume)
        return {} if made is None else {made.objects[wwn].alu: driver for wwn, driver in made.drivers.items()}

    def _maker(self, made: Made, wwn: Wwn) -> MakeUnit:
        def make() -> LogicalUnit:
            extents = extents_of(made.objects[wwn])
            device = ExtentDevice(self._engine, made.drivers[wwn], extents, made.block_bytes)
            return LogicalUnit(device, Identity(wwn, product="T1 OBJECT"))

        return make
