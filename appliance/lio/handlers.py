"""What answers a backstore's commands: a TCMU handler with a nexus of its own (``backstores.tcmu``).

The ring tells neither initiator nor port, so all hosts of a volume share one nexus, whose LUN 0 is the volume.
Where there are several ports, the unit must not name the one by which it was asked, for it can't know.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import LogicalUnit
from backstores.tcmu import handler as tcmu

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handlers:
    """Opens the handlers of one storage processor."""

    target_iqn: str
    group_tags: tuple[int, ...]

    async def open(self, folder: str, unit: LogicalUnit, on_lost: tcmu.OnLost) -> OpenHandler:
        """Serve the device of a backstore, by its folder ``core/user_HBA/NAME``.

        Raises:
            TiergateError: there is no such device, another process has it, or its ring is not one we know.
        """
        hba, name = folder.removeprefix("core/user_").split("/")
        # The kernel answers for reservations. Those that hosts made by the embedded portal would shut out all of LIO's.
        if forgotten := unit.forget_reservations():
            log.warning("volume %s: %d registrations by the embedded portal don't count", unit.identity.wwn, forgotten)
        device = TargetDevice(self.target_iqn, self.group_tags)
        shared = len(self.group_tags) > 1
        nexus = device.open_nexus(f"{self.target_iqn},lio", {0: Exposed(unit)}, shared=shared)
        try:
            return OpenHandler(await tcmu.serve(int(hba), name, nexus, on_lost), nexus)
        except BaseException:
            nexus.close()
            raise


@dataclass(frozen=True, slots=True)
class OpenHandler:
    """A handler at work."""

    _handler: tcmu.Handler
    _nexus: TargetNexus

    async def close(self) -> None:
        """End, once all commands that run have been answered."""
        await self._handler.close()
        self._nexus.close()
