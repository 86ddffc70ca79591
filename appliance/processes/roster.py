"""Decides which processes run: when one is forked, signalled, forked again. No I/O: inputs in, effects out.

    DUE --forked--> STARTING --says so--> READY
     ^                 |                    |
     |             ends by itself (waits grow while it does so soon)
     +-----------------+--------------------+
    a fault: HELD (killed, and not forked) and back to DUE; at the end: ENDING, then OVER

At the end the stages go one after the other, the highest first: SPs stop their volumes while VCM and MIC are there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

FIRST_WAIT_S: Final = 0.1
MOST_WAIT_S: Final = 10.0
LONG_ENOUGH_S: Final = 30.0  # a process that has lived so long starts with the first wait again
STOP_S: Final = 30.0  # for a stage to end; then it is killed


class State(enum.Enum):
    """How a process is."""

    DUE = "due"
    STARTING = "starting"
    READY = "ready"
    HELD = "held"
    ENDING = "ending"
    OVER = "over"


RUNNING: Final = frozenset({State.STARTING, State.READY})


class Event(enum.Enum):
    """What happens to a process."""

    FORKED = "forked"
    SAID_READY = "said ready"
    EXITED = "exited"
    HOLD = "hold"
    RELEASE = "release"
    END = "end"


TRANSITIONS: Final = {
    State.DUE: {
        Event.FORKED: State.STARTING,
        Event.SAID_READY: State.DUE,  # said before it was killed, and released before it had ended
        Event.EXITED: State.DUE,
        Event.HOLD: State.HELD,
        Event.END: State.OVER,
    },
    State.STARTING: {
        Event.SAID_READY: State.READY,
        Event.EXITED: State.DUE,
        Event.HOLD: State.HELD,
        Event.END: State.ENDING,
    },
    State.READY: {
        Event.SAID_READY: State.READY,
        Event.EXITED: State.DUE,
        Event.HOLD: State.HELD,
        Event.END: State.ENDING,
    },
    State.HELD: {
        Event.EXITED: State.HELD,
        Event.SAID_READY: State.HELD,
        Event.HOLD: State.HELD,
        Event.RELEASE: State.DUE,
        Event.END: State.OVER,
    },
    State.ENDING: {
        Event.SAID_READY: State.ENDING,
        Event.EXITED: State.OVER,
        Event.HOLD: State.ENDING,
    },
    State.OVER: {Event.HOLD: State.OVER},
}


class Sign(enum.Enum):
    """Signals, by what they are for."""

    END = "end"
    KILL = "kill"
    FREEZE = "freeze"
    THAW = "thaw"


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork this process."""

    name: str


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to this process."""

    name: str
    sign: Sign


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing runs any more: end with this exit status."""

    status: int


Effect = Fork | Signal | Finish


@dataclass(frozen=True, slots=True)
class Post:
    """A process that there shall be. The highest stage ends first; without a vital one there is no start."""

    name: str
    stage: int = 0
    vital: bool = False


@dataclass(slots=True)
class _Member:
    post: Post
    state: State = State.DUE
    incarnation: int = 0
    alive: bool = False
    frozen: bool = False
    was_ready: bool = False
    due_s: float = 0.0
    forked_s: float = 0.0
    wait_s: float = FIRST_WAIT_S

    def happen(self, event: Event) -> None:
        """Go on to the next state.

        Raises:
            KeyError: a bug of ours.
        """
        self.state = TRANSITIONS[self.state][event]


