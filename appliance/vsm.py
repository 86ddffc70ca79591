"""The Virtualization State Manager (VSM): what a storage processor does with the orders of the VCM (R9).

``step`` takes what came in and gives what is to be done. Orders that concern the same thing (a volume, the ALUs, the
mastership) are carried out one after the other, all others side by side. An order is carried out once, however often it
arrives, and its answer is given again as often as it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

from appliance.control.orders import (
    CloseAlus,
    Follow,
    MasterOrder,
    OpenAlus,
    Order,
    Ordered,
    Report,
    Scan,
    SetFault,
    ToSp,
    TurnedAway,
    VolumeOrder,
    WhoIsThere,
)
from appliance.control.reports import (
    AluIs,
    Beat,
    Done,
    FromSp,
    Hello,
    LegsLost,
    Opened,
    Refused,
    RunsPart,
    SessionsAre,
    VolumeIs,
)
from appliance.control.values import PART_VOLUMES, AluAt, T1Runs, T2Runs
from appliance.decisions import Action, Carried, Decision, Do, Failed, Outcome, Refuse, Reply
from appliance.inbox import Delivery, Inbox
from appliance.mvsm import Mvsm
from appliance.vom import Vom

BEAT_S: Final = 0.5
HELLO_S: Final = 1.0  # how often a storage processor that nobody welcomed says that it is there


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a storage processor is. ``incarnation`` is higher than that of each earlier process of this name."""

    name: str
    incarnation: int
    blade: str = ""
    internal_portals: tuple[str, ...] = ()
    host_portals: tuple[str, ...] = ()


# What comes in


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of the VCM."""

    message: ToSp


@dataclass(frozen=True, slots=True)
class Tick:
    """Time goes on; once in ``BEAT_S`` or oftener. ``load`` is from 0 to 1."""

    now_s: float
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that the data plane noticed by itself."""

    report: LegsLost | VolumeIs | AluIs | SessionsAre


Input = Heard | Tick | Happened | Outcome

