"""A host for tests: sends commands to logical units and waits for the answers, without a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from backstores.device import MemoryDevice
from backstores.scsi import lun as luns
from backstores.scsi.model import Attribute, Command, Function, FunctionResponse, Response, Status
from backstores.scsi.sense import Condition, DescriptorSense, FixedSense
from backstores.scsi.store import MemoryStore
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wire import Wire
from backstores.wwn import Wwn

T = TypeVar("T")

WWN = Wwn("6025447" + "0123456789abcdef012345678")
IQN = "iqn.2026-11.example:target"
BLOCK = 512


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


def wait(work: Coroutine[object, object, T]) -> T:
    """Run something to its end, on one loop for all tests: a loop for each command would take longer than it."""
    return _runner().run(work)


def memory_unit(blocks: int = 256, store: MemoryStore | None = None, removable: bool = False) -> LogicalUnit:
    """Make a unit over a device in memory."""
    return LogicalUnit(MemoryDevice(blocks, BLOCK), Identity(WWN), store, removable=removable)


@dataclass(slots=True)
class Host:
    """One nexus, and commands by it."""

    nexus: TargetNexus

    @classmethod
    def at(
        cls, unit: LogicalUnit | Mapping[int, Exposed], name: str = "a", *, read_only: bool = False, greet: bool = True
    ) -> Host:
        """Log a host in. ``greet``: have it hear the unit attention of its first command right away."""
        exposed = {0: Exposed(unit, read_only)} if isinstance(unit, LogicalUnit) else unit
        host = cls(TargetDevice(IQN).open_nexus(f"iqn.2026-11.example:{name},i,0x00023d000001", exposed))
        if greet:
            for number in exposed:
                host.hear(number)
        return host

    def hear(self, lun: int = 0) -> list[Condition]:
        """Take all unit attentions that wait."""
        heard = []
        while (attention := condition(self.send(bytes(6), lun=lun))) and attention.name in _ATTENTIONS:
            heard.append(attention)
        return heard

    def send(self, cdb: bytes, data: bytes = b"", *, lun: int = 0, announced: int | None = None) -> Response:
        """Send a command and give its response."""
        response = wait(self.execute(cdb, data, lun=lun, announced=announced))
        assert response is not None, "the command was aborted"
        return response

    async def execute(
        self,
        cdb: bytes,
        data: bytes = b"",
        *,
        lun: int = 0,
        tag: int = 0,
        attribute: Attribute = Attribute.SIMPLE,
        announced: int | None = None,
    ) -> Response | None:
        """Send a command from within a loop."""
        command = Command(cdb, memoryview(data), attribute, tag, announced)
        return await self.nexus.execute(luns.encode(lun), command)

    def manage(self, function: Function, tag: int = 0, lun: int = 0) -> FunctionResponse:
        """Send a task management function."""
        return wait(self.nexus.manage(function, luns.encode(lun), tag))

    def good(self, cdb: bytes, data: bytes = b"", *, lun: int = 0) -> bytes:
        """Send a command that must end well; give its data."""
        response = self.send(cdb, data, lun=lun)
        assert response.status is Status.GOOD, describe(response)
        return bytes(response.data_in)

    def refused(self, cdb: bytes, data: bytes = b"", *, lun: int = 0, announced: int | None = None) -> Condition:
        """Send a command that must end in CHECK CONDITION; give the condition."""
        response = self.send(cdb, data, lun=lun, announced=announced)
        found = condition(response)
        assert found is not None, describe(response)
        return found

    def status(self, cdb: bytes, data: bytes = b"", *, lun: int = 0) -> Status:
        """Send a command and give its status alone."""
        return self.send(cdb, data, lun=lun).status


_ATTENTIONS = {known.name for known in Condition if known.key == 0x6}


def condition(response: Response) -> Condition | None:
    """Give the condition in a response's sense data, None if there is none."""
    if not response.sense:
        return None
    wire: type[Wire] = FixedSense if response.sense[0] & 0x7F == 0x70 else DescriptorSense
    sense = wire.parse(response.sense)
    codes = tuple(field.read(sense.raw) for name, field in wire.FIELDS.items() if name in ("key", "asc", "ascq"))
    return Condition(codes)


def describe(response: Response) -> str:
    """Say what a response is, for a failing test."""
    return f"{response.status.name} {condition(response)}"
