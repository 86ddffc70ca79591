"""PERSISTENT RESERVE IN and OUT, and the older RESERVE and RELEASE (SPC-4 clauses 6.15 and 6.16, SPC-2).

What the service actions do is decided in ``reservations``; here their parameters are read and written. Of the
two families one at a time is in use: while anyone is registered, RESERVE and RELEASE do nothing for
registrants and are a conflict for others (SPC-4 clause 5.12.3, "CRH").
"""

from __future__ import annotations

import enum
import re
from typing import Final

from backstores.errors import ProtocolError
from backstores.scsi import cdb as formats
from backstores.scsi.model import Response
from backstores.scsi.reservations import Change, ReservationConflict, ReservationType
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.scsi.steps import Steps, Turn
from backstores.scsi.store import NexusName
from backstores.scsi.unit import Attachment, Call
from backstores.wire import Bits, Wire

UNIT_SCOPE: Final = 0
ISCSI: Final = 5
NAME_AND_ISID: Final = 1
MOST_PORT_NAME_BYTES: Final = 223 + len(",i,0x") + 12  # RFC 7143 clauses 4.2.7.1 and 4.4.1
_PORT_NAME: Final = re.compile(r"\S+,i,0x[0-9a-fA-F]{1,12}")


class Out(enum.IntEnum):
    """Service actions of PERSISTENT RESERVE OUT (SPC-4 table 204)."""

    REGISTER = 0
    RESERVE = 1
    RELEASE = 2
    CLEAR = 3
    PREEMPT = 4
    PREEMPT_AND_ABORT = 5
    REGISTER_AND_IGNORE = 6
    REGISTER_AND_MOVE = 7


class In(enum.IntEnum):
    """Service actions of PERSISTENT RESERVE IN (SPC-4 table 192)."""

    READ_KEYS = 0
    READ_RESERVATION = 1
    REPORT_CAPABILITIES = 2
    READ_FULL_STATUS = 3


class OutParameters(Wire, size=24):
    """Basic parameter list (SPC-4 clause 6.16.3)."""

    key = Bits(byte=0, width=64)
    action_key = Bits(byte=8, width=64)
    specify_initiator_ports = Bits(byte=20, msb=3, width=1, doc="SPEC_I_PT: not supported")
    all_target_ports = Bits(byte=20, msb=2, width=1, doc="ALL_TG_PT")
    persist = Bits(byte=20, msb=0, width=1, doc="APTPL")


class MoveParameters(Wire, size=24):
    """Parameter list of REGISTER AND MOVE (SPC-4 clause 6.16.4); a TransportID follows."""

    key = Bits(byte=0, width=64)
    action_key = Bits(byte=8, width=64)
    unregister = Bits(byte=17, msb=1, width=1)
    persist = Bits(byte=17, msb=0, width=1, doc="APTPL")
    relative_port = Bits(byte=18, width=16)
    transport_id_length = Bits(byte=20, width=32)


class InHeader(Wire, size=8):
    """What READ KEYS, READ RESERVATION and READ FULL STATUS begin with."""

    generation = Bits(byte=0, width=32)
    additional_length = Bits(byte=4, width=32)


class KeyDescriptor(Wire, size=8):
    """One registered key."""

    key = Bits(byte=0, width=64)


class ReservationDescriptor(Wire, size=16):
    """The one reservation."""

    key = Bits(byte=0, width=64)
    scope = Bits(byte=13, msb=7, width=4)
    reservation_type = Bits(byte=13, msb=3, width=4)