# What is to be done


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the VCM."""

    message: FromSp


@dataclass(frozen=True, slots=True)
class Carry:
    """Do this with the data plane or the ALUs, and come back with a ``Carried`` or ``Failed`` of this number."""

    job: int
    action: Action


@dataclass(frozen=True, slots=True)
class Leave:
    """The VCM turned this storage processor away: end the process with this reason."""

    reason: str


Effect = Say | Carry | Leave

MASTER: Final = "master"
ALUS: Final = "alus"
FOLLOW: Final = "follow"
FAULTS: Final = "faults"
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class _Job:
    """An order on its way; ``vcm`` is the incarnation that gave it."""

    vcm: int
    number: int
    order: Order


@dataclass(slots=True)
class Vsm:
    """The decisions of one storage processor: its VSM, with its VOM and its MVSM."""

    identity: Identity
    vom: Vom = field(default_factory=Vom)
    mvsm: Mvsm = field(default_factory=Mvsm)
    epoch: int = 0
    alus: dict[str, AluAt] = field(default_factory=dict)
    _inbox: Inbox = field(default_factory=Inbox)
    _queues: dict[Hashable, deque[_Job]] = field(default_factory=dict)
    _running: dict[int, Hashable] = field(default_factory=dict)
    _jobs: int = 0
    _welcome: bool = False
    _said_s: float = float("-inf")
    _effects: list[Effect] = field(default_factory=list)

    def step(self, event: Input) -> list[Effect]:
        """Take what came in; give what is to be done, in this order."""
        match event:
            case Heard(message):
                self._heard(message)
            case Tick(now_s, load):
                self._tick(now_s, load)
            case Happened(LegsLost() as report):
                if self.vom.lose_legs(report):
                    self._say(self.vom.lost[report.volume])
            case Happened(report):
                self._say(report)
            case Carried() | Failed():
                self._finished(event)
        effects, self._effects = self._effects, []
        return effects

    def _say(self, body: Hello | Beat | Done | Refused | LegsLost | VolumeIs | AluIs | SessionsAre) -> None:
        self._effects.append(Say(FromSp(self.identity.name, self.identity.incarnation, self._inbox.vcm, body)))

    def _hello(self) -> None:
        identity = self.identity
        hello = Hello(
            blade=identity.blade,
            internal_portals=identity.internal_portals,
            host_portals=identity.host_portals,
            epoch=self.epoch,
            master_epoch=self.mvsm.master_epoch,
            runs=len(self.vom.first) + len(self.vom.second),
            alus=tuple(self.alus.values()),
        )
        self._say(hello)

    def _tick(self, now_s: float, load: float) -> None:
        if now_s - self._said_s < (BEAT_S if self._welcome else HELLO_S):
            return
        self._said_s = now_s
        if self._welcome:
            self._say(Beat(load=load, epoch=self.epoch))
            for lost in self.vom.lost.values():
                self._say(lost)
        else:
            self._hello()

    # Messages

    def _heard(self, message: ToSp) -> None:
        if message.incarnation not in (0, self.identity.incarnation) or message.vcm < self._inbox.vcm:
            return
        if message.vcm > self._inbox.vcm:
            self._turn_to(message.vcm)
        match message.body:
            case Ordered() as ordered:
                self._deliver(ordered)
            case WhoIsThere():
                self._hello()
            case TurnedAway(reason=reason):
                self._effects.append(Leave(reason))
            case _:
                self._welcome = True

    def _turn_to(self, vcm: int) -> None:
        """Take orders of a new VCM; those of the old one that have not begun are void."""
        self._inbox.turn_to(vcm)
        self._welcome = False
        for key, queue in list(self._queues.items()):
            running = key in self._running.values()
            self._queues[key] = deque([queue[0]] if running else [])
            if not self._queues[key]:
                del self._queues[key]

    def _deliver(self, ordered: Ordered) -> None:
        delivery = self._inbox.deliver(ordered.number, ordered.settled)
        if delivery is Delivery.ANSWERED:
            answer = self._inbox.answers[ordered.number]
            assert answer is not None
            self._say(answer)
        elif delivery is Delivery.NEW:
            key = _key(ordered.order)
            queue = self._queues.setdefault(key, deque())
            queue.append(_Job(self._inbox.vcm, ordered.number, ordered.order))
            if len(queue) == 1:
                self._begin(key)

    # Jobs

    def _begin(self, key: Hashable) -> None:
        """Begin the first job of a queue; go on with the next as long as nothing has to be waited for."""
        while queue := self._queues.get(key):
            if key == ALL and self._running:
                return  # what runs would change the answer: see _finished
            job = queue[0]
            decision = self._decide(job.order)
            if isinstance(decision, Do):
                self._jobs += 1
                self._running[self._jobs] = key
                self._effects.append(Carry(self._jobs, decision.action))
                return
            self._end(key, decision)

    def _end(self, key: Hashable, decision: Reply | Refuse) -> None:
        """Answer the first job of a queue."""
        queue = self._queues[key]
        job = queue.popleft()
        if not queue:
            del self._queues[key]
        if isinstance(decision, Reply):
            answer: Done | Refused = Done(number=job.number, result=decision.result)
        else:
            reason = decision.reason[:4096]
            answer = Refused(number=job.number, reason=reason, usage=decision.usage, epoch=decision.epoch)
        if job.vcm == self._inbox.vcm and self._inbox.answer(answer):
            self._say(answer)

    def _finished(self, outcome: Outcome) -> None:
        key = self._running.pop(outcome.job)
        self._end(key, self._close(self._queues[key][0].order, outcome))
        self._begin(key)
        if not self._running:
            self._begin(ALL)

    def _decide(self, order: Order) -> Decision:
        if isinstance(order, VolumeOrder):
            return self.vom.decide(order)
        if isinstance(order, MasterOrder):
            decision = self.mvsm.decide(order, self.epoch)
            if not isinstance(decision, Refuse):
                self.epoch = max(self.epoch, order.epoch)
            return decision
        if isinstance(order, Report):
            return Reply(self._runs(order.cursor))
        if isinstance(order, Follow):
            return self._follow(order)
        return Do(order)

    def _close(self, order: Order, outcome: Outcome) -> Reply | Refuse:
        """Take note of what came of an order."""
        if isinstance(order, MasterOrder):
            answer = self.mvsm.close(order, outcome, self.epoch)
            self.epoch = max(self.epoch, self.mvsm.epoch)
            return answer
        if isinstance(outcome, Failed):
            return Refuse(outcome.reason, outcome.usage)
        if isinstance(order, VolumeOrder):
            self.vom.carried(order)
        elif isinstance(order, OpenAlus):
            assert isinstance(outcome.result, Opened)
            for alu in outcome.result.alus:
                self.alus[alu.path] = AluAt(alu.path, alu.wwn, legacy=order.legacy)
        elif isinstance(order, CloseAlus):
            for path in order.paths:
                self.alus.pop(path, None)
        return Reply(outcome.result)

    def _follow(self, order: Follow) -> Decision:
        if order.epoch < self.epoch:
            return Refuse(f"epoch {order.epoch} is past: {self.epoch} was seen", epoch=self.epoch)
        self.epoch = order.epoch
        if order.grant.sp != self.identity.name:
            self.mvsm.replaced(order.epoch)
        return Do(order)

    def _runs(self, cursor: int) -> RunsPart:
        """Describe a part of what runs here."""
        instances: list[T1Runs | T2Runs] = [
            *self.vom.first.values(),
            *(tier.runs() for tier in self.vom.second.values()),
        ]
        part, behind = instances[cursor : cursor + PART_VOLUMES], cursor + PART_VOLUMES
        return RunsPart(
            t1=tuple(runs for runs in part if isinstance(runs, T1Runs)),
            t2=tuple(runs for runs in part if isinstance(runs, T2Runs)),
            cursor=behind if behind < len(instances) else None,
        )


def _key(order: Order) -> Hashable:
    """Say what an order concerns: of two that concern the same, the second waits for the first."""
    if isinstance(order, VolumeOrder):
        return order.volume
    if isinstance(order, MasterOrder):
        return MASTER
    return OTHER_KEYS[type(order)]


OTHER_KEYS: Final = {Scan: ALUS, OpenAlus: ALUS, CloseAlus: ALUS, Follow: FOLLOW, SetFault: FAULTS, Report: ALL}
