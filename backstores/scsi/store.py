"""What a unit keeps over a restart: saved mode pages, and reservations where APTPL asks for it.

``save`` returns when the state is durable; only then does the command that changed it end well.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from backstores.errors import TiergateError
from backstores.wwn import Wwn


class StoreFailed(TiergateError):
    """The state of a unit could not be made durable."""


class NexusName(NamedTuple):
    """An I_T nexus by names that outlive a session: the initiator port, and our relative target port identifier."""

    initiator_port: str
    relative_port: int


class Registration(msgspec.Struct, frozen=True):
    """One reservation key and the nexus that registered it."""

    nexus: NexusName
    key: int


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept. ``reservation_type`` is 0 where there is no reservation; ``modes`` maps page code to page."""

    registrations: tuple[Registration, ...] = ()
    holder: NexusName | None = None
    reservation_type: int = 0
    modes: dict[int, bytes] = {}  # msgspec gives each instance a copy


class UnitStore(Protocol):
    """Where the state of units is kept, by the WWN of the unit."""

    def load(self, wwn: Wwn) -> UnitState | None:
        """Give what was saved last; None for a unit that never saved anything."""

    async def save(self, wwn: Wwn, state: UnitState) -> None:
        """Make the state durable.

        Raises:
            StoreFailed: it could not be written; the old state is still there.
        """


class MemoryStore:
    """The twin for tests. It outlives the units, as a database would."""

    def __init__(self) -> None:
        self.states: dict[Wwn, UnitState] = {}
        self.saves = 0

    def load(self, wwn: Wwn) -> UnitState | None:
        return self.states.get(wwn)

    async def save(self, wwn: Wwn, state: UnitState) -> None:
        self.saves += 1
        self.states[wwn] = state