class Capabilities(Wire, size=8):
    """REPORT CAPABILITIES parameter data (SPC-4 clause 6.15.4)."""

    length = Bits(byte=0, width=16, value=8)
    compatible_handling = Bits(byte=2, msb=4, width=1, value=1, doc="CRH")
    all_target_ports = Bits(byte=2, msb=2, width=1, value=1, doc="ATP_C")
    persist_capable = Bits(byte=2, msb=0, width=1, value=1, doc="PTPL_C")
    types_valid = Bits(byte=3, msb=7, width=1, value=1, doc="TMV")
    persist_active = Bits(byte=3, msb=0, width=1, doc="PTPL_A")
    write_exclusive_all = Bits(byte=4, msb=7, width=1, value=1)
    exclusive_registrants = Bits(byte=4, msb=6, width=1, value=1)
    write_exclusive_registrants = Bits(byte=4, msb=5, width=1, value=1)
    exclusive = Bits(byte=4, msb=3, width=1, value=1)
    write_exclusive = Bits(byte=4, msb=1, width=1, value=1)
    exclusive_all = Bits(byte=5, msb=0, width=1, value=1)


class FullStatusDescriptor(Wire, size=24):
    """One registration; its TransportID follows."""

    key = Bits(byte=0, width=64)
    all_target_ports = Bits(byte=12, msb=1, width=1)
    holder = Bits(byte=12, msb=0, width=1)
    scope = Bits(byte=13, msb=7, width=4)
    reservation_type = Bits(byte=13, msb=3, width=4)
    relative_port = Bits(byte=18, width=16)
    additional_length = Bits(byte=20, width=32)


class TransportId(Wire, size=4):
    """iSCSI TransportID: the initiator port's name follows, ended by a zero (SPC-4 clause 7.6.4.6)."""

    name_format = Bits(byte=0, msb=7, width=2)
    protocol = Bits(byte=0, msb=3, width=4, value=ISCSI)
    length = Bits(byte=2, width=16)


def read_keys(call: Call, cdb: formats.PersistentReserveIn) -> Response:
    """READ KEYS."""
    keys = call.unit.reservations.keys.values()
    return _in(call, cdb, b"".join(KeyDescriptor.build(key=key) for key in keys))


def read_reservation(call: Call, cdb: formats.PersistentReserveIn) -> Response:
    """READ RESERVATION: of an all-registrants reservation the key is zero."""
    reservations = call.unit.reservations
    if reservations.type is None:
        return _in(call, cdb, b"")
    key = 0 if reservations.holder is None else reservations.keys[reservations.holder]
    descriptor = ReservationDescriptor.build(key=key, scope=UNIT_SCOPE, reservation_type=reservations.type)
    return _in(call, cdb, descriptor)


def report_capabilities(call: Call, cdb: formats.PersistentReserveIn) -> Response:
    """REPORT CAPABILITIES."""
    data = Capabilities.build(persist_active=call.unit.reservations.persistent)
    return Response(data_in=data[: cdb.allocation_bytes])


def read_full_status(call: Call, cdb: formats.PersistentReserveIn) -> Response:
    """READ FULL STATUS."""
    reservations = call.unit.reservations
    body = b""
    for nexus, key in reservations.keys.items():
        transport_id = _transport_id(nexus.initiator_port)
        holds = reservations.holds(nexus)
        body += FullStatusDescriptor.build(
            key=key,
            holder=holds,
            scope=UNIT_SCOPE,
            reservation_type=(reservations.type or 0) if holds else 0,
            relative_port=nexus.relative_port,
            additional_length=len(transport_id),
        )
        body += transport_id
    return _in(call, cdb, body)


def _in(call: Call, cdb: formats.PersistentReserveIn, body: bytes) -> Response:
    header = InHeader.build(generation=call.unit.reservations.generation, additional_length=len(body))
    return Response(data_in=(header + body)[: cdb.allocation_bytes])


