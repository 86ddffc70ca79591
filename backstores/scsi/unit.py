"""A logical unit: a volume as SCSI hosts see it, and the state that commands change.

The unit knows its *attachments*, one for each nexus that sees it (SAM-5 calls this an I_T_L nexus). What a
nexus may do at this moment follows from the predicates here, and from them alone: ``objection`` is what stops
a command on the general path, and ``refresh`` gives the hot path its licence by the same question.

There is no I/O in this module; commands ask for it by the steps of ``backstores.scsi.steps``.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backstores.block import Run
from backstores.device import BlockDevice
from backstores.scsi.attention import Attentions
from backstores.scsi.model import Attribute, Command
from backstores.scsi.modes import ModePages
from backstores.scsi.reservations import Access, Change, ReservationConflict, Reservations
from backstores.scsi.sense import CheckCondition, Condition
from backstores.scsi.steps import Drain, Passer, Persist, Step
from backstores.scsi.store import MemoryStore, NexusName, UnitState, UnitStore
from backstores.scsi.taskset import Task, TaskSet
from backstores.wire import Wire
from backstores.wwn import Wwn

if TYPE_CHECKING:
    from backstores.scsi.opcodes import CommandSet

Changes = Generator[Step, list[Run], None]
"""The part of a command that changes the unit's state."""


class Needs(enum.Enum):
    """What a command needs of the unit to make sense."""

    NOTHING = enum.auto()
    MEDIUM = enum.auto()
    WRITABLE_MEDIUM = enum.auto()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a unit is. The serial number derives from the WWN (R6)."""

    wwn: Wwn
    vendor: str = "TIERGATE"
    product: str = "VIRTUAL VOLUME"
    revision: str = "0001"

    @property
    def serial(self) -> str:
        """The unit serial number: the WWN's vendor-specific part."""
        return self.wwn[-25:]


@dataclass(frozen=True, slots=True)
class TargetPort:
    """A port of the target device. ``device_ports`` lists the relative identifiers of all its ports.

    ``shared``: it stands for all of them; a transport that does not tell by which port a command came has one nexus.
    """

    iqn: str
    group_tag: int = 1
    relative_port: int = 1
    device_ports: tuple[int, ...] = (1,)
    shared: bool = False

    @property
    def name(self) -> str:
        """The SCSI port name of an iSCSI target port (RFC 7143 clause 4.4.1)."""
        return f"{self.iqn},t,0x{self.group_tag:04x}"


@dataclass(slots=True, eq=False)
class Attachment:
    """One nexus at one unit. ``lun_field`` is what its hot path looks up in ``fast_read`` and ``fast_write``."""

    unit: LogicalUnit
    nexus: NexusName
    port: TargetPort
    lun_field: int = 0
    read_only: bool = False
    fast_read: dict[int, BlockDevice] = field(default_factory=dict)
    fast_write: dict[int, BlockDevice] = field(default_factory=dict)
    attentions: Attentions = field(default_factory=Attentions)
    prevents_removal: bool = False
    siblings: Mapping[int, Attachment] = field(default_factory=dict)  # the nexus's LUN map, this one in it

    def tell(self, condition: Condition) -> None:
        """Establish a unit attention."""
        self.attentions.establish(condition)
        self.refresh()

    def refresh(self) -> None:
        """Give the hot path its licence, or take it away: called wherever state changes that it depends on."""
        # A device that hosts speak to must not be written behind its back.
        ready = not self.attentions and self.unit.tasks.unordered and self.unit.attached(self) and not self.unit.passer
        may_read = ready and self.unit.objection(self, Access.READ, Needs.MEDIUM) is None
        # Without write cache every write must be durable, which only the general path sees to.
        may_write = (
            ready
            and self.unit.modes.write_cache
            and self.unit.objection(self, Access.WRITE, Needs.WRITABLE_MEDIUM) is None
        )
        for licence, given in ((self.fast_read, may_read), (self.fast_write, may_write)):
            if given:
                licence[self.lun_field] = self.unit.device
            else:
                licence.pop(self.lun_field, None)


@dataclass(slots=True)
class Call:
    """A command at work: what its handler gets besides its CDB."""

    at: Attachment
    data: memoryview
    announced_bytes: int | None = None  # how much the host meant to send, where the transport says so

    @property
    def unit(self) -> LogicalUnit:
        """The unit it was sent to."""
        return self.at.unit


