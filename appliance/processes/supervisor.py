"""Forks the processes of a system, and waits for what becomes of them.

``Roster`` decides; here are fork, signals and sockets. Single-threaded, because a fork copies one thread and the locks
of all. It sleeps in one ``select``: signals wake it by a socket (signal.set_wakeup_fd), children speak by theirs.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from appliance.processes.roster import Effect, Finish, Fork, Post, Roster, Sign, Signal
from appliance.processes.title import end_with, set_title
from appliance.processes.words import (
    MOST_BYTES,
    Child,
    End,
    Ended,
    Freeze,
    FromChild,
    Hold,
    Ready,
    Release,
    Started,
    ToChild,
    encode,
    from_child,
)
from backstores.errors import ProtocolError, TiergateError

log = logging.getLogger(__name__)

LOG_FORMAT: Final = "%(asctime)s %(levelname)s {name} %(name)s: %(message)s"
EXIT_REFUSED: Final = 1
EXIT_BUG: Final = 70  # EX_SOFTWARE, as sysexits.h has it
SIGNS: Final = {
    Sign.END: signal.SIGTERM,
    Sign.KILL: signal.SIGKILL,
    Sign.FREEZE: signal.SIGSTOP,
    Sign.THAW: signal.SIGCONT,
}
CAUGHT: Final = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Role:
    """A process: its post, and what it runs. ``watches``: it is told of all that start and end."""

    post: Post
    run: Callable[[Child], None]
    watches: bool = False


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is done again and again, to show that the supervisor lives."""

    interval_s: float
    beat: Callable[[], None]