def _transport_id(initiator_port: str) -> bytes:
    name = initiator_port.encode() + b"\0"
    name = name.ljust(max(20, -(-len(name) // 4) * 4), b"\0")
    return TransportId.build(name_format=NAME_AND_ISID, length=len(name)) + name


def _parse_transport_id(data: bytes) -> str:
    """Read the initiator port of a TransportID.

    The name is kept, and told to every host that asks: it must be one that an initiator port can have (S3).

    Raises:
        CheckCondition: it is none of an iSCSI initiator port, or its length does not fit.
    """
    try:
        header = TransportId.parse(data)
        name = data[TransportId.SIZE :].rstrip(b"\0").decode()
    except (ProtocolError, UnicodeDecodeError) as error:
        raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS) from error
    is_port_name = _PORT_NAME.fullmatch(name) and name.isprintable() and len(name.encode()) <= MOST_PORT_NAME_BYTES
    if header.name_format != NAME_AND_ISID or header.length != len(data) - TransportId.SIZE or not is_port_name:
        raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS)
    return name


def reserve_out(call: Call, cdb: formats.PersistentReserveOut) -> Steps:
    """PERSISTENT RESERVE OUT, every service action but REGISTER AND MOVE."""
    if cdb.parameter_bytes != OutParameters.SIZE or len(call.data) < OutParameters.SIZE:
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    parameters = OutParameters.parse(call.data)
    if parameters.specify_initiator_ports:
        raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(20, 3, in_cdb=False))
    yield Turn()
    change = _decide(call, cdb, parameters)
    yield from call.unit.adopt_reservations(change)
    return Response()


def _decide(call: Call, cdb: formats.PersistentReserveOut, parameters: OutParameters) -> Change:
    reservations, nexus = call.unit.reservations, call.at.nexus
    key, action_key = parameters.key, parameters.action_key
    match Out(cdb.service_action):
        case Out.REGISTER | Out.REGISTER_AND_IGNORE as action:
            return reservations.register(
                nexus,
                key,
                action_key,
                ignore=action is Out.REGISTER_AND_IGNORE,
                persistent=bool(parameters.persist),
                ports=call.at.port.device_ports if parameters.all_target_ports else (),
            )
        case Out.RESERVE:
            return reservations.reserve(nexus, key, _type(cdb))
        case Out.RELEASE:
            return reservations.release(nexus, key, _type(cdb))
        case Out.CLEAR:
            return reservations.clear(nexus, key)
        case Out.PREEMPT | Out.PREEMPT_AND_ABORT as action:
            return reservations.preempt(nexus, key, action_key, _type(cdb), abort=action is Out.PREEMPT_AND_ABORT)
    raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(1, 4))


def _type(cdb: formats.PersistentReserveOut) -> ReservationType:
    if cdb.scope != UNIT_SCOPE or cdb.reservation_type not in list(ReservationType):
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 7))
    return ReservationType(cdb.reservation_type)


def register_and_move(call: Call, cdb: formats.PersistentReserveOut) -> Steps:
    """PERSISTENT RESERVE OUT with REGISTER AND MOVE."""
    if len(call.data) < max(cdb.parameter_bytes, MoveParameters.SIZE):
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    parameters = MoveParameters.parse(call.data)
    end = MoveParameters.SIZE + parameters.transport_id_length
    if end != cdb.parameter_bytes:
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    port = _parse_transport_id(bytes(call.data[MoveParameters.SIZE : end]))
    yield Turn()
    change = call.unit.reservations.move(
        call.at.nexus,
        parameters.key,
        parameters.action_key,
        NexusName(port, parameters.relative_port),
        unregister=bool(parameters.unregister),
        persistent=bool(parameters.persist),
    )
    yield from call.unit.adopt_reservations(change)
    return Response()


def reserve(call: Call, cdb: formats.Reserve6 | formats.Reserve10) -> Response:
    """RESERVE (SPC-2): the whole unit for the sender, until it releases it, logs out, or a reset."""
    if not _persistent_in_use(call.at):
        call.unit.reserver = call.at
        call.unit.refresh()
    return Response()


def release(call: Call, cdb: formats.Release6 | formats.Release10) -> Response:
    """RELEASE (SPC-2): good, and without effect, from anyone but the one who reserved."""
    if not _persistent_in_use(call.at) and call.unit.reserver is call.at:
        call.unit.reserver = None
        call.unit.refresh()
    return Response()


def _persistent_in_use(at: Attachment) -> bool:
    """Whether persistent reservations take the place of RESERVE.

    Raises:
        ReservationConflict: they do, and the sender is not registered.
    """
    keys = at.unit.reservations.keys
    if keys and at.nexus not in keys:
        raise ReservationConflict
    return bool(keys)
