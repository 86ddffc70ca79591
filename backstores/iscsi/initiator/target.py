"""A target over several paths: an active one that carries commands, and standbys that are logged in and listened to.

Commands that a dying path leaves unanswered go again by another. To write the same data once more does harm if the
first time comes last, after newer data; so before anything is repeated, nothing of the dead path may be on its way:

- the path is reset (``transport``): what our kernel has not delivered, it forgets;
- it is *fenced*: a login by another path, with the dead one's ISID, makes the target end the old session (RFC 7143,
  6.3.5) and listen no more to what a network may still hold. That needs portals of one portal group, which those of a
  storage processor are; a target that has a group for each portal treats it as one more session;
- the other path has found the units to be who they are taken for (``path``);
- what the target has begun, it carries out before what comes later and meets the same blocks. This is its duty.

What may not be repeated (``Task.repeatable``) ends lost instead. With no path left commands wait, and each is lost
when its time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from backstores.errors import ProtocolError, UsageError
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.outcome import GONE, CommandFailed, ConnectionLost, Verdict, tells, verdict_of
from backstores.iscsi.initiator.path import SIDE_BY_SIDE, Path, tell_failure
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.questions import identify, list_luns
from backstores.iscsi.initiator.session import DEFAULT_PATIENCE, connect, run
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.transport import ReceiveBuffer
from backstores.scsi import cdb as formats
from backstores.scsi.lun import decode, encode
from backstores.scsi.model import Status
from backstores.scsi.sense import Condition, codes_of
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

MOST_TRIES: Final = 1000  # of one command; its deadline comes first unless a target plays with us
LONGEST_BUSY_S: Final = 1.0
CHANGES: Final = (Condition.LUNS_CHANGED, Condition.CAPACITY_CHANGED)
DOUBTFUL: Final = frozenset(
    condition.value[1]
    for condition in (Condition.LUNS_CHANGED, Condition.POWER_ON_OCCURRED, Condition.MEDIUM_MAY_HAVE_CHANGED)
)
"""Additional sense codes of unit attentions after which a LUN may be another unit's."""


@dataclass(frozen=True, slots=True)
class PathUp:
    """A path can carry commands. Paths have the numbers of their endpoints, from 0 on."""

    path: int


@dataclass(frozen=True, slots=True)
class PathDown:
    """A path can carry commands no more."""

    path: int
    reason: str


@dataclass(frozen=True, slots=True)
class UnitsChanged:
    """The target shows other units than before, or the unit at ``lun`` has another capacity."""

    lun: int | None
    condition: Condition


Event = PathUp | PathDown | UnitsChanged


@dataclass(frozen=True, slots=True)
class PathStatus:
    """A path as a status listing shows it."""

    endpoint: Endpoint
    up: bool
    active: bool
    trouble: str


ASKING: Final = frozenset({formats.Inquiry.opcode.value, formats.ReportLuns.opcode.value})
"""Commands by which it is found out who is at a LUN, whoever was expected there."""


