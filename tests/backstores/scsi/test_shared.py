"""Which commands a unit offers that several storage processors serve."""

from __future__ import annotations

import pytest

from backstores.scsi import cdb as formats
from backstores.scsi import transfers
from backstores.scsi.shared import SHARED_COMMANDS, UNORDERED_COMMANDS
from backstores.wire import Wire


@pytest.mark.parametrize("wire", [formats.PersistentReserveOut, formats.Reserve6, formats.ModeSelect6])
def test_what_only_one_storage_processor_would_know_is_not_offered(wire: type[Wire]) -> None:
    """R19: hosts see the same through every port; a reservation that binds half of them would lose data."""
    assert not SHARED_COMMANDS.has(wire)
    assert not UNORDERED_COMMANDS.has(wire)


@pytest.mark.parametrize("wire", [transfers.CompareAndWrite, transfers.Orwrite])
def test_what_reads_and_writes_in_one_piece_needs_somebody_who_orders_writers(wire: type[Wire]) -> None:
    """D4: the lead does; a volume without mirrors has none."""
    assert SHARED_COMMANDS.has(wire)
    assert not UNORDERED_COMMANDS.has(wire)


@pytest.mark.parametrize("wire", [transfers.Read16, transfers.Write16, transfers.SynchronizeCache16, formats.Unmap])
def test_blocks_are_read_and_written_as_ever(wire: type[Wire]) -> None:
    assert SHARED_COMMANDS.has(wire)
    assert UNORDERED_COMMANDS.has(wire)
