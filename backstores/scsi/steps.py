"""What a command asks of the shell that drives it.

A command is a generator. It yields one of these steps and is resumed with the answer (the runs, for a STATUS
request; an empty list otherwise), or a ``BlockError`` or ``StoreFailed`` is thrown into it. It returns the response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

from backstores.block import Request, Run
from backstores.scsi.model import Response
from backstores.scsi.store import UnitState
from backstores.scsi.taskset import Task


@dataclass(frozen=True, slots=True)
class Exclusive:
    """Keep other writes out of a range until the command ends; the requests that follow are for it."""

    lba: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Wait until no other command changes the unit's state; then run to the end, even if the host goes.

    What is durable and what is in memory can't come apart this way, whenever a connection breaks.
    """


@dataclass(frozen=True, slots=True)
class Persist:
    """Make the unit's state durable."""

    state: UnitState


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until aborted commands have ended."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Attend:
    """Wait for something that is no request for blocks. What it raises as ``BlockError`` is thrown into the command."""

    work: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class PassThrough:
    """Send a CDB to the device that a unit is, as it is (R5). ``answer`` is what has come back."""

    cdb: bytes
    data_out: memoryview
    data_in_bytes: int
    answer: Response = field(default_factory=Response)


class Passer(Protocol):
    """Sends CDBs to a device. ``most_bytes``: what one of them can move."""

    most_bytes: int

    async def send(self, step: PassThrough) -> Response:
        """Have the device carry a CDB out. That it does not answer is told in sense data, too."""


Step = Request | Exclusive | Attend | PassThrough | Turn | Persist | Drain
Steps = Generator[Step, list[Run], Response]