class RemoteTarget:
    """A target, reached by one or more endpoints; ``identity`` has the ISID of the first path."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        identity: Identity,
        *,
        patience: Patience = DEFAULT_PATIENCE,
        buffer: ReceiveBuffer | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.name = identity.target
        self.names: dict[int, Wwn] = {}  # which unit is expected at which LUN
        shared = buffer or ReceiveBuffer()
        self._paths = [
            Path(self, endpoint, replace(identity, isid=_isid(identity.isid, number)), patience, shared)
            for number, endpoint in enumerate(endpoints)
        ]
        self._expected: Counter[int] = Counter()
        self._carrier: Path | None = None  # the path that carries commands
        self._suspects: list[Path] = []  # died with commands under way, and may still have some on the way
        self._fencing: asyncio.Task[None] | None = None
        self._buffer = shared
        self._patience = patience
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Task] = deque()  # for a path; who has waited longest is in front
        self._timer: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()
        self._hurried: set[int] = set()  # fields of LUNs whose commands wait for no path
        self._open = False

    # Paths

    async def open(self) -> None:
        """Log in, and wait until the first path is up; the others follow.

        Raises:
            ProtocolError, CommandFailed: each path has failed; this is what the first met.
        """
        self._open = True
        for path in self._paths:
            path.start()
        while self._carrier is None:
            errors = [path.error for path in self._paths if path.error is not None]
            if len(errors) == len(self._paths):
                await self.close()
                raise errors[0]
            self._moved.clear()
            await self._moved.wait()

    async def close(self) -> None:
        """Log out by all paths; commands that have not ended are lost."""
        self._open = False
        if self._fencing is not None:
            self._fencing.cancel()
        await asyncio.gather(*(path.stop() for path in self._paths))
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._lose(self._waiting.popleft())

    def paths(self) -> list[PathStatus]:
        """List the paths."""
        return [
            PathStatus(path.endpoint, path.usable, path is self._carrier, "" if path.usable else str(path.error or ""))
            for path in self._paths
        ]

    def prefer(self, number: int) -> None:
        """Have a path carry what comes from now on.

        Raises:
            UsageError: it can't.
        """
        if not 0 <= number < len(self._paths) or not self._paths[number].usable or self._carrier is None:
            raise UsageError(f"path {number} of {len(self._paths)} is not up; prefer one that is")
        self._carry(self._paths[number])

    def renew(self, chap: Credentials) -> None:
        """Prove ourselves with this from the next login on; sessions that run go on."""
        for path in self._paths:
            path.renew(chap)

    def went_up(self, path: Path) -> None:
        """Hear that a path can carry commands."""
        if path in self._suspects:
            self._suspects.remove(path)  # its login has ended its old session
        if self._carrier is path or (self._carrier is None and not self._suspects):
            self._carry(path)
        elif self._carrier is None:
            self._begin_fencing()
        self._moved.set()
        if not path.told:
            path.told = True
            self._on_event(PathUp(self._paths.index(path)))

    def went_down(self, path: Path, reason: str) -> None:
        """Hear that a path can't carry commands any more, or that it could not be made to."""
        if path.carried:
            path.carried = False
            self._suspects.append(path)
            self._carrier = None
            self._begin_fencing()
        self._moved.set()
        if path.told:
            path.told = False
            self._on_event(PathDown(self._paths.index(path), reason))

    def _carry(self, path: Path) -> None:
        """Have a path carry commands, those first that have waited for one."""
        self._carrier = path
        path.carried = True
        waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            self._dispatch(task)

    def _begin_fencing(self) -> None:
        if self._fencing is None or self._fencing.done():
            self._fencing = asyncio.create_task(self._fence(), name=f"fencing paths to {self.name}")
            self._fencing.add_done_callback(tell_failure)

    async def _fence(self) -> None:
        """Make the target end the sessions of paths that have died; then one that is usable carries commands."""
        wait_s = self._patience.first_wait_s
        while self._carrier is None:
            path = next((path for path in self._paths if path.usable), None)
            if path is None:
                return  # the next one that comes up begins anew
            if not self._suspects:
                self._carry(path)
                self._moved.set()
                return
            suspect = self._suspects[0]
            try:
                session = await connect(path.endpoint, suspect.identity, patience=self._patience, buffer=self._buffer)
                await session.close()
            except (ProtocolError, CommandFailed) as error:
                log.warning("can't end the session of %s by %s: %s", suspect.endpoint, path.endpoint, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._patience.last_wait_s)
            else:
                if suspect in self._suspects:
                    self._suspects.remove(suspect)

    # Commands

    def submit(self, task: Task) -> None:
        """Run a task by whatever path; its ``done`` is called from the event loop when it has ended."""
        task.until_s = self._loop.time() + self._patience.deadline_s
        self._dispatch(task)

    def flush(self) -> None:
        """Send what was submitted at once, instead of at the end of this turn of the event loop."""
        if self._carrier is not None and self._carrier.session is not None:
            self._carrier.session.flush()

    async def execute(
        self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"", *, repeatable: bool = True
    ) -> memoryview:
        """Run one command at a LUN and give what it sends.

        Raises:
            ConnectionLost: no path could carry it in time, or it may not be repeated and its path has died.
            CommandFailed: the target did not carry it out.
        """
        return await run(self.submit, encode(lun), cdb, data_in_bytes, data_out, repeatable)

    def takes_back(self, task: Task) -> bool:
        """Have a task run once more that has not ended well, if that makes sense."""
        if not task.until_s:
            return False  # it was submitted to a session, not here
        verdict = verdict_of(task)
        if verdict is Verdict.OVER or (verdict is Verdict.LOST and not task.repeatable):
            return False
        task.tries += 1
        if task.tries > MOST_TRIES or self._loop.time() >= task.until_s or not self._open:
            return False
        if verdict is Verdict.AGAIN:
            self._look_at_attention(task)
        if verdict is Verdict.LATER or (verdict is Verdict.LOST and not task.lost):
            wait_s = min(self._patience.busy_s * 2 ** min(task.tries, 16), LONGEST_BUSY_S)
            self._loop.call_later(wait_s, self._dispatch, task)
        else:
            self._dispatch(task)
        return True

    def _look_at_attention(self, task: Task) -> None:
        for condition in CHANGES:
            if tells(task, condition):
                self._on_event(UnitsChanged(decode(task.lun), condition))
        if codes_of(task.sense)[1] in DOUBTFUL:
            for path in self._paths:
                path.doubt()

    def _dispatch(self, task: Task) -> None:
        path = self._carrier
        if path is None or not path.usable:
            self._wait(task)
        elif path.gone and task.lun in path.gone and task.cdb[0] not in ASKING:
            task.status, task.sense = Status.CHECK_CONDITION, GONE
            self._loop.call_soon(task.done, task)
        else:
            assert path.session is not None
            path.session.submit(task)

    def hurry(self, lun: int, on: bool = True) -> None:
        """Lose commands of a LUN at once while no path is logged in, those included that wait; or not any more."""
        field = encode(lun)
        if not on:
            self._hurried.discard(field)
            return
        self._hurried.add(field)
        self._lose_hurried()

    def _lose_hurried(self) -> None:
        """Lose what is not to wait, unless a path is logged in and just being looked at."""
        if any(path.session is not None and path.session.ready for path in self._paths):
            return
        late = [task for task in self._waiting if task.lun in self._hurried]
        self._waiting = deque(task for task in self._waiting if task.lun not in self._hurried)
        for task in late:
            self._lose(task)

    def _wait(self, task: Task) -> None:
        """Keep a task until a path is up, or its time is over."""
        if not self._open:
            self._lose(task)
            return
        self._waiting.append(task)
        if self._timer is not None and self._timer.when() > task.until_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(task.until_s, self._expire)
        self._lose_hurried()

    def _expire(self) -> None:
        """Lose the tasks whose time is over."""
        self._timer = None
        now_s = self._loop.time()
        kept = deque(task for task in self._waiting if task.until_s > now_s)
        late = [task for task in self._waiting if task.until_s <= now_s]
        self._waiting = kept
        if kept:
            self._timer = self._loop.call_at(min(task.until_s for task in kept), self._expire)
        for task in late:
            self._lose(task)

    def _lose(self, task: Task) -> None:
        task.status = None
        self._loop.call_soon(task.done, task)

    # Units

    async def units(self) -> dict[Wwn, int]:
        """Find the units that the target shows us, by REPORT LUNS and their names: the LUN of each.

        Raises:
            CommandFailed, ProtocolError: the target can't be asked.
        """
        found: dict[Wwn, int] = {}
        luns = await list_luns(self)
        for at in range(0, len(luns), SIDE_BY_SIDE):
            part = luns[at : at + SIDE_BY_SIDE]
            names = await asyncio.gather(*map(self._name_of, part))
            found |= {wwn: number for number, wwn in zip(part, names, strict=True) if wwn is not None}
        return found

    async def _name_of(self, lun: int) -> Wwn | None:
        """Give the name of a unit; one that does not tell it as it should is none of ours (C3)."""
        try:
            return await identify(self, lun)
        except ConnectionLost:
            raise
        except (ProtocolError, CommandFailed) as error:
            log.warning("lun %d of %s: %s", lun, self.name, error)
            return None

    def expect(self, lun: int, wwn: Wwn) -> None:
        """Send commands for a LUN only as long as the unit of this name is there. Undone by as many ``forget``."""
        self.names[lun] = wwn
        self._expected[lun] += 1
        for path in self._paths:
            if encode(lun) in path.gone:
                path.doubt()  # it has been asked who it is, by somebody who has found what he was looking for

    def forget(self, lun: int) -> None:
        """Expect nobody at a LUN."""
        self._expected[lun] -= 1
        if self._expected[lun] <= 0:
            del self._expected[lun]
            self.names.pop(lun, None)
        self.hurry(lun, False)


def _isid(first: bytes, number: int) -> bytes:
    """Give the ISID of a path: each is an initiator port of its own (RFC 7143, 4.4.3)."""
    return ((int.from_bytes(first) + number) % (1 << 48)).to_bytes(len(first))
