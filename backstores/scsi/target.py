"""The target device: which nexus sees which units under which LUN, commands and task management.

This is what a transport talks to, by the ``Nexus`` protocol of ``backstores.scsi.model``. The appliance makes
one ``TargetDevice``, opens a nexus for each session, and changes LUN maps as volumes are exposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from backstores.device import BlockDevice
from backstores.scsi import commands, lun, runner, server
from backstores.scsi.model import Command, Function, FunctionResponse, Response
from backstores.scsi.sense import Condition
from backstores.scsi.store import NexusName
from backstores.scsi.taskset import Task
from backstores.scsi.unit import Attachment, LogicalUnit, TargetPort

NO_UNIT_BLOCK_BYTES: Final = 512
"""How large we take a block to be for a command to a LUN that is not there; it is refused anyway."""


class Exposed(NamedTuple):
    """A unit in a LUN map."""

    unit: LogicalUnit
    read_only: bool = False


class TargetDevice:
    """A SCSI target device with its ports and nexuses. ``left`` is called whenever a nexus has ended."""

    def __init__(
        self, iqn: str, relative_ports: tuple[int, ...] = (1,), left: Callable[[], None] = lambda: None
    ) -> None:
        self.iqn = iqn
        self.relative_ports = relative_ports
        self._left = left
        self._nexuses: dict[TargetNexus, None] = {}

    @property
    def nexuses(self) -> tuple[TargetNexus, ...]:
        """All that are open."""
        return tuple(self._nexuses)

    def open_nexus(
        self,
        initiator_port: str,
        luns: Mapping[int, Exposed],
        *,
        group_tag: int = 1,
        relative_port: int = 1,
        shared: bool = False,
    ) -> TargetNexus:
        """Let an initiator port in. ``initiator_port`` is its SCSI name: initiator name, ",i,0x" and ISID.

        Raises:
            UsageError: a LUN is out of range.
        """
        port = TargetPort(self.iqn, group_tag, relative_port, self.relative_ports, shared)
        nexus = TargetNexus(NexusName(initiator_port, relative_port), port, self._nexuses, self._left)
        nexus.set_luns(luns, initial=True)
        self._nexuses[nexus] = None
        return nexus


class TargetNexus:
    """One initiator port at one port of the target device."""

    def __init__(
        self, name: NexusName, port: TargetPort, open_nexuses: dict[TargetNexus, None], left: Callable[[], None]
    ) -> None:
        self.name = name
        self.port = port
        self.fast_read: dict[int, BlockDevice] = {}
        self.fast_write: dict[int, BlockDevice] = {}
        self._attachments: dict[int, Attachment] = {}
        self._open_nexuses = open_nexuses
        self._left = left

    @property
    def luns(self) -> tuple[int, ...]:
        """The LUNs that this initiator port sees."""
        return tuple(sorted(self._attachments))

    def set_luns(self, luns: Mapping[int, Exposed], *, initial: bool = False) -> None:
        """Make this the LUN map. What stays is not disturbed, but told that the map has changed.

        Raises:
            UsageError: a LUN is out of range; nothing has changed.
        """
        fields = {number: lun.encode(number) for number in luns}
        before = {number: Exposed(at.unit, at.read_only) for number, at in self._attachments.items()}
        if before == dict(luns):
            return
        for number, exposed in before.items():
            if luns.get(number) != exposed:
                at = self._attachments.pop(number)
                at.unit.detach(at)
        if not initial:
            for at in self._attachments.values():
                at.tell(Condition.LUNS_CHANGED)
        for number in luns.keys() - self._attachments.keys():
            unit, read_only = luns[number]
            at = Attachment(
                unit,
                self.name,
                self.port,
                fields[number],
                read_only,
                fast_read=self.fast_read,
                fast_write=self.fast_write,
                siblings=self._attachments,
            )
            self._attachments[number] = at
            unit.attach(at)

    def data_out_bytes(self, lun: int, cdb: bytes) -> int:
        """How much data the host must send for a command; 0 for one that takes none, or will be refused."""
        at = self._find(lun)
        if at is None:
            return commands.BLOCK_COMMANDS.data_out_bytes(cdb, NO_UNIT_BLOCK_BYTES)
        return commands.of(at.unit).data_out_bytes(cdb, at.unit.device.block_bytes)

    async def execute(self, lun: int, command: Command) -> Response | None:
        """Carry a command out. None: it was aborted."""
        at = self._find(lun)
        if at is None:
            return server.answer_for_absent(self._attachments, command)
        return await runner.run(at, command)

    async def manage(self, function: Function, lun: int, tag: int) -> FunctionResponse:
        """Carry a task management function out, and return when the commands concerned have ended."""
        if function in RESETS_TARGET:
            await self._reset_target(RESETS_TARGET[function])
            return FunctionResponse.COMPLETE
        if function not in MANAGES_UNIT:
            return FunctionResponse.NOT_SUPPORTED
        at = self._find(lun)
        if at is None:
            return FunctionResponse.LUN_DOES_NOT_EXIST
        await runner.drained(MANAGES_UNIT[function](at, tag))
        # Also where ABORT TASK found no such command: it has been answered already (RFC 7143 clause 11.6.1, b).
        return FunctionResponse.COMPLETE

    def close(self) -> None:
        """End the nexus (I_T nexus loss)."""
        self._open_nexuses.pop(self, None)
        for at in self._attachments.values():
            at.unit.detach(at)
        self._attachments.clear()
        self._left()

    async def _reset_target(self, condition: Condition) -> None:
        # Units that this nexus does not see are other hosts' business: they are not reset (R15).
        aborted = [task for unit in {at.unit for at in self._attachments.values()} for task in unit.reset(condition)]
        await runner.drained(aborted)

    def _find(self, lun_field: int) -> Attachment | None:
        number = lun.decode(lun_field)
        return None if number is None else self._attachments.get(number)


def _abort_task(at: Attachment, tag: int) -> tuple[Task, ...]:
    return at.unit.tasks.abort(lambda task: task.owner is at and task.tag == tag)


def _abort_task_set(at: Attachment, tag: int) -> tuple[Task, ...]:
    return at.unit.tasks.abort(lambda task: task.owner is at)


def _clear_task_set(at: Attachment, tag: int) -> tuple[Task, ...]:
    return at.unit.clear_tasks(at)


def _reset_unit(at: Attachment, tag: int) -> tuple[Task, ...]:
    return at.unit.reset(Condition.UNIT_RESET_OCCURRED)


MANAGES_UNIT: Final[Mapping[Function, Callable[[Attachment, int], tuple[Task, ...]]]] = {
    Function.ABORT_TASK: _abort_task,
    Function.ABORT_TASK_SET: _abort_task_set,
    Function.CLEAR_TASK_SET: _clear_task_set,
    Function.LOGICAL_UNIT_RESET: _reset_unit,
}
RESETS_TARGET: Final[Mapping[Function, Condition]] = {
    Function.TARGET_WARM_RESET: Condition.BUS_RESET_OCCURRED,
    Function.TARGET_COLD_RESET: Condition.POWER_ON_OCCURRED,
}
