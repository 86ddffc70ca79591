"""Sense data: what a command says when it did not end well (SPC-4 clause 4.5).

A condition is named once, with its sense key and additional sense code; ``CheckCondition`` carries one out of
a command, and ``encode`` makes the bytes in the format that the host chose by D_SENSE.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from backstores.block import BlockError, NoSpace, Offline, OutOfRange, ReadFailed, WriteFailed
from backstores.errors import TiergateError
from backstores.scsi.store import StoreFailed
from backstores.wire import Bits, Wire


class Key(enum.IntEnum):
    """Sense keys (SPC-4 table 48)."""

    NO_SENSE = 0x0
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    MISCOMPARE = 0xE


class Condition(enum.Enum):
    """Sense key, additional sense code and its qualifier (SPC-4 annex F.2)."""

    NO_ADDITIONAL_SENSE = (Key.NO_SENSE, 0x00, 0x00)

    CAUSE_NOT_REPORTABLE = (Key.NOT_READY, 0x04, 0x00)
    MEDIUM_NOT_PRESENT = (Key.NOT_READY, 0x3A, 0x00)

    WRITE_ERROR = (Key.MEDIUM_ERROR, 0x0C, 0x00)
    UNRECOVERED_READ_ERROR = (Key.MEDIUM_ERROR, 0x11, 0x00)
    INTERNAL_TARGET_FAILURE = (Key.HARDWARE_ERROR, 0x44, 0x00)

    INVALID_INFORMATION_UNIT = (Key.ILLEGAL_REQUEST, 0x0E, 0x03)
    PARAMETER_LIST_LENGTH_ERROR = (Key.ILLEGAL_REQUEST, 0x1A, 0x00)
    INVALID_OPERATION_CODE = (Key.ILLEGAL_REQUEST, 0x20, 0x00)
    LBA_OUT_OF_RANGE = (Key.ILLEGAL_REQUEST, 0x21, 0x00)
    INVALID_FIELD_IN_CDB = (Key.ILLEGAL_REQUEST, 0x24, 0x00)
    UNIT_NOT_SUPPORTED = (Key.ILLEGAL_REQUEST, 0x25, 0x00)
    INVALID_FIELD_IN_PARAMETERS = (Key.ILLEGAL_REQUEST, 0x26, 0x00)
    INVALID_RELEASE = (Key.ILLEGAL_REQUEST, 0x26, 0x04)
    REMOVAL_PREVENTED = (Key.ILLEGAL_REQUEST, 0x53, 0x02)
    REGISTRATION_FULL = (Key.ILLEGAL_REQUEST, 0x55, 0x04)

    MEDIUM_MAY_HAVE_CHANGED = (Key.UNIT_ATTENTION, 0x28, 0x00)
    RESET_OCCURRED = (Key.UNIT_ATTENTION, 0x29, 0x00)
    POWER_ON_OCCURRED = (Key.UNIT_ATTENTION, 0x29, 0x01)
    BUS_RESET_OCCURRED = (Key.UNIT_ATTENTION, 0x29, 0x02)
    UNIT_RESET_OCCURRED = (Key.UNIT_ATTENTION, 0x29, 0x03)
    MODE_PARAMETERS_CHANGED = (Key.UNIT_ATTENTION, 0x2A, 0x01)
    RESERVATIONS_PREEMPTED = (Key.UNIT_ATTENTION, 0x2A, 0x03)
    RESERVATIONS_RELEASED = (Key.UNIT_ATTENTION, 0x2A, 0x04)
    REGISTRATIONS_PREEMPTED = (Key.UNIT_ATTENTION, 0x2A, 0x05)
    CAPACITY_CHANGED = (Key.UNIT_ATTENTION, 0x2A, 0x09)
    COMMANDS_CLEARED = (Key.UNIT_ATTENTION, 0x2F, 0x00)
    LUNS_CHANGED = (Key.UNIT_ATTENTION, 0x3F, 0x0E)

    WRITE_PROTECTED = (Key.DATA_PROTECT, 0x27, 0x00)
    SPACE_ALLOCATION_FAILED = (Key.DATA_PROTECT, 0x27, 0x07)
    MISCOMPARE_DURING_VERIFY = (Key.MISCOMPARE, 0x1D, 0x00)

    @property
    def key(self) -> Key:
        """The sense key alone."""
        return self.value[0]


class FieldPointer(NamedTuple):
    """Which field of the CDB, or of the parameter list, is wrong."""

    byte: int
    bit: int | None = None
    in_cdb: bool = True


@dataclass(frozen=True, slots=True)
class Sense:
    """One condition and what is known about it: a block address (or a byte offset), or the field at fault."""

    condition: Condition
    information: int | None = None
    pointer: FieldPointer | None = None


class CheckCondition(TiergateError):
    """Ends a command with CHECK CONDITION status."""

    def __init__(self, condition: Condition, information: int | None = None, pointer: FieldPointer | None = None):
        super().__init__(f"{condition.name.lower()} (information {information}, field {pointer})")
        self.sense = Sense(condition, information, pointer)


FAILURES: Final[Mapping[type[TiergateError], Condition]] = MappingProxyType(
    {
        OutOfRange: Condition.LBA_OUT_OF_RANGE,
        ReadFailed: Condition.UNRECOVERED_READ_ERROR,
        WriteFailed: Condition.WRITE_ERROR,
        NoSpace: Condition.SPACE_ALLOCATION_FAILED,
        Offline: Condition.CAUSE_NOT_REPORTABLE,
        BlockError: Condition.INTERNAL_TARGET_FAILURE,
        StoreFailed: Condition.INTERNAL_TARGET_FAILURE,
    }
)


def of_failure(error: BlockError | StoreFailed) -> Sense:
    """Say in sense data what could not be done; the information field holds the block concerned."""
    condition = next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)
    return Sense(condition, information=error.lba if isinstance(error, BlockError) else None)


class FixedSense(Wire, size=18):
    """Fixed format (SPC-4 clause 4.5.3)."""

    valid = Bits(byte=0, msb=7, width=1, doc="the information field holds something")
    response_code = Bits(byte=0, msb=6, width=7, value=0x70)
    key = Bits(byte=2, msb=3, width=4)
    information = Bits(byte=3, width=32)
    additional_length = Bits(byte=7, width=8, value=10)
    asc = Bits(byte=12, width=8)
    ascq = Bits(byte=13, width=8)
    pointer_valid = Bits(byte=15, msb=7, width=1)
    in_cdb = Bits(byte=15, msb=6, width=1)
    bit_valid = Bits(byte=15, msb=3, width=1)
    bit = Bits(byte=15, msb=2, width=3)
    pointer = Bits(byte=16, width=16)


class DescriptorSense(Wire, size=8):
    """Header of the descriptor format (SPC-4 clause 4.5.2)."""

    response_code = Bits(byte=0, msb=6, width=7, value=0x72)
    key = Bits(byte=1, msb=3, width=4)
    asc = Bits(byte=2, width=8)
    ascq = Bits(byte=3, width=8)
    additional_length = Bits(byte=7, width=8)


class InformationDescriptor(Wire, size=12):
    """SPC-4 clause 4.5.2.2."""

    descriptor_type = Bits(byte=0, width=8, value=0x00)
    additional_length = Bits(byte=1, width=8, value=10)
    valid = Bits(byte=2, msb=7, width=1, value=1)
    information = Bits(byte=4, width=64)


class PointerDescriptor(Wire, size=8):
    """Sense key specific descriptor with a field pointer (SPC-4 clause 4.5.2.4.2)."""

    descriptor_type = Bits(byte=0, width=8, value=0x02)
    additional_length = Bits(byte=1, width=8, value=6)
    pointer_valid = Bits(byte=4, msb=7, width=1, value=1)
    in_cdb = Bits(byte=4, msb=6, width=1)
    bit_valid = Bits(byte=4, msb=3, width=1)
    bit = Bits(byte=4, msb=2, width=3)
    pointer = Bits(byte=5, width=16)


FIXED_FORMATS: Final = (0x70, 0x71)  # current and deferred errors (SPC-4 table 27)


def encode(sense: Sense, descriptor: bool = False) -> bytes:
    """Make the sense data, in descriptor format if D_SENSE asks for it."""
    return _descriptor(sense) if descriptor else _fixed(sense)


def key_of(sense: bytes) -> int:
    """Read the sense key out of sense data."""
    return codes_of(sense)[0]


def codes_of(sense: bytes) -> tuple[int, int, int]:
    """Read sense key, additional sense code and its qualifier; a device may have cut the data short."""
    raw = sense.ljust(FixedSense.SIZE, b"\0")
    wire = FixedSense if FixedSense.response_code.read(raw) in FIXED_FORMATS else DescriptorSense
    return wire.key.read(raw), wire.asc.read(raw), wire.ascq.read(raw)


def _pointer_fields(pointer: FieldPointer) -> dict[str, int]:
    return {
        "in_cdb": pointer.in_cdb,
        "bit_valid": pointer.bit is not None,
        "bit": pointer.bit or 0,
        "pointer": pointer.byte,
    }


def _fixed(sense: Sense) -> bytes:
    key, asc, ascq = sense.condition.value
    fields = {"key": key, "asc": asc, "ascq": ascq}
    # A value of more than 32 bits does not fit; SPC-4 then wants VALID to be zero.
    if sense.information is not None and sense.information <= FixedSense.information.mask:
        fields |= {"valid": 1, "information": sense.information}
    if sense.pointer is not None:
        fields |= {"pointer_valid": 1, **_pointer_fields(sense.pointer)}
    return FixedSense.build(**fields)


def _descriptor(sense: Sense) -> bytes:
    key, asc, ascq = sense.condition.value
    descriptors = b""
    if sense.information is not None:
        descriptors += InformationDescriptor.build(information=sense.information)
    if sense.pointer is not None:
        descriptors += PointerDescriptor.build(**_pointer_fields(sense.pointer))
    return DescriptorSense.build(key=key, asc=asc, ascq=ascq, additional_length=len(descriptors)) + descriptors
