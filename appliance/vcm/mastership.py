"""Which storage processor is the MVSP, in which epoch, and what it is asked (steps 508 to 518).

A new epoch begins with all storage processors that have ALUs promising to follow it: none lets an earlier master
through any more. Then the one elected reaches the ALUs, takes up the GS set, which fences them with the epoch, and
tells the system image. One that dies or falls silent is replaced at once; what it was asked then goes to its successor,
which knows from the ALUs what was done already. So a change that was ordered twice is done once.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from appliance.control.orders import Admit, BeMaster, Collect, Follow, MasterOrder, TakeUp
from appliance.control.reports import Done, ImagePart, Opened, Refused, Taken
from appliance.control.values import PART_ALUS, Access, AluAt, Grant
from appliance.messages import GsState, GsStatus
from appliance.vcm.alus import Alu, Alus
from appliance.vcm.courier import Answer, Courier, Lost, Then
from appliance.vcm.election import Candidate, elect
from appliance.vcm.peers import Peers
from appliance.vcm.secrets import Secrets


class MasterState(enum.StrEnum):
    """How far the mastership is."""

    VACANT = "vacant"
    FOLLOWING = "510 being followed"  # the others promise it
    SEATING = "510 being seated"
    ADMITTING = "512 reaching the alus"
    TAKING_UP = "514 taking up the gs set, collecting the vsmdb"
    COLLECTING = "518 telling the system image"
    READY = "ready"


class MasterEvent(enum.StrEnum):
    """What brings it further, or back."""

    ELECTED = "elected"
    FOLLOWED = "all follow"
    SEATED = "seated"
    ADMITTED = "reaches the ALUs"
    TAKEN = "GS set taken up"
    COLLECTED = "image told"
    MORE = "more ALUs"
    LOST = "lost"


BACK: Final = {MasterEvent.LOST: MasterState.VACANT}

TRANSITIONS: Final[Mapping[MasterState, Mapping[MasterEvent, MasterState]]] = {
    MasterState.VACANT: {
        MasterEvent.ELECTED: MasterState.FOLLOWING,
        MasterEvent.LOST: MasterState.VACANT,
    },
    MasterState.FOLLOWING: {MasterEvent.FOLLOWED: MasterState.SEATING, **BACK},
    MasterState.SEATING: {MasterEvent.SEATED: MasterState.ADMITTING, **BACK},
    MasterState.ADMITTING: {MasterEvent.ADMITTED: MasterState.TAKING_UP, **BACK},
    MasterState.TAKING_UP: {MasterEvent.TAKEN: MasterState.COLLECTING, **BACK},
    MasterState.COLLECTING: {MasterEvent.COLLECTED: MasterState.READY, **BACK},
    MasterState.READY: {MasterEvent.MORE: MasterState.COLLECTING, **BACK},
}

AGAIN_S: Final = 5.0
"""How long until the master tries again to reach an ALU that it could not."""

Make = Callable[[int], MasterOrder]
"""Makes an order for the epoch in which it will be given."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A change that waits for a master, or for its answer.

    ``doubtful``: it was given to a master that was lost, which may still carry it out until the next one has fenced
    the ALUs. Before that, a refusal would say nothing about what comes of it.
    """

    make: Make
    then: Then
    doubtful: bool = False
    alu: str | None = None  # a path: the master must reach this one first


@dataclass(slots=True)
class Mastership:
    """The mastership, and the changes that wait for it."""

    courier: Courier
    peers: Peers
    alus: Alus
    secrets: Secrets
    on_image: Callable[[ImagePart], None]
    on_gs: Callable[[GsStatus], None]
    on_change: Callable[[], None]
    state: MasterState = MasterState.VACANT
    master: str | None = None
    epoch: int = 0  # of the master that is, or was last
    wanted: bool = False  # the MIC has told all ALUs, or there was a master before
    _highest: int = 0
    _cursor: int = 0
    round: int = 0  # counts masterships: answers to an earlier one are void
    _fenced: bool = False  # the GS set is taken up in this epoch: no earlier master commits any more
    _following: set[str] = field(default_factory=set)
    _followed: set[str] = field(default_factory=set)
    _late: dict[str, Alu] = field(default_factory=dict)
    _refused: list[str] = field(default_factory=list)
    _again_s: float = 0.0
    _asked: deque[_Asked] = field(default_factory=deque)
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _given: dict[int, _Asked] = field(default_factory=dict)
    _numbers: int = 0

    @property
    def ready(self) -> bool:
        """Whether changes are carried out."""
        return self.state is MasterState.READY

    @property
    def sees_all(self) -> bool:
        """Whether the master sees every ALU there is: what it does not know of is not there."""
        present = all(self.peers.at_work(peer.name) for peer in self.peers)
        return self.ready and present and not self._late and all(alu.opener for alu in self.alus)

    def _move(self, event: MasterEvent) -> None:
        self.state = TRANSITIONS[self.state][event]
        self.courier.log(f"mvsp {self.master or 'none'}: {self.state}, epoch {self.epoch}")
        self.on_change()

    def seen(self, sp: str, epoch: int) -> None:
        """Take note that a storage processor has seen this epoch. Only the master itself may be ahead of us."""
        self._highest = max(self._highest, epoch)
        if sp != self.master and epoch > self.epoch and self.state is not MasterState.VACANT:
            self.lose(f"epoch {self.epoch} is past: {sp} has seen {epoch}")

    # Who it is

    def find(self) -> None:
        """Have a master, if one is wanted; called when something has changed.

        A VCM that has started anew has one elected, too, in a new epoch. It can't know whether the one that is at work
        has slept through a later one, which may have deleted what this one still has in its image.
        """
        if self.state is MasterState.VACANT and (self.wanted or self._highest):
            self._elect()

    def _elect(self) -> None:
        """Begin a new epoch."""
        candidates = [
            Candidate(name, self.alus.count(name), self.peers[name].load, len(self.peers[name].portals))
            for name in self.peers.names_at_work()
        ]
        chosen = elect(candidates)
        if chosen is None:
            return
        self.master, self._cursor = chosen.name, 0
        self._highest += 1
        self.epoch = self._highest
        self.round += 1
        self._fenced = False
        self._refused.clear()
        self._late.clear()
        self._followed.clear()
        self._following = {name for name in self.peers.names_at_work() if self.alus.count(name) or name == chosen.name}
        self.courier.log(f"step 508: {chosen.name} is to be the mvsp in epoch {self.epoch}, with {chosen.alus} alus")
        self._move(MasterEvent.ELECTED)
        for name in sorted(self._following):
            self._ask_to_follow(name)

    def _ask_to_follow(self, name: str) -> None:
        assert self.master is not None
        grant = Grant(self.master, self.secrets.of(self.master, name))
        order = Follow(epoch=self.epoch, grant=grant)
        self.courier.order(name, order, self._of_this_round(lambda answer: self._follows(name, answer)))

    def _of_this_round(self, then: Then) -> Then:
        """Let answers through as long as the same master is wanted; one that knows a higher epoch ends that."""
        number = self.round

        def check(answer: Answer) -> None:
            epoch = answer.epoch if isinstance(answer, Refused) else 0
            self._highest = max(self._highest, epoch)
            if number != self.round:
                return
            if epoch > self.epoch:
                self.lose(f"epoch {self.epoch} is past: {epoch} was seen")
                return
            then(answer)

        return check

    def _follows(self, name: str, answer: Answer) -> None:
        self._following.discard(name)
        if isinstance(answer, Done):
            self._followed.add(name)
        elif isinstance(answer, Refused):
            self.courier.log(f"{name} does not follow epoch {self.epoch}: {answer.reason}", serious=True)
        if self.state is MasterState.FOLLOWING and not self._following:
            self._move(MasterEvent.FOLLOWED)
            self._give(lambda epoch: BeMaster(epoch=epoch), self._seated)
        elif isinstance(answer, Done):
            self._catch_up()

    def _give(self, make: Make, then: Then) -> None:
        """Order the master itself."""
        assert self.master is not None
        self.courier.order(self.master, make(self.epoch), self._of_this_round(then))

    def _seated(self, answer: Answer) -> None:
        if self._failed(answer):
            return
        self._move(MasterEvent.SEATED)
        parts = list(self._parts(alu for alu in self.alus if alu.opener in self._followed))
        self._admit(iter(parts))

    def _parts(self, alus: Iterable[Alu]) -> Iterator[tuple[AluAt, ...]]:
        """Say where the master reaches these ALUs, some at a time (step 512)."""
        ats = (self._at(alu) for alu in alus if alu.opener is not None)
        while part := tuple(islice(ats, PART_ALUS)):
            yield part

    def _at(self, alu: Alu) -> AluAt:
        assert alu.opener is not None
        assert self.master is not None
        wwn = alu.status.wwn if alu.status else None
        if alu.opener == self.master:
            return AluAt(alu.path, wwn, legacy=alu.legacy)
        secret = self.secrets.of(self.master, alu.opener)
        access = Access(alu.opener, self.peers[alu.opener].portals, secret)
        return AluAt(alu.path, wwn, access, alu.legacy)

    def _admit(self, parts: Iterator[tuple[AluAt, ...]]) -> None:
        part = next(parts, None)
        if part is not None:
            self._give(lambda epoch: Admit(epoch=epoch, alus=part), lambda answer: self._admitted(answer, parts))
        elif self.state is MasterState.ADMITTING:
            self._move(MasterEvent.ADMITTED)
            self._give(lambda epoch: TakeUp(epoch=epoch), self._taken)
        else:
            self._collect()

    def _admitted(self, answer: Answer, parts: Iterator[tuple[AluAt, ...]]) -> None:
        if self._failed(answer):
            return
        if isinstance(answer, Done) and isinstance(answer.result, Opened):
            for found in answer.result.refused:
                self.courier.log(f"the mvsp can't reach alu {found.path}: {found.trouble}", serious=True)
                self._refused.append(found.path)
                self._again_s = self.courier.now_s + AGAIN_S
        self._take(answer)
        self._admit(parts)

    def _take(self, answer: Answer) -> None:
        """Take note of the epoch in which the GS set was taken up."""
        if isinstance(answer, Done) and isinstance(answer.result, Taken):
            self.epoch = answer.result.epoch
            self._highest = max(self._highest, self.epoch)
            self._fenced = answer.result.gs.state is GsState.READY
            self.on_gs(answer.result.gs)

    def _taken(self, answer: Answer) -> None:
        if self._failed(answer):
            return
        self._take(answer)
        self._move(MasterEvent.TAKEN)
        self._collect()

    def _collect(self) -> None:
        self._give(lambda epoch: Collect(epoch=epoch, cursor=self._cursor), self._collected)

    def _collected(self, answer: Answer) -> None:
        if self._failed(answer):
            return
        assert isinstance(answer, Done)
        if isinstance(answer.result, ImagePart):
            self._cursor = answer.result.cursor
            self.on_image(answer.result)
            if answer.result.more:
                self._collect()
                return
        if self.state is MasterState.COLLECTING:
            self._move(MasterEvent.COLLECTED)
        self._catch_up()
        self._serve()

    def _failed(self, answer: Answer) -> bool:
        if isinstance(answer, Done):
            return False
        self.lose(answer.reason)
        return True

    def lose(self, reason: str) -> None:
        """Give the mastership to another: this one died, fell silent, or was overtaken by a later one."""
        if self.state is MasterState.VACANT:
            return
        self.courier.log(f"the mvsp {self.master} is no more: {reason}", serious=True)
        assert self.master is not None
        self.wanted = True
        self.round += 1
        self._asked = deque([*(replace(asked, doubtful=True) for asked in self._given.values()), *self._asked])
        self._given.clear()
        self.master = None
        self._move(MasterEvent.LOST)

    # ALUs that come late

    def admit(self, alu: Alu) -> None:
        """Have the master reach an ALU that was opened just now."""
        if self.state is not MasterState.VACANT:
            self._late[alu.path] = alu
            self._catch_up()

    def tick(self, now_s: float) -> None:
        """Have the master try again what it could not reach a while ago."""
        if not self.ready or not self._refused or now_s < self._again_s:
            return
        refused, self._refused = self._refused, []
        for alu in filter(None, map(self.alus.get, refused)):
            self._late[alu.path] = alu
        self._catch_up()

    def _catch_up(self) -> None:
        """Admit late ALUs, once those that have them open follow."""
        if not self.ready:
            return
        late = {path: alu for path, alu in self._late.items() if alu.opener is not None}
        openers = {alu.opener for alu in late.values() if alu.opener is not None and self.peers.at_work(alu.opener)}
        for name in sorted(openers - self._followed - self._following):
            self._following.add(name)
            self._ask_to_follow(name)
        able = [alu for alu in late.values() if alu.opener in self._followed]
        for alu in able:
            del self._late[alu.path]
        if able:
            self._move(MasterEvent.MORE)
            self._admit(iter(list(self._parts(able))))

    def forget(self, name: str) -> None:
        """Expect nothing of a storage processor that is gone or silent: its successor has promised nothing."""
        if name == self.master:
            self.lose(f"{name} is gone, or silent")
        self._followed.discard(name)
        if name in self._following:
            self._follows(name, Lost("gone, or silent"))

    # Changes

    def when_ready(self, then: Callable[[], None]) -> None:
        """Tell when changes are carried out."""
        if self.ready:
            then()
        else:
            self._waiting.append(then)

    def ask(self, make: Make, then: Then, alu: str | None = None) -> None:
        """Have the master make a change; wait for one if there is none, or until it reaches an ALU (a path)."""
        self._asked.append(_Asked(make, then, alu=alu))
        self._serve()

    def _serve(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            self.when_ready(then)
        if self.ready:
            able = [asked for asked in self._asked if not self._must_wait(asked)]
            self._asked = deque(asked for asked in self._asked if self._must_wait(asked))
            for asked in able:
                self._order(asked)

    def _must_wait(self, asked: _Asked) -> bool:
        return asked.alu in self._late or (asked.doubtful and not self._fenced)

    def _order(self, asked: _Asked) -> None:
        assert self.master is not None
        self._numbers += 1
        number = self._numbers
        self._given[number] = asked

        def answered(answer: Answer) -> None:
            if number not in self._given:
                return  # the mastership was lost meanwhile, and the next master is asked
            if isinstance(answer, Lost) or (isinstance(answer, Refused) and answer.epoch > 0):
                self._highest = max(self._highest, answer.epoch if isinstance(answer, Refused) else 0)
                self.lose(answer.reason)
                return
            del self._given[number]
            asked.then(answer)

        self.courier.order(self.master, asked.make(self.epoch), answered)
