"""The table of all commands that a logical unit carries out.

A new command is a CDB format, a handler and a row here; dispatch, reservation checks, data lengths and REPORT
SUPPORTED OPERATION CODES all derive from the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from backstores.scsi import blocks, inquiry, mode_commands, opcodes, persistent, provisioning, reports
from backstores.scsi import cdb as formats
from backstores.scsi import transfers as t
from backstores.scsi.model import Response
from backstores.scsi.opcodes import CommandSet, Definition
from backstores.scsi.persistent import In, Out
from backstores.scsi.reservations import Access
from backstores.scsi.steps import Steps
from backstores.scsi.unit import Call, LogicalUnit, Needs
from backstores.wire import Wire

W = TypeVar("W", bound=Wire)

SLOW_S: Final = 120
"""For commands that may have to wait for all that was written before."""


def _supported_opcodes(call: Call, cdb: formats.ReportSupportedOpcodes) -> Response:
    return opcodes.report(of(call.unit).table, cdb)


class HasParameters(Protocol):
    """A CDB that announces a parameter list."""

    @property
    def parameter_bytes(self) -> int:
        """Its length."""


class HasBlocks(Protocol):
    """A CDB that announces blocks of data."""

    @property
    def blocks(self) -> int:
        """How many."""


def _nothing(cdb: Wire, block_bytes: int) -> int:
    return 0


def _parameters(cdb: HasParameters, block_bytes: int) -> int:
    return cdb.parameter_bytes


def _blocks(cdb: HasBlocks, block_bytes: int) -> int:
    return cdb.blocks * block_bytes


def _blocks6(cdb: t.Write6, block_bytes: int) -> int:
    return (cdb.blocks or 256) * block_bytes


def _compared(cdb: t.AnyVerify, block_bytes: int) -> int:
    return {1: cdb.blocks * block_bytes, 3: block_bytes if cdb.blocks else 0}.get(cdb.byte_check, 0)


def _two_halves(cdb: t.CompareAndWrite, block_bytes: int) -> int:
    return 2 * cdb.blocks * block_bytes


def _one_block(cdb: t.WriteSame10, block_bytes: int) -> int:
    return block_bytes


def _one_block_or_none(cdb: t.WriteSame16, block_bytes: int) -> int:
    return 0 if cdb.no_data else block_bytes


def _of_start_stop(cdb: formats.StartStopUnit) -> Access:
    """SPC-4 table 68: starting does not get in anyone's way."""
    return Access.PERSISTENT if cdb.start and not cdb.power_condition else Access.WRITE


def _of_prevent(cdb: formats.PreventAllow) -> Access:
    return Access.WRITE if cdb.prevent else Access.ALWAYS


def _reader(
    wire: type[W], run: Callable[[Call, W], Response | Steps], data_out: Callable[[W, int], int] = _nothing
) -> Definition[W]:
    return Definition(wire, run, Access.READ, needs=Needs.MEDIUM, data_out=data_out)


def _writer(
    wire: type[W], run: Callable[[Call, W], Response | Steps], data_out: Callable[[W, int], int]
) -> Definition[W]:
    return Definition(wire, run, Access.WRITE, needs=Needs.WRITABLE_MEDIUM, data_out=data_out)


def _reserve_in(
    action: In, run: Callable[[Call, formats.PersistentReserveIn], Response]
) -> Definition[formats.PersistentReserveIn]:
    return Definition(formats.PersistentReserveIn, run, Access.PERSISTENT, service_action=action)


def _reserve_out(
    action: Out, run: Callable[[Call, formats.PersistentReserveOut], Steps]
) -> Definition[formats.PersistentReserveOut]:
    return Definition(formats.PersistentReserveOut, run, Access.PERSISTENT, service_action=action, data_out=_parameters)


