"""Persistent reservations: who has registered, who holds the unit, and what follows (SPC-4 clause 5.12).

The state is immutable. A service action makes a ``Change``: the state after it, whom to tell by a unit
attention, and whose commands to abort. The unit adopts it only when it is durable, if APTPL asks for that; so
a crash leaves the old state or the new one, and a host never hears GOOD for what may be forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from backstores.errors import CorruptError
from backstores.scsi.sense import CheckCondition, Condition
from backstores.scsi.store import NexusName, Registration, UnitState

MAX_REGISTRATIONS: Final = 1024


class ReservationType(enum.IntEnum):
    """SPC-4 table 176."""

    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8

    @property
    def all_registrants(self) -> bool:
        """Whether every registrant is a holder."""
        return self in _ALL_REGISTRANTS

    @property
    def open_to_registrants(self) -> bool:
        """Whether every registrant may do what the holder may."""
        return self in _REGISTRANTS_ONLY or self in _ALL_REGISTRANTS

    @property
    def allows_reads(self) -> bool:
        """Whether nexuses that did not register may read."""
        return self in _WRITE_EXCLUSIVE


_REGISTRANTS_ONLY: Final = frozenset(
    {ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY, ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY}
)
_ALL_REGISTRANTS: Final = frozenset(
    {ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS, ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS}
)
_WRITE_EXCLUSIVE: Final = frozenset(
    {
        ReservationType.WRITE_EXCLUSIVE,
        ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    }
)


class Access(enum.Enum):
    """What reservations look at when a command comes (SPC-4 table 68, SBC-3 table 13)."""

    ALWAYS = enum.auto()  # never in conflict
    PERSISTENT = enum.auto()  # in conflict with RESERVE alone, never with a persistent reservation
    READ = enum.auto()  # in conflict with exclusive access
    WRITE = enum.auto()  # in conflict with any reservation of others


class ReservationConflict(Exception):
    """Ends a command with RESERVATION CONFLICT status: an outcome, and no error of ours."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a service action comes to. ``told`` may name nexuses that are not there now."""

    state: Reservations
    told: Mapping[NexusName, Condition] = field(default_factory=dict)
    aborted: frozenset[NexusName] = frozenset()


