"""Persistent reservations as hosts ask for them, for tests."""

from __future__ import annotations

from backstores.scsi.cdb import PersistentReserveIn, PersistentReserveOut
from backstores.scsi.model import Status
from backstores.scsi.persistent import In, InHeader, KeyDescriptor, Out, OutParameters, ReservationDescriptor
from backstores.scsi.reservations import ReservationType
from tests.support.scsi import Host


def out_command(
    action: Out,
    key: int = 0,
    action_key: int = 0,
    type_: ReservationType | int = 0,
    *,
    persist: bool = False,
    all_ports: bool = False,
) -> tuple[bytes, bytes]:
    """Make the CDB and the parameter list of PERSISTENT RESERVE OUT."""
    data = OutParameters.build(key=key, action_key=action_key, persist=persist, all_target_ports=all_ports)
    return PersistentReserveOut.build(service_action=action, reservation_type=type_, parameter_bytes=len(data)), data


def out(host: Host, action: Out, key: int = 0, action_key: int = 0, type_: int = 0, *, persist: bool = False) -> Status:
    """Send PERSISTENT RESERVE OUT; give its status."""
    return host.status(*out_command(action, key, action_key, type_, persist=persist))


def register(host: Host, key: int, *, persist: bool = False) -> None:
    """Register a key, whatever was registered before."""
    assert out(host, Out.REGISTER_AND_IGNORE, 0, key, persist=persist) is Status.GOOD


def read_in(host: Host, action: In) -> bytes:
    """Send PERSISTENT RESERVE IN."""
    return host.good(PersistentReserveIn.build(service_action=action, allocation_bytes=0xFFFF))


def keys(host: Host) -> list[int]:
    """Read the registered keys."""
    data = read_in(host, In.READ_KEYS)
    assert InHeader.parse(data).additional_length == len(data) - InHeader.SIZE
    return [KeyDescriptor.parse(data, at).key for at in range(InHeader.SIZE, len(data), KeyDescriptor.SIZE)]


def generation(host: Host) -> int:
    """Read PRGENERATION."""
    return InHeader.parse(read_in(host, In.READ_KEYS)).generation


def reservation(host: Host) -> tuple[int, int] | None:
    """Read the reservation: its key and type."""
    data = read_in(host, In.READ_RESERVATION)
    if len(data) == InHeader.SIZE:
        return None
    descriptor = ReservationDescriptor.parse(data, InHeader.SIZE)
    return descriptor.key, descriptor.reservation_type
