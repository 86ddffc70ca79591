"""Sense data, byte by byte."""

import pytest

from backstores.block import BlockError, NoSpace, Offline, OutOfRange, ReadFailed, WriteFailed
from backstores.scsi.sense import Condition, FieldPointer, Sense, encode, of_failure
from backstores.scsi.store import StoreFailed

GOLDEN = [
    pytest.param(
        Sense(Condition.INVALID_OPERATION_CODE),
        "70 00 05 00000000 0a 00000000 20 00 00 00 0000",
        "72 05 20 00 000000 00",
        id="nothing but the codes",
    ),
    pytest.param(
        Sense(Condition.UNRECOVERED_READ_ERROR, information=0x1234),
        "f0 00 03 00001234 0a 00000000 11 00 00 00 0000",
        "72 03 11 00 000000 0c 00 0a 80 00 0000000000001234",
        id="with the block that failed",
    ),
    pytest.param(
        Sense(Condition.WRITE_ERROR, information=0x1_0000_0000),
        "70 00 03 00000000 0a 00000000 0c 00 00 00 0000",
        "72 03 0c 00 000000 0c 00 0a 80 00 0000000100000000",
        id="a block past 32 bits: not valid in fixed format",
    ),
    pytest.param(
        Sense(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 5)),
        "70 00 05 00000000 0a 00000000 24 00 00 cd 0002",
        "72 05 24 00 000000 08 02 06 0000 cd 0002 00",
        id="with a field pointer to a bit of the CDB",
    ),
    pytest.param(
        Sense(Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(0x102, None, in_cdb=False)),
        "70 00 05 00000000 0a 00000000 26 00 00 80 0102",
        "72 05 26 00 000000 08 02 06 0000 80 0102 00",
        id="with a field pointer to a byte of the parameters",
    ),
]


@pytest.mark.parametrize(("sense", "fixed", "descriptor"), GOLDEN)
def test_bytes(sense: Sense, fixed: str, descriptor: str) -> None:
    """SPC-4 clause 4.5: both formats say the same."""
    assert encode(sense) == bytes.fromhex(fixed)
    assert encode(sense, descriptor=True) == bytes.fromhex(descriptor)


@pytest.mark.parametrize(
    ("failure", "codes"),
    [
        (OutOfRange(7, 8, 10), (0x5, 0x21, 0x00)),
        (ReadFailed("gone", 7), (0x3, 0x11, 0x00)),
        (WriteFailed("gone", 7), (0x3, 0x0C, 0x00)),
        (NoSpace("full", 7), (0x7, 0x27, 0x07)),
        (Offline("closing", 7), (0x2, 0x04, 0x00)),
        (BlockError("another", 7), (0x4, 0x44, 0x00)),
        (StoreFailed("another"), (0x4, 0x44, 0x00)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_failures_become_sense(failure: BlockError | StoreFailed, codes: tuple[int, int, int]) -> None:
    """Each failure of a device has its own sense, with the block concerned as information."""
    sense = of_failure(failure)
    assert sense.condition.value == codes
    assert sense.information == (7 if isinstance(failure, BlockError) else None)


def test_a_failure_unknown_to_the_table_takes_its_parents_row() -> None:
    class Special(ReadFailed):
        pass

    assert of_failure(Special("new", 1)).condition is Condition.UNRECOVERED_READ_ERROR