@dataclass(frozen=True, slots=True)
class Reservations:
    """Registrations and the reservation of one unit. Of an all-registrants reservation no one holder is kept."""

    keys: Mapping[NexusName, int] = field(default_factory=dict)
    type: ReservationType | None = None
    holder: NexusName | None = None
    generation: int = 0
    persistent: bool = False  # APTPL: kept over a loss of power

    @classmethod
    def restored(cls, state: UnitState) -> Reservations:
        """Come back after a restart (APTPL). PRGENERATION begins anew, as SPC-4 clause 5.12.6.2 says.

        Raises:
            CorruptError: what was stored is no state that a unit can be in.
        """
        keys = {registration.nexus: registration.key for registration in state.registrations}
        if state.reservation_type not in (0, *ReservationType):
            raise CorruptError(f"reservation type {state.reservation_type} is none of SPC-4")
        type_ = ReservationType(state.reservation_type) if state.reservation_type else None
        one_holder = type_ is not None and not type_.all_registrants
        if (state.holder in keys) is not one_holder or (type_ is not None and not keys):
            raise CorruptError(f"holder {state.holder} does not fit a reservation of type {state.reservation_type}")
        return cls(keys, type_, state.holder, persistent=bool(keys))

    @property
    def kept(self) -> tuple[tuple[Registration, ...], NexusName | None, int]:
        """What goes to the store: registrations, holder and type; nothing unless APTPL."""
        if not self.persistent:
            return (), None, 0
        return tuple(Registration(nexus, key) for nexus, key in self.keys.items()), self.holder, self.type or 0

    def holds(self, nexus: NexusName) -> bool:
        """Whether a nexus holds the reservation."""
        if self.type is None:
            return False
        return nexus in self.keys if self.type.all_registrants else nexus == self.holder

    def allows(self, nexus: NexusName, access: Access) -> bool:
        """Whether a command is free of conflict with the persistent reservation."""
        if self.type is None or access in (Access.ALWAYS, Access.PERSISTENT) or self.holds(nexus):
            return True
        if nexus in self.keys and self.type.open_to_registrants:
            return True
        return access is Access.READ and self.type.allows_reads

    def register(
        self,
        nexus: NexusName,
        key: int,
        new_key: int,
        *,
        ignore: bool,
        persistent: bool,
        ports: Iterable[int] = (),
    ) -> Change:
        """REGISTER, and REGISTER AND IGNORE EXISTING KEY: a new key of zero unregisters.

        ``ports`` lists the target ports that ALL_TG_PT registers the initiator port at, besides this one.
        """
        if not ignore and self.keys.get(nexus, 0) != key:
            raise ReservationConflict
        generation = self._next_generation()
        if not new_key:
            if nexus not in self.keys:
                return Change(self)  # nothing to unregister: good, and nothing has changed
            change = self._without({nexus})
            return replace(change, state=replace(change.state, generation=generation, persistent=persistent))
        also = {NexusName(nexus.initiator_port, port): new_key for port in ports}
        keys = {**self.keys, **also, nexus: new_key}
        if len(keys) > MAX_REGISTRATIONS:
            raise CheckCondition(Condition.REGISTRATION_FULL)
        return Change(replace(self, keys=keys, generation=generation, persistent=persistent))

    def reserve(self, nexus: NexusName, key: int, type_: ReservationType) -> Change:
        """RESERVE: again by the holder with the same type is good and changes nothing."""
        self._check_key(nexus, key)
        if self.type is not None:
            if self.holds(nexus) and self.type is type_:
                return Change(self)
            raise ReservationConflict
        return Change(self._reserved(nexus, type_))

    def release(self, nexus: NexusName, key: int, type_: ReservationType) -> Change:
        """RELEASE: good, and without effect, from a registrant that is no holder."""
        self._check_key(nexus, key)
        if self.type is None or not self.holds(nexus):
            return Change(self)
        if self.type is not type_:
            raise CheckCondition(Condition.INVALID_RELEASE)
        told = self._others(nexus) if self.type.open_to_registrants else ()
        return Change(replace(self, type=None, holder=None), dict.fromkeys(told, Condition.RESERVATIONS_RELEASED))

    def clear(self, nexus: NexusName, key: int) -> Change:
        """CLEAR: reservation and all registrations go."""
        self._check_key(nexus, key)
        told = dict.fromkeys(self._others(nexus), Condition.RESERVATIONS_PREEMPTED)
        return Change(Reservations(generation=self._next_generation(), persistent=self.persistent), told)

    def preempt(self, nexus: NexusName, key: int, victim_key: int, type_: ReservationType, abort: bool) -> Change:
        """PREEMPT, and PREEMPT AND ABORT (SPC-4 clause 5.12.11.2)."""
        self._check_key(nexus, key)
        takes_all = self.type is not None and self.type.all_registrants and not victim_key
        if not victim_key and not takes_all:
            raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS)
        matching = {name for name, known in self.keys.items() if takes_all or known == victim_key}
        if not matching:
            raise ReservationConflict
        victims = matching - {nexus}
        takes = takes_all or (self.type is not None and self.holder is not None and self.holder in matching)
        if takes:
            after = replace(self, keys=self._keys_without(victims))._reserved(nexus, type_)
            told = dict.fromkeys(after._others(nexus), Condition.RESERVATIONS_RELEASED) if self.type != type_ else {}
        else:
            change = self._without(victims)
            after, told = change.state, dict(change.told)
        told |= dict.fromkeys(victims, Condition.REGISTRATIONS_PREEMPTED)
        aborted = frozenset(victims) if abort else frozenset()
        return Change(replace(after, generation=self._next_generation()), told, aborted)

    def move(
        self, nexus: NexusName, key: int, new_key: int, to: NexusName, *, unregister: bool, persistent: bool
    ) -> Change:
        """REGISTER AND MOVE: the holder hands its reservation to another nexus (SPC-4 clause 5.12.8)."""
        self._check_key(nexus, key)
        if self.type is None or not self.holds(nexus) or self.type.all_registrants:
            raise ReservationConflict
        if not new_key or to == nexus:
            raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS)
        keys = {**(self._keys_without({nexus}) if unregister else self.keys), to: new_key}
        if len(keys) > MAX_REGISTRATIONS:
            raise CheckCondition(Condition.REGISTRATION_FULL)
        generation = self._next_generation()
        return Change(replace(self, keys=keys, holder=to, generation=generation, persistent=persistent))

    def _check_key(self, nexus: NexusName, key: int) -> None:
        if self.keys.get(nexus) != key:
            raise ReservationConflict

    def _next_generation(self) -> int:
        return (self.generation + 1) & 0xFFFFFFFF

    def _others(self, nexus: NexusName) -> list[NexusName]:
        return [name for name in self.keys if name != nexus]

    def _keys_without(self, gone: Iterable[NexusName]) -> dict[NexusName, int]:
        return {name: key for name, key in self.keys.items() if name not in gone}

    def _reserved(self, nexus: NexusName, type_: ReservationType) -> Reservations:
        return replace(self, type=type_, holder=None if type_.all_registrants else nexus)

    def _without(self, gone: set[NexusName]) -> Change:
        """Remove registrations, and the reservation with its last holder (SPC-4 clause 5.12.11.1.2)."""
        after = replace(self, keys=self._keys_without(gone))
        if self.type is None or any(after.holds(name) for name in after.keys):
            return Change(after)
        told = dict.fromkeys(after.keys, Condition.RESERVATIONS_RELEASED) if self.type.open_to_registrants else {}
        return Change(replace(after, type=None, holder=None), told)
