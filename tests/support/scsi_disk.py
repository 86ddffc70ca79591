"""A SCSI disk in memory, to which CDBs can be passed: a logical unit behind a logical unit."""

from __future__ import annotations

from backstores.device import MemoryDevice
from backstores.scsi.commands import of
from backstores.scsi.direct import DEVICE_COMMANDS
from backstores.scsi.model import Response
from backstores.scsi.steps import Passer, PassThrough
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wwn import Wwn
from tests.support.scsi import Host

BLOCK = 512
DISK_WWN = Wwn("6" + "d" * 31)


class MemoryDisk(Passer):
    """Carries CDBs out on a unit of its own, and notes them. ``answers`` come first, by operation code."""

    def __init__(self, blocks: int = 1 << 12, most_bytes: int = 1 << 20) -> None:
        self.most_bytes = most_bytes
        self.device = MemoryDevice(blocks, BLOCK)
        self.unit = LogicalUnit(self.device, Identity(DISK_WWN, "ACME", "BIG DISK", "7"))
        self.seen: list[bytes] = []
        self.answers: dict[int, Response] = {}
        self._host = Host.at(self.unit)

    async def send(self, step: PassThrough) -> Response:
        self.seen.append(step.cdb)
        assert len(step.data_out) <= self.most_bytes >= step.data_in_bytes
        if step.cdb[0] in self.answers:
            return self.answers.pop(step.cdb[0])
        assert of(self.unit).data_out_bytes(step.cdb, BLOCK) == len(step.data_out)
        answer = await self._host.execute(step.cdb, bytes(step.data_out))
        assert answer is not None
        assert len(answer.data_in) <= step.data_in_bytes, "more than there is room for"
        return answer

    def behind(self, wwn: Wwn) -> LogicalUnit:
        """Make the unit that hosts speak to."""
        return LogicalUnit(self.device, Identity(wwn), commands=DEVICE_COMMANDS, passer=self)