class Supervisor:
    """``run`` it once. ``tell_ready`` is given name and text of every process that becomes ready."""

    def __init__(
        self,
        roles: Sequence[Role],
        tell_ready: Callable[[str, str], None],
        pulse: Pulse | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roles = {role.post.name: role for role in roles}
        self._roster = Roster([role.post for role in roles])
        self._tell_ready = tell_ready
        self._clock = clock
        self._pulse = pulse
        self._beat_s = clock()
        self._selector = selectors.DefaultSelector()
        self._lines: dict[str, socket.socket] = {}
        self._pids: dict[str, int] = {}
        self._names: dict[int, tuple[str, int]] = {}
        self._last_incarnation = 0
        self._status: int | None = None

    def run(self) -> int:
        """Fork all, wait until all have ended, and give the exit status."""
        assert threading.active_count() == 1, "a fork copies no other thread, but the locks that it holds"
        gc.collect()
        gc.freeze()  # what was imported is never looked at again: so it stays shared
        woken, waking = socket.socketpair()
        for end in (woken, waking):
            end.setblocking(False)
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        earlier = {number: signal.signal(number, lambda *_: None) for number in CAUGHT}
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._hear_signals(woken))
        self._own = (woken, waking)
        try:
            while self._status is None:
                self._carry_out(self._roster.tick(self._clock()))
                self._wait()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in earlier.items():
                signal.signal(number, handler)
            self._selector.close()
            for line in (*self._own, *self._lines.values()):
                line.close()
        return self._status

    def _wait(self) -> None:
        now_s = self._clock()
        if self._pulse is not None and now_s >= self._beat_s:
            self._pulse.beat()
            self._beat_s = now_s + self._pulse.interval_s
        dates = [self._roster.next_s(), None if self._pulse is None else self._beat_s]
        due_s = min((date for date in dates if date is not None), default=None)
        for key, _ in self._selector.select(None if due_s is None else max(0.0, due_s - now_s)):
            key.data()

    def _hear_signals(self, woken: socket.socket) -> None:
        numbers = set(woken.recv(MOST_BYTES))
        if numbers & {signal.SIGINT, signal.SIGTERM}:
            self._carry_out(self._roster.end(self._clock()))
        if signal.SIGCHLD in numbers:
            self._reap()

    def _reap(self) -> None:
        """Take note of all that have ended; one signal may stand for several."""
        while self._names:
            pid, raw = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            status = os.waitstatus_to_exitcode(raw)
            name, incarnation = self._names.pop(pid)
            line = self._lines.get(name)
            if line is not None:
                self._hear(name, line)  # its last words
            self._forget(name)
            effects = self._roster.exited(name, status, self._clock())
            level = logging.INFO if status == 0 else logging.ERROR
            log.log(level, "%s (%d) has ended, %s", name, pid, _told(status))
            self._tell_watchers(Ended(name, incarnation, status))
            self._carry_out(effects)

    def _hear(self, name: str, line: socket.socket) -> None:
        """Read what a child says, unless it was reaped in the same turn; leave its line alone when it has closed it."""
        while self._lines.get(name) is line:
            try:
                raw = line.recv(MOST_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                raw = b""
            if not raw:
                self._close(name)
                return
            try:
                self._carry_out(self._obey(name, from_child(raw)))
            except ProtocolError as error:
                log.error("%s: %s", name, error)

    def _obey(self, name: str, word: FromChild) -> list[Effect]:
        if isinstance(word, Ready):
            effects = self._roster.ready(name)
            self._tell_ready(name, word.text)
            return effects
        if word.name not in self._roster:
            raise ProtocolError("it names a process that there is not")
        match word:
            case Hold():
                return self._roster.hold(word.name)
            case Freeze():
                return self._roster.freeze(word.name)
            case Release():
                return self._roster.release(word.name, self._clock())
            case End():
                killing = self._roster.cull(word.name, word.incarnation)
                if killing is None:
                    self._tell(name, Ended(word.name, word.incarnation, 0))
                return killing or []

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Fork(name):
                    self._fork(self._roles[name])
                case Signal(name, sign):
                    os.kill(self._pids[name], SIGNS[sign])  # it is not reaped yet: the number is still its own
                case Finish(status):
                    self._status = status

    def _fork(self, role: Role) -> None:
        name = role.post.name
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # time orders incarnations over restarts of the supervisor, too
        incarnation = self._last_incarnation = max(self._last_incarnation + 1, time.time_ns())
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)  # the child must not take one for the supervisor's
        pid = os.fork()
        if not pid:
            ours.close()
            self._become(role, Child(name, incarnation, theirs), parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        theirs.close()
        ours.setblocking(False)
        self._lines[name] = ours
        self._pids[name] = pid
        self._names[pid] = (name, incarnation)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(name, ours))
        self._carry_out(self._roster.forked(name, incarnation, self._clock()))
        log.info("%s has process %d", name, pid)
        if role.watches:
            for other, its in self._roster.running():
                if other != name:
                    self._tell(name, Started(other, its))
        self._tell_watchers(Started(name, incarnation))

    def _tell_watchers(self, word: ToChild) -> None:
        for name, role in self._roles.items():
            if role.watches and name != word.name:
                self._tell(name, word)

    def _tell(self, name: str, word: ToChild) -> None:
        """Tell a child something; one that does not listen notices deaths by silence, as it must anyway."""
        line = self._lines.get(name)
        if line is None:
            return
        try:
            line.send(encode(word))
        except (BlockingIOError, ConnectionError) as error:
            log.warning("%s does not listen: %s", name, error.strerror)

    def _forget(self, name: str) -> None:
        self._close(name)
        self._pids.pop(name)

    def _close(self, name: str) -> None:
        line = self._lines.pop(name, None)
        if line is not None:
            self._selector.unregister(line)
            line.close()

    def _become(self, role: Role, child: Child, parent: int) -> NoReturn:
        """Be this child from now on: what is the supervisor's is left, and what was imported is kept."""
        status = EXIT_BUG
        try:
            end_with(parent)
            signal.set_wakeup_fd(-1)
            for number in CAUGHT:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which ends all in order
            self._selector.close()
            for line in (*self._own, *self._lines.values()):
                line.close()
            set_title(f"tiergate: {child.name}")
            for handler in logging.getLogger().handlers:
                handler.setFormatter(logging.Formatter(LOG_FORMAT.format(name=child.name)))
            role.run(child)
            status = 0
        except TiergateError as error:
            print(f"error: {error}", file=sys.stderr)
            status = EXIT_REFUSED
        except BaseException:
            log.exception("%s has a bug", child.name)
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(status)  # not by way of the supervisor's callers, which are on the stack below


def _told(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
