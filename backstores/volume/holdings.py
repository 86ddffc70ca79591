"""Which ranges of a volume its followers have from the lead: the decisions (D4, D2).

A follower asks for a range before it writes there (HOLD), and says afterwards whether all legs have the same again
(FREE). It names each of its holdings by a serial number that it never uses twice; so a FREE that comes late, or twice,
concerns nothing else, and one of something unknown is no error.

    ask --Take--> taken --Grant--> free, settled --Release--> ended
                               \\-> free, in doubt --Mend--> ended

A nexus that is lost says nothing about its writes: they may be on their way still, by other sessions. What it held is
*orphaned*: nobody gets it until the same follower, by another nexus, says how that ended, or until it is *fenced*: none
of its writes can reach a leg any more. Then the legs are made equal there, for it may have written some of them.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from backstores.block import BlockError, Busy

MOST_OF_A_FOLLOWER: Final = 1024
"""Holdings of one follower at a time; it has been given BUSY where it wants more."""


class Key(NamedTuple):
    """Names a holding: whose it is, and by which number."""

    follower: str
    serial: int


class Stage(enum.Enum):
    """How far a holding is."""

    WAITING = "waiting"  # for other writers, and for its dirty bits
    HELD = "held"
    ORPHANED = "orphaned"
    MENDING = "mending"
    ENDING = "ending"  # it is being released
    ENDED = "ended"


class Event(enum.Enum):
    """What happens to a holding."""

    TAKEN = "taken"  # the range is the follower's, its dirty bits are durable
    SETTLED = "settled"  # all legs have the same there
    IN_DOUBT = "in doubt"
    LOST = "lost"  # the nexus is gone
    FENCED = "fenced"
    ENDED = "ended"  # the range is somebody else's to take


STAGES: Final[Mapping[Stage, Mapping[Event, Stage]]] = {
    Stage.WAITING: {
        Event.TAKEN: Stage.HELD,
        Event.SETTLED: Stage.ENDING,  # the follower gave up before it was granted; nothing was written
        Event.IN_DOUBT: Stage.ENDING,
        Event.LOST: Stage.ENDING,
        Event.ENDED: Stage.ENDED,
    },
    Stage.HELD: {
        Event.SETTLED: Stage.ENDING,
        Event.IN_DOUBT: Stage.MENDING,
        Event.LOST: Stage.ORPHANED,
        Event.ENDED: Stage.ENDED,
    },
    Stage.ORPHANED: {
        Event.SETTLED: Stage.ENDING,
        Event.IN_DOUBT: Stage.MENDING,
        Event.FENCED: Stage.MENDING,
        Event.ENDED: Stage.ENDED,
    },
    Stage.MENDING: {Event.ENDED: Stage.ENDED},
    Stage.ENDING: {Event.TAKEN: Stage.ENDING, Event.ENDED: Stage.ENDED},
    Stage.ENDED: {},
}
"""What is not in here changes nothing: a FREE that comes again, a nexus lost after that."""


@dataclass(frozen=True, slots=True)
class Ask:
    """HOLD: a follower wants to write to a range."""

    key: Key
    nexus: Hashable
    lba: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The range of a holding was taken, and its dirty bits are durable."""

    key: Key


@dataclass(frozen=True, slots=True)
class Free:
    """FREE: a follower is done with a range. ``settled``: every leg has all that it has written there, or nothing."""

    key: Key
    settled: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """A nexus has ended."""

    nexus: Hashable


@dataclass(frozen=True, slots=True)
class Fenced:
    """No write that a follower began by nexuses that are lost can reach a leg any more."""

    follower: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A holding was released, or could not be taken."""

    key: Key


Input = Ask | Taken | Free | Lost | Fenced | Ended


@dataclass(frozen=True, slots=True)
class Take:
    """Wait until no other writer has the range, and make its dirty bits durable; then ``Taken``."""

    key: Key
    lba: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Tell the follower that the range is its own."""

    key: Key


@dataclass(frozen=True, slots=True)
class Mend:
    """Make the legs equal in the range, release it, and say ``Ended``."""

    key: Key


@dataclass(frozen=True, slots=True)
class Release:
    """Give the range up, taken or not, and say ``Ended``."""

    key: Key


@dataclass(frozen=True, slots=True)
class Fence:
    """Make sure that no write that this follower has begun can reach a leg any more; then ``Fenced``."""

    follower: str


Effect = Take | Grant | Mend | Release | Fence


@dataclass(slots=True)
class Holding:
    """One range of one follower."""

    nexus: Hashable
    stage: Stage = Stage.WAITING


class Holdings:
    """All ranges that followers have, or wait for."""

    def __init__(self) -> None:
        self._all: dict[Key, Holding] = {}
        self._fencing: set[str] = set()

    def stage(self, key: Key) -> Stage:
        """Say how far a holding is."""
        return self._all[key].stage if key in self._all else Stage.ENDED

    def step(self, event: Input) -> list[Effect]:
        """Hear of something; say what is to be done.

        Raises:
            BlockError: a follower asks by a number that it uses already.
            Busy: it holds too many ranges.
        """
        match event:
            case Ask():
                return self._ask(event)
            case Taken(key):
                return [Grant(key)] if self._pass(key, Event.TAKEN) is Stage.HELD else []
            case Free(key, settled):
                return self._free(key, Event.SETTLED if settled else Event.IN_DOUBT)
            case Lost(nexus):
                return list(self._lose(nexus))
            case Fenced(follower):
                return list(self._mend_orphans(follower))
            case Ended(key):
                self._pass(key, Event.ENDED)
                self._all.pop(key, None)
                return []

    def _ask(self, ask: Ask) -> list[Effect]:
        if ask.key in self._all:
            raise BlockError(f"a follower uses number {ask.key.serial} for two holdings", ask.lba)
        if sum(key.follower == ask.key.follower for key in self._all) >= MOST_OF_A_FOLLOWER:
            raise Busy(f"a follower holds {MOST_OF_A_FOLLOWER} ranges already", ask.lba)
        self._all[ask.key] = Holding(ask.nexus)
        return [Take(ask.key, ask.lba, ask.blocks)]

    def _free(self, key: Key, event: Event) -> list[Effect]:
        before = self.stage(key)
        after = self._pass(key, event)
        if after is before:
            return []
        return [Mend(key)] if after is Stage.MENDING else [Release(key)]

    def _lose(self, nexus: Hashable) -> Iterator[Effect]:
        for key, holding in list(self._all.items()):
            if holding.nexus != nexus:
                continue
            before = holding.stage
            after = self._pass(key, Event.LOST)
            if before is not after and after is Stage.ENDING:
                yield Release(key)
            elif after is Stage.ORPHANED and key.follower not in self._fencing:
                self._fencing.add(key.follower)
                yield Fence(key.follower)

    def _mend_orphans(self, follower: str) -> Iterator[Effect]:
        self._fencing.discard(follower)
        for key, holding in list(self._all.items()):
            if key.follower == follower and holding.stage is Stage.ORPHANED:
                self._pass(key, Event.FENCED)
                yield Mend(key)

    def _pass(self, key: Key, event: Event) -> Stage:
        """Let something happen to a holding; say how far it is then."""
        holding = self._all.get(key)
        if holding is None:
            return Stage.ENDED
        holding.stage = STAGES[holding.stage].get(event, holding.stage)
        return holding.stage