@dataclass(slots=True)
class Roster:
    """All processes. Every method but the questions gives effects, to be carried out in their order."""

    posts: Sequence[Post]
    _members: dict[str, _Member] = field(init=False)
    _ending: bool = False
    _status: int = 0
    _deadline_s: float | None = None

    def __post_init__(self) -> None:
        self._members = {post.name: _Member(post) for post in self.posts}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def state(self, name: str) -> State:
        """How a process is."""
        return self._members[name].state

    def running(self) -> Iterator[tuple[str, int]]:
        """Yield the processes that run, with their incarnations."""
        return ((name, member.incarnation) for name, member in self._members.items() if member.alive)

    def next_s(self) -> float | None:
        """When ``tick`` is wanted at the latest; None: not before something happens."""
        due = [m.due_s for m in self._members.values() if m.state == State.DUE and not m.alive]
        return min([*due, *([] if self._deadline_s is None else [self._deadline_s])], default=None)

    def tick(self, now_s: float) -> list[Effect]:
        """Fork what is due; kill what does not end."""
        if self._deadline_s is not None and now_s >= self._deadline_s:
            self._deadline_s = None
            return [Signal(name, Sign.KILL) for name, m in self._members.items() if m.alive and m.state == State.ENDING]
        members = self._members.items()
        return [Fork(name) for name, m in members if m.state == State.DUE and not m.alive and m.due_s <= now_s]

    def forked(self, name: str, incarnation: int, now_s: float) -> list[Effect]:
        """A process was forked."""
        member = self._members[name]
        member.happen(Event.FORKED)
        member.incarnation, member.alive, member.frozen, member.forked_s = incarnation, True, False, now_s
        return []

    def ready(self, name: str) -> list[Effect]:
        """A process does its work."""
        member = self._members[name]
        member.happen(Event.SAID_READY)
        member.was_ready = True
        return []

    def exited(self, name: str, status: int, now_s: float) -> list[Effect]:
        """A process has ended; nobody else has its name until this has been said."""
        member = self._members[name]
        member.alive = member.frozen = False
        if member.state in RUNNING:
            if now_s - member.forked_s >= LONG_ENOUGH_S:
                member.wait_s = FIRST_WAIT_S
            member.due_s = now_s + member.wait_s
            member.wait_s = min(MOST_WAIT_S, 2 * member.wait_s)
            if member.post.vital and not member.was_ready and not self._ending:
                self._status, self._ending = 1, True
        member.happen(Event.EXITED)
        return self._go_on_ending(now_s) if self._ending else []

    def hold(self, name: str) -> list[Effect]:
        """Kill a process, and leave it so: a fault."""
        member = self._members[name]
        member.happen(Event.HOLD)
        return [Signal(name, Sign.KILL)] if member.alive and member.state == State.HELD else []

    def cull(self, name: str, incarnation: int) -> list[Effect] | None:
        """Kill a process that nobody hears, if it is still this one (0: whichever); None: it is dead already."""
        member = self._members[name]
        if not member.alive or incarnation not in (0, member.incarnation):
            return None
        return [Signal(name, Sign.KILL)]

    def freeze(self, name: str) -> list[Effect]:
        """Stop a process where it stands: a fault."""
        member = self._members[name]
        if member.state not in RUNNING:
            return []
        member.frozen = True
        return [Signal(name, Sign.FREEZE)]

    def release(self, name: str, now_s: float) -> list[Effect]:
        """Undo a fault."""
        member = self._members[name]
        if member.state == State.HELD:
            member.happen(Event.RELEASE)
            member.due_s, member.wait_s = now_s, FIRST_WAIT_S
        return self._thaw(member)

    def end(self, now_s: float) -> list[Effect]:
        """End all, stage after stage; asked for a second time: at once."""
        if self._ending:
            return [Signal(name, Sign.KILL) for name, _ in self.running()]
        self._ending = True
        return self._go_on_ending(now_s)

    def _go_on_ending(self, now_s: float) -> list[Effect]:
        """End the highest stage in which there is something left, or finish."""
        for member in self._members.values():
            if not member.alive and member.state != State.OVER:
                member.happen(Event.END)
        left = [member for member in self._members.values() if member.alive]
        if not left:
            return [Finish(self._status)]
        stage = max(member.post.stage for member in left)
        effects: list[Effect] = []
        for member in left:
            if member.post.stage == stage and member.state in RUNNING:
                member.happen(Event.END)
                self._deadline_s = now_s + STOP_S
                effects += [*self._thaw(member), Signal(member.post.name, Sign.END)]
        return effects

    def _thaw(self, member: _Member) -> list[Effect]:
        if not member.frozen:
            return []
        member.frozen = False
        return [Signal(member.post.name, Sign.THAW)]