# Each row is checked against its own CDB format; what they have in common has no type of its own.
_DEFINITIONS: Final[tuple[Definition[Any], ...]] = (
    # What a unit says of itself
    Definition(formats.TestUnitReady, reports.test_unit_ready, Access.PERSISTENT, needs=Needs.MEDIUM),
    Definition(formats.RequestSense, reports.request_sense, Access.ALWAYS, attention=False),
    Definition(formats.Inquiry, inquiry.inquiry, Access.ALWAYS, attention=False),
    Definition(formats.ReportLuns, reports.report_luns, Access.ALWAYS, attention=False),
    Definition(formats.ReportSupportedOpcodes, _supported_opcodes, Access.PERSISTENT),
    Definition(formats.ReportSupportedFunctions, reports.supported_functions, Access.PERSISTENT),
    Definition(formats.ReadCapacity10, reports.read_capacity10, Access.ALWAYS, needs=Needs.MEDIUM),
    Definition(formats.ReadCapacity16, reports.read_capacity16, Access.ALWAYS, needs=Needs.MEDIUM),
    # Its state
    Definition(formats.ModeSense6, mode_commands.mode_sense6, Access.WRITE),
    Definition(formats.ModeSense10, mode_commands.mode_sense10, Access.WRITE),
    Definition(formats.ModeSelect6, mode_commands.mode_select6, Access.WRITE, data_out=_parameters),
    Definition(formats.ModeSelect10, mode_commands.mode_select10, Access.WRITE, data_out=_parameters),
    Definition(formats.StartStopUnit, reports.start_stop, _of_start_stop),
    Definition(formats.PreventAllow, reports.prevent_allow, _of_prevent),
    # Reservations
    Definition(formats.Reserve6, persistent.reserve, Access.PERSISTENT),
    Definition(formats.Release6, persistent.release, Access.ALWAYS),
    Definition(formats.Reserve10, persistent.reserve, Access.PERSISTENT),
    Definition(formats.Release10, persistent.release, Access.ALWAYS),
    _reserve_in(In.READ_KEYS, persistent.read_keys),
    _reserve_in(In.READ_RESERVATION, persistent.read_reservation),
    _reserve_in(In.REPORT_CAPABILITIES, persistent.report_capabilities),
    _reserve_in(In.READ_FULL_STATUS, persistent.read_full_status),
    *(_reserve_out(action, persistent.reserve_out) for action in Out if action is not Out.REGISTER_AND_MOVE),
    _reserve_out(Out.REGISTER_AND_MOVE, persistent.register_and_move),
    # Blocks
    _reader(t.Read6, blocks.read6),
    _reader(t.Read10, blocks.read),
    _reader(t.Read12, blocks.read),
    _reader(t.Read16, blocks.read),
    _writer(t.Write6, blocks.write6, _blocks6),
    _writer(t.Write10, blocks.write, _blocks),
    _writer(t.Write12, blocks.write, _blocks),
    _writer(t.Write16, blocks.write, _blocks),
    _writer(t.WriteVerify10, blocks.write_verify, _blocks),
    _writer(t.WriteVerify12, blocks.write_verify, _blocks),
    _writer(t.WriteVerify16, blocks.write_verify, _blocks),
    _reader(t.Verify10, blocks.verify, _compared),
    _reader(t.Verify12, blocks.verify, _compared),
    _reader(t.Verify16, blocks.verify, _compared),
    _reader(t.Prefetch10, blocks.prefetch),
    _reader(t.Prefetch16, blocks.prefetch),
    _writer(t.CompareAndWrite, blocks.compare_and_write, _two_halves),
    _writer(t.Orwrite, blocks.orwrite, _blocks),
    Definition(t.SynchronizeCache10, blocks.synchronize_cache, Access.WRITE, needs=Needs.MEDIUM, timeout_s=SLOW_S),
    Definition(t.SynchronizeCache16, blocks.synchronize_cache, Access.WRITE, needs=Needs.MEDIUM, timeout_s=SLOW_S),
    # Thin provisioning
    _writer(formats.Unmap, provisioning.unmap, _parameters),
    _writer(t.WriteSame10, provisioning.write_same10, _one_block),
    _writer(t.WriteSame16, provisioning.write_same16, _one_block_or_none),
    _reader(formats.GetLbaStatus, provisioning.get_lba_status),
)

BLOCK_COMMANDS: Final = CommandSet(_DEFINITIONS)
TABLE: Final = BLOCK_COMMANDS.table


def of(unit: LogicalUnit) -> CommandSet:
    """Give the commands that a unit carries out: all of them, unless it has a set of its own."""
    return unit.commands or BLOCK_COMMANDS
