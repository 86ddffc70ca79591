"""Which storage processors there are, and how they are.

Silence means that a process has died, or sleeps, or can't be reached: the mastership moves at once, for epochs keep
it from doing harm should it wake (M5). What it serves is not taken from it before its death is certain, for it may be
serving hosts, with a tree that others would leave behind. If it stays silent, the supervisor is asked to end it. The
same is done with one that a VCM which has started anew should hear of, and does not: what it runs nobody knows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.control.orders import Report, Scan, Welcome, WhoIsThere
from appliance.control.reports import Beat, Done, FromSp, Hello, RunsPart, Scanned
from appliance.control.values import Found, SpState, T1Runs, T2Runs
from appliance.vcm.courier import Answer, Courier, Lost
from appliance.vcm.vocabulary import Fence, Site

SILENT_S: Final = 2.0
FENCE_S: Final = 10.0
EXPECT_S: Final = 15.0
"""How long a storage processor may be silent, until it is ended, and how long one may be expected."""


class PeerEvent(enum.StrEnum):
    """What happens to a storage processor, as the VCM sees it."""

    HELLO = "says hello"
    READY = "has told all"
    HEARD = "is heard again"
    SILENCE = "is silent"
    LONG_SILENCE = "stays silent"
    DEATH = "died"


TRANSITIONS: Final[Mapping[SpState, Mapping[PeerEvent, SpState]]] = {
    SpState.EXPECTED: {
        PeerEvent.HELLO: SpState.STARTING,
        PeerEvent.LONG_SILENCE: SpState.EXPECTED,
        PeerEvent.DEATH: SpState.GONE,
    },
    SpState.STARTING: {
        PeerEvent.HELLO: SpState.STARTING,
        PeerEvent.READY: SpState.AT_WORK,
        PeerEvent.SILENCE: SpState.EXPECTED,
        PeerEvent.DEATH: SpState.GONE,
    },
    SpState.AT_WORK: {
        PeerEvent.HELLO: SpState.STARTING,
        PeerEvent.SILENCE: SpState.SILENT,
        PeerEvent.DEATH: SpState.GONE,
    },
    SpState.SILENT: {
        PeerEvent.HELLO: SpState.STARTING,
        PeerEvent.HEARD: SpState.AT_WORK,
        PeerEvent.LONG_SILENCE: SpState.SILENT,
        PeerEvent.DEATH: SpState.GONE,
    },
    SpState.GONE: {PeerEvent.HELLO: SpState.STARTING, PeerEvent.DEATH: SpState.GONE},
}

HAS_INSTANCES: Final = frozenset({SpState.AT_WORK, SpState.SILENT})
"""In these states what a storage processor runs is known, and counts."""

UNKNOWN: Final = frozenset({SpState.EXPECTED, SpState.GONE})
"""In these it has to say hello first."""

TOLD: Final = HAS_INSTANCES | {SpState.STARTING}
"""In these states it has been welcomed."""


@dataclass(slots=True)
class Peer:
    """A storage processor."""

    name: str
    state: SpState = SpState.EXPECTED
    incarnation: int = 0
    hello: Hello | None = None
    heard_s: float = 0.0
    fence_s: float = 0.0  # when it is ended, if it stays silent
    load: float = 0.0
    epoch: int = 0
    step: str = ""
    found: tuple[Found, ...] = ()
    t1: list[T1Runs] = field(default_factory=list)
    t2: list[T2Runs] = field(default_factory=list)

    @property
    def portals(self) -> tuple[str, ...]:
        """Its internal target, the active path first."""
        return self.hello.internal_portals if self.hello else ()

    @property
    def runs(self) -> int:
        """How many instances it said that it runs, when it said hello."""
        return self.hello.runs if self.hello else 0

    @property
    def host_portals(self) -> tuple[str, ...]:
        """Where hosts log in."""
        return self.hello.host_portals if self.hello else ()


Notice = Callable[[Peer], None]


@dataclass(frozen=True, slots=True)
class Notices:
    """Who is told what about a storage processor. ``changed`` is told all, and first."""

    changed: Notice
    joined: Notice  # what it runs is known
    silent: Notice
    back: Notice  # heard again after silence: it runs what it ran
    gone: Notice  # what it ran is void


class Peers:
    """All storage processors."""

    def __init__(self, courier: Courier, site: Site, notices: Notices) -> None:
        self._courier = courier
        self._site = site
        self._notices = notices
        self._all = {name: Peer(name) for name in site.sps}
        self._begun = False

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._all.values())

    def __getitem__(self, name: str) -> Peer:
        return self._all[name]

    def at_work(self, name: str) -> bool:
        """Whether orders to it will be carried out soon."""
        return name in self._all and self._all[name].state is SpState.AT_WORK

    def awaited(self, name: str) -> bool:
        """Whether it is yet to come."""
        return name in self._all and self._all[name].state in (SpState.EXPECTED, SpState.STARTING)

    def counts(self, name: str) -> bool:
        """Whether what it runs counts."""
        return name in self._all and self._all[name].state in HAS_INSTANCES

    def expecting(self) -> list[str]:
        """List those that may run what nobody has told of yet."""
        return [
            peer.name
            for peer in self._all.values()
            if peer.state in (SpState.EXPECTED, SpState.STARTING) and (peer.runs or not peer.incarnation)
        ]

    def expect(self, name: str) -> None:
        """Take note that there is, or was, a storage processor of this name: others know it."""
        if name not in self._all:
            now_s = self._courier.now_s
            self._all[name] = Peer(name, heard_s=now_s, fence_s=now_s + EXPECT_S)

    def names_at_work(self) -> list[str]:
        """List those at work, by name."""
        return sorted(peer.name for peer in self._all.values() if peer.state is SpState.AT_WORK)

    def _move(self, peer: Peer, event: PeerEvent) -> None:
        peer.state = TRANSITIONS[peer.state][event]

    # What is heard

    def said(self, message: FromSp) -> bool:
        """Take a message; True if it is one of a process that is known, and thus to be looked at."""
        peer = self._all.get(message.sp)
        if isinstance(message.body, Hello):
            self._hello(peer or Peer(message.sp), message)
            return False
        if peer is None or message.incarnation != peer.incarnation or message.vcm != self._courier.incarnation:
            if peer is None or message.incarnation >= peer.incarnation:
                self._courier.tell(message.sp, WhoIsThere(), message.incarnation)
            return False
        if peer.state in UNKNOWN:
            self._courier.tell(message.sp, WhoIsThere(), message.incarnation)
            return False
        self._heard(peer)
        if isinstance(message.body, Beat):
            peer.load, peer.epoch = message.body.load, message.body.epoch
        return True

    def _heard(self, peer: Peer) -> None:
        peer.heard_s = self._courier.now_s
        if peer.state is SpState.SILENT:
            self._move(peer, PeerEvent.HEARD)
            self._courier.log(f"{peer.name} is heard again")
            self._notices.changed(peer)
            self._notices.back(peer)

    def _hello(self, peer: Peer, message: FromSp) -> None:
        assert isinstance(message.body, Hello)
        if message.incarnation < peer.incarnation or message.vcm not in (0, self._courier.incarnation):
            self._courier.tell(message.sp, WhoIsThere(), message.incarnation)  # so that it turns to this VCM
            return
        self._all[peer.name] = peer
        if message.incarnation == peer.incarnation and peer.state in TOLD:
            self._courier.tell(peer.name, Welcome(), peer.incarnation)  # the first one was lost
            self._heard(peer)
            return
        if peer.state in HAS_INSTANCES:
            self._leave(peer, PeerEvent.DEATH, "it has started anew")
        self._courier.lose(peer.name, f"{peer.name} has started anew")
        self._move(peer, PeerEvent.HELLO)
        peer.incarnation, peer.hello, peer.epoch = message.incarnation, message.body, message.body.epoch
        peer.heard_s, peer.t1, peer.t2 = self._courier.now_s, [], []
        self._courier.meet(peer.name, peer.incarnation)
        self._courier.tell(peer.name, Welcome(), peer.incarnation)
        self._note(peer, "502 started")
        paths = tuple(path for path, sps in self._site.reach.items() if peer.name in sps)
        self._courier.order(peer.name, Scan(paths=paths), lambda answer: self._scanned(peer, answer))

    def _scanned(self, peer: Peer, answer: Answer) -> None:
        if isinstance(answer, Lost):
            return
        if isinstance(answer, Done) and isinstance(answer.result, Scanned):
            peer.found = answer.result.found
        usable = sum(not found.trouble for found in peer.found)
        self._note(peer, f"506 reported {usable} alus")
        self._ask_report(peer, 0)

    def _ask_report(self, peer: Peer, cursor: int) -> None:
        """Have it tell what it runs, though it said "nothing": an order of an earlier VCM may have run on since then.

        The report waits for what is under way, and tells the outcome of it.
        """
        self._courier.order(peer.name, Report(cursor=cursor), lambda answer: self._reported(peer, answer))

    def _reported(self, peer: Peer, answer: Answer) -> None:
        if not isinstance(answer, Done) or not isinstance(answer.result, RunsPart):
            return  # it is gone, or will be: a report is never refused
        peer.t1 += answer.result.t1
        peer.t2 += answer.result.t2
        if answer.result.cursor is None:
            self._ready(peer)
        else:
            self._ask_report(peer, answer.result.cursor)

    def _ready(self, peer: Peer) -> None:
        self._move(peer, PeerEvent.READY)
        self._notices.changed(peer)
        self._notices.joined(peer)

    def _note(self, peer: Peer, step: str) -> None:
        peer.step = step
        self._courier.log(f"{peer.name}: step {step}")
        self._notices.changed(peer)

    # What is not heard

    def tick(self, now_s: float) -> None:
        """Look who has been silent for too long."""
        if not self._begun:
            self._begun = True
            for peer in self._all.values():
                peer.heard_s, peer.fence_s = now_s, now_s + EXPECT_S
        for peer in list(self._all.values()):
            silence_s = now_s - peer.heard_s
            if peer.state in (SpState.EXPECTED, SpState.SILENT) and now_s >= peer.fence_s:
                self._fence(peer, silence_s)
            elif peer.state is SpState.STARTING and silence_s >= SILENT_S:
                self._move(peer, PeerEvent.SILENCE)
                peer.fence_s = now_s + EXPECT_S
                self._notices.changed(peer)
            elif peer.state is SpState.AT_WORK and silence_s >= SILENT_S:
                self._move(peer, PeerEvent.SILENCE)
                peer.fence_s = peer.heard_s + FENCE_S
                self._courier.log(f"{peer.name} is silent", serious=True)
                self._notices.changed(peer)
                self._notices.silent(peer)

    def _fence(self, peer: Peer, silence_s: float) -> None:
        """Have the process ended; again after a while, should the supervisor not have heard of it."""
        self._move(peer, PeerEvent.LONG_SILENCE)
        peer.fence_s = self._courier.now_s + FENCE_S
        self._courier.log(f"{peer.name} was not heard of for {silence_s:.0f} s: it is ended", serious=True)
        self._courier.effects.append(Fence(peer.name, peer.incarnation))

    def died(self, name: str, incarnation: int) -> None:
        """Take note that a process has ended; its successor may have said hello already."""
        peer = self._all.get(name)
        of_it = peer is not None and (incarnation in (0, peer.incarnation) or not peer.incarnation)
        if peer is not None and of_it and peer.state is not SpState.GONE:
            self._leave(peer, PeerEvent.DEATH, "its process has ended")

    def _leave(self, peer: Peer, event: PeerEvent, why: str) -> None:
        self._move(peer, event)
        self._courier.log(f"{peer.name} is gone: {why}", serious=True)
        self._courier.lose(peer.name, f"{peer.name} is gone: {why}")
        self._notices.changed(peer)
        self._notices.gone(peer)