class LogicalUnit:
    """A block device with an identity, mode pages, reservations and a task set.

    ``commands`` are those that it carries out, where it is not all of them; see ``backstores.scsi.direct``.
    """

    def __init__(
        self,
        device: BlockDevice,
        identity: Identity,
        store: UnitStore | None = None,
        *,
        removable: bool = False,
        commands: CommandSet | None = None,
        passer: Passer | None = None,
    ) -> None:
        self.device = device
        self.identity = identity
        self.store: UnitStore = MemoryStore() if store is None else store
        self.removable = removable
        self.commands = commands  # None: all that there are
        self.passer = passer  # for those of ``commands`` that the device itself carries out
        state = self.store.load(identity.wwn) or UnitState()
        self.modes = ModePages(state.modes)
        self.reservations = Reservations.restored(state)
        self.reserver: Attachment | None = None  # by RESERVE (SPC-2)
        self.tasks = TaskSet()
        self.ejected = False
        self.closed = False
        self._attachments: dict[Attachment, None] = {}

    def offers(self, wire: type[Wire]) -> bool:
        """Whether it carries out a command, by its CDB's format."""
        return self.commands is None or self.commands.has(wire)

    # Attachments

    @property
    def attachments(self) -> Iterator[Attachment]:
        """All that are there now."""
        return iter(list(self._attachments))

    def attached(self, at: Attachment) -> bool:
        """Whether an attachment is still there."""
        return at in self._attachments

    def attach(self, at: Attachment) -> None:
        """Let a nexus in. Its first command learns that the unit may have been reset since it was here last."""
        self._attachments[at] = None
        at.tell(Condition.RESET_OCCURRED)

    def detach(self, at: Attachment) -> None:
        """Let a nexus go (I_T nexus loss, SAM-5 clause 6.3.4): what it held without being registered is free."""
        self._attachments.pop(at, None)
        at.prevents_removal = False
        self.tasks.abort(lambda task: task.owner is at)
        if self.reserver is at:
            self.reserver = None
        at.refresh()
        self.refresh()

    def refresh(self) -> None:
        """Look at every attachment's licence again."""
        for at in self.attachments:
            at.refresh()

    def tell_others(self, but: Attachment | None, condition: Condition) -> None:
        """Establish a unit attention for all attachments but one."""
        for at in self.attachments:
            if at is not but:
                at.tell(condition)

    # What stops a command

    def objection(self, at: Attachment, access: Access, needs: Needs) -> CheckCondition | ReservationConflict | None:
        """Give what stands in the way of a command, apart from unit attentions and other commands."""
        if self._conflicts(at, access):
            return ReservationConflict()
        if needs is Needs.NOTHING:
            return None
        if self.closed:
            return CheckCondition(Condition.CAUSE_NOT_REPORTABLE)
        if self.ejected:
            return CheckCondition(Condition.MEDIUM_NOT_PRESENT)
        if needs is Needs.WRITABLE_MEDIUM and self.write_protected(at):
            return CheckCondition(Condition.WRITE_PROTECTED)
        return None

    def write_protected(self, at: Attachment) -> bool:
        """Whether this nexus can't write: its exposure is read-only, or a host has set SWP."""
        return at.read_only or self.modes.write_protect

    def _conflicts(self, at: Attachment, access: Access) -> bool:
        if self.reserver not in (None, at) and access is not Access.ALWAYS:
            return True
        return not self.reservations.allows(at.nexus, access)

    # Commands

    def enter(self, at: Attachment, command: Command) -> Task:
        """Take a command into the task set."""
        attribute = Attribute.SIMPLE if command.attribute is Attribute.UNTAGGED else command.attribute
        task = Task(at, command.tag, attribute)
        was = self.tasks.unordered
        self.tasks.add(task)
        self._order_changed(was)
        return task

    def leave(self, task: Task) -> None:
        """Let go of a command that has ended."""
        was = self.tasks.unordered
        self.tasks.remove(task)
        self._order_changed(was)

    def _order_changed(self, was_unordered: bool) -> None:
        if self.tasks.unordered is not was_unordered:
            self.refresh()

    # Changes of state

    def adopt_modes(self, modes: ModePages, by: Attachment) -> Changes:
        """Make other mode pages the current ones; durable first, where they are to be saved."""
        if modes.saved != self.modes.saved:
            yield Persist(self._state(modes, self.reservations))
        changed, self.modes = modes.differs(self.modes), modes
        if changed:
            self.tell_others(by, Condition.MODE_PARAMETERS_CHANGED)
        self.refresh()

    def adopt_reservations(self, change: Change) -> Changes:
        """Make a change of the reservations true: durable first, where APTPL asks for it."""
        if change.state.kept != self.reservations.kept:
            yield Persist(self._state(self.modes, change.state))
        self.reservations = change.state
        for at in self.attachments:
            if at.nexus in change.told:
                at.attentions.establish(change.told[at.nexus])
        self.refresh()
        if change.aborted:
            yield Drain(self.tasks.abort(lambda task: task.owner.nexus in change.aborted))

    def forget_reservations(self) -> int:
        """Let others answer for reservations from here on; say how many registrations count no more.

        In memory alone: whoever takes the unit back without saving its state finds them again.
        """
        forgotten, self.reservations = len(self.reservations.keys), Reservations()
        self.refresh()
        return forgotten

    def _state(self, modes: ModePages, reservations: Reservations) -> UnitState:
        registrations, holder, type_ = reservations.kept
        return UnitState(registrations=registrations, holder=holder, reservation_type=type_, modes=modes.saved)

    def clear_tasks(self, by: Attachment) -> tuple[Task, ...]:
        """Abort the commands of all nexuses (CLEAR TASK SET), and tell the others why no answer comes."""
        aborted = self.tasks.abort(lambda task: True)
        for at in {task.owner for task in aborted} - {by}:
            at.tell(Condition.COMMANDS_CLEARED)
        return aborted

    def reset(self, condition: Condition) -> tuple[Task, ...]:
        """Do what a logical unit reset does (SAM-5 clause 6.3.3); give the commands that it aborts."""
        aborted = self.tasks.abort(lambda task: True)
        self.reserver = None
        self.modes.reset()
        for at in self.attachments:
            at.prevents_removal = False
            at.attentions.establish(condition)
        self.refresh()
        return aborted

    def resized(self) -> None:
        """Tell hosts that the device has grown."""
        self.tell_others(None, Condition.CAPACITY_CHANGED)

    def close(self) -> None:
        """Serve nothing any more: the volume goes off line. Commands that need the medium end NOT READY."""
        self.closed = True
        self.refresh()
