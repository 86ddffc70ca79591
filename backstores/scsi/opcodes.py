"""What the device server knows of a command, and REPORT SUPPORTED OPERATION CODES (SPC-4 clause 6.35)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from backstores.scsi import cdb as formats
from backstores.scsi.limits import MAX_TRANSFER_BYTES
from backstores.scsi.model import Response
from backstores.scsi.reservations import Access
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.scsi.steps import Steps
from backstores.scsi.unit import Call, Needs
from backstores.wire import Bits, Wire

W = TypeVar("W", bound=Wire)


def _none(cdb: Wire, block_bytes: int) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Definition(Generic[W]):
    """One command: how its CDB reads, who carries it out, and what must be so before it may run.

    A handler answers at once, or is a generator of the steps it needs. ``access`` is how reservations see the
    command; where that depends on its fields, a function of them. ``data_out`` says how many bytes the host
    must send.
    """

    wire: type[W]
    run: Callable[[Call, W], Response | Steps]
    access: Access | Callable[[W], Access]
    needs: Needs = Needs.NOTHING
    attention: bool = True  # tells a unit attention that waits, instead of running
    data_out: Callable[[W, int], int] = _none
    service_action: int | None = None  # where the CDB format is shared by several
    timeout_s: int = 30

    @property
    def opcode(self) -> int:
        """The operation code."""
        return _fixed(self.wire, "opcode") or 0

    @property
    def action(self) -> int | None:
        """The service action, None for an operation code that has none."""
        return _fixed(self.wire, "service_action") if self.service_action is None else self.service_action

    def access_of(self, cdb: W) -> Access:
        """Say how reservations see this CDB."""
        return self.access if isinstance(self.access, Access) else self.access(cdb)


def _fixed(wire: type[Wire], name: str) -> int | None:
    field = wire.FIELDS.get(name)
    return field.value if isinstance(field, Bits) else None


class AllHeader(Wire, size=4):
    """The list of all commands begins so."""

    length = Bits(byte=0, width=32)


class CommandDescriptor(Wire, size=8):
    """One command in the list of all."""

    opcode = Bits(byte=0, width=8)
    service_action = Bits(byte=2, width=16)
    has_timeouts = Bits(byte=5, msb=1, width=1, doc="CTDP")
    has_service_action = Bits(byte=5, msb=0, width=1, doc="SERVACTV")
    cdb_length = Bits(byte=6, width=16)


class OneHeader(Wire, size=4):
    """The answer about one command begins so; the CDB usage data follows."""

    has_timeouts = Bits(byte=1, msb=7, width=1, doc="CTDP")
    support = Bits(byte=1, msb=2, width=3)
    cdb_length = Bits(byte=2, width=16)


class TimeoutsDescriptor(Wire, size=12):
    """Command timeouts; nominal is zero: not known."""

    length = Bits(byte=0, width=16, value=10)
    nominal_s = Bits(byte=4, width=32)
    recommended_s = Bits(byte=8, width=32)


NOT_SUPPORTED: Final = 1
SUPPORTED: Final = 3

Table = Mapping[tuple[int, int | None], Definition[Wire]]


class CommandSet:
    """The commands that a unit carries out."""

    def __init__(self, definitions: Iterable[Definition[Any]]) -> None:
        self.table: Final[Table] = {(known.opcode, known.action): known for known in definitions}
        self._with_actions = frozenset(opcode for opcode, action in self.table if action is not None)
        self._find = lru_cache(maxsize=512)(self._found)

    def has(self, wire: type[Wire]) -> bool:
        """Say whether a command is among them, by its CDB's format."""
        return any(known.wire is wire for known in self.table.values())

    def find(self, cdb: bytes) -> Definition[Wire]:
        """Find the row of a CDB.

        Raises:
            CheckCondition: there is none: no such operation code, or no such service action.
        """
        return self._find(bytes(cdb[: formats.ServiceAction.SIZE]).ljust(formats.ServiceAction.SIZE, b"\0"))

    def _found(self, start_of_cdb: bytes) -> Definition[Wire]:
        start = formats.ServiceAction.parse(start_of_cdb)
        if start.opcode not in self._with_actions:
            known = self.table.get((start.opcode, None))
            if known is None:
                raise CheckCondition(Condition.INVALID_OPERATION_CODE)
            return known
        known = self.table.get((start.opcode, start.service_action))
        if known is None:
            raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(1, 4))
        return known

    def data_out_bytes(self, cdb: bytes, block_bytes: int) -> int:
        """Say how much data a host must send for a CDB: nothing for one that will be refused anyway."""
        try:
            known = self.find(cdb)
            wanted = known.data_out(formats.decode(known.wire, cdb), block_bytes)
        except CheckCondition:
            return 0
        return wanted if wanted <= MAX_TRANSFER_BYTES else 0


def report(table: Table, cdb: formats.ReportSupportedOpcodes) -> Response:
    """Answer REPORT SUPPORTED OPERATION CODES out of the table that also dispatches commands."""
    if cdb.reporting_options == 0:
        data = _all(table.values(), bool(cdb.timeouts))
    else:
        data = _one(_asked_for(table, cdb), bool(cdb.timeouts))
    return Response(data_in=data[: cdb.allocation_bytes])


def _asked_for(table: Table, cdb: formats.ReportSupportedOpcodes) -> Definition[Wire] | None:
    """Find one command. It is an error to ask for a service action where there is none, or the other way round."""
    opcode, action = cdb.requested_opcode, cdb.requested_service_action
    has_actions = any(known == opcode and of is not None for known, of in table)
    plain = table.get((opcode, None))
    match cdb.reporting_options:
        case 1 if not has_actions:
            return plain
        case 2 if plain is None:
            return table.get((opcode, action))
        case 3:
            return table.get((opcode, action)) if has_actions else plain if not action else None
        case 1 | 2:
            raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(4, 7))
    raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 2))


def _all(definitions: Iterable[Definition[Wire]], timeouts: bool) -> bytes:
    body = b""
    for known in definitions:
        body += CommandDescriptor.build(
            opcode=known.opcode,
            service_action=known.action or 0,
            has_timeouts=timeouts,
            has_service_action=known.action is not None,
            cdb_length=known.wire.SIZE,
        )
        if timeouts:
            body += TimeoutsDescriptor.build(recommended_s=known.timeout_s)
    return AllHeader.build(length=len(body)) + body


def _one(known: Definition[Wire] | None, timeouts: bool) -> bytes:
    if known is None:
        return OneHeader.build(support=NOT_SUPPORTED)
    usage = formats.usage(known.wire, known.action)
    header = OneHeader.build(has_timeouts=timeouts, support=SUPPORTED, cdb_length=len(usage))
    return header + usage + (TimeoutsDescriptor.build(recommended_s=known.timeout_s) if timeouts else b"")
