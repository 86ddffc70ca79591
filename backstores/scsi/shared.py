"""Commands of a unit that several storage processors serve at the same time.

What a command changes of the unit itself must hold for hosts at all of them. Reservations, mode pages and an ejected
medium are known to the one that carried the command out and to no other, and a host that believes in a reservation
which binds half of the others loses data. So these commands are not offered: INVALID COMMAND OPERATION CODE is the
answer that a cluster's fencing understands.
"""

from __future__ import annotations

from typing import Final

from backstores.scsi import cdb as formats
from backstores.scsi import transfers as t
from backstores.scsi.commands import TABLE
from backstores.scsi.opcodes import CommandSet

KNOWN_TO_ONE: Final = frozenset(
    {
        *(formats.Reserve6, formats.Release6, formats.Reserve10, formats.Release10),
        *(formats.PersistentReserveIn, formats.PersistentReserveOut),
        *(formats.ModeSelect6, formats.ModeSelect10),
        *(formats.StartStopUnit, formats.PreventAllow),
    }
)
SHARED_COMMANDS: Final = CommandSet(known for known in TABLE.values() if known.wire not in KNOWN_TO_ONE)

IN_ONE_PIECE: Final = frozenset({t.CompareAndWrite, t.Orwrite})
UNORDERED_COMMANDS: Final = CommandSet(
    known for known in TABLE.values() if known.wire not in KNOWN_TO_ONE | IN_ONE_PIECE
)
"""Where nobody orders the writers of several storage processors, nothing can be read and written in one piece."""
