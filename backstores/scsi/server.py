"""The device server: one command from its CDB to its response (SAM-5 clause 4.5, SPC-4 clause 4.3).

The order of the checks is: unit attention, operation code, CDB, reservations, readiness, write protection.
Whatever goes wrong on the way ends here, in a status and sense data; nothing else leaves a command.
"""

from __future__ import annotations

from collections.abc import Mapping

from backstores.block import BlockError, Busy
from backstores.scsi import cdb as formats
from backstores.scsi import commands, inquiry, reports
from backstores.scsi.model import Attribute, Command, Response, Status
from backstores.scsi.reservations import ReservationConflict
from backstores.scsi.sense import CheckCondition, Condition, Sense, encode, of_failure
from backstores.scsi.steps import Steps
from backstores.scsi.store import StoreFailed
from backstores.scsi.unit import Attachment, Call, LogicalUnit


def carry_out(at: Attachment, command: Command) -> Steps:
    """Carry a command out on a unit that is there."""
    try:
        return (yield from _checked(at, command))
    except CheckCondition as condition:
        return _check_condition(condition.sense, at.unit.modes.descriptor_sense)
    except ReservationConflict:
        return Response(Status.RESERVATION_CONFLICT)
    except Busy:
        return Response(Status.BUSY)  # no sense data: hosts send the command again (SAM-5 clause 5.3.1)
    except (BlockError, StoreFailed) as failure:
        return _check_condition(of_failure(failure), at.unit.modes.descriptor_sense)


def _checked(at: Attachment, command: Command) -> Steps:
    if command.attribute is Attribute.ACA:
        raise CheckCondition(Condition.INVALID_INFORMATION_UNIT)  # NormACA is 0: there is no ACA to be in
    if at.attentions and _tells_attentions(at.unit, command.cdb):
        pending = at.attentions.take()
        at.refresh()
        assert pending is not None
        raise CheckCondition(pending)
    known = commands.of(at.unit).find(command.cdb)
    cdb = formats.decode(known.wire, command.cdb)
    objection = at.unit.objection(at, known.access_of(cdb), known.needs)
    if objection is not None:
        raise objection
    outcome = known.run(Call(at, command.data_out, command.announced_bytes), cdb)
    return outcome if isinstance(outcome, Response) else (yield from outcome)


def _tells_attentions(unit: LogicalUnit, cdb: bytes) -> bool:
    """Whether a command tells a unit attention; one that we don't know does (SAM-5 clause 5.14)."""
    try:
        return commands.of(unit).find(cdb).attention
    except CheckCondition:
        return True


def answer_for_absent(siblings: Mapping[int, Attachment], command: Command) -> Response:
    """Answer a command to a LUN that this nexus does not see (SPC-4 clause 6.6.1, SAM-5 clause 4.7.4)."""
    try:
        known = commands.BLOCK_COMMANDS.find(command.cdb)
        cdb = formats.decode(known.wire, command.cdb)
        match cdb:
            case formats.Inquiry():
                return inquiry.absent(cdb)
            case formats.ReportLuns():
                return reports.luns_of(siblings, cdb)
            case formats.RequestSense():
                sense = encode(Sense(Condition.UNIT_NOT_SUPPORTED), descriptor=bool(cdb.descriptor))
                return Response(data_in=sense[: cdb.allocation_bytes])
    except CheckCondition as condition:
        return _check_condition(condition.sense, descriptor=False)
    return _check_condition(Sense(Condition.UNIT_NOT_SUPPORTED), descriptor=False)


def _check_condition(sense: Sense, descriptor: bool) -> Response:
    return Response(Status.CHECK_CONDITION, encode(sense, descriptor))
