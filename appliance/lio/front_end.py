"""LIO as a front end: keeps the kernel's tree equal to what volumes, hosts and exposures ask for.

Every change is the same movement: work out the tree we want, plan, carry out. The steps run one after the other
in threads, because the kernel waits for running commands when it takes something away, and it is this process's
loop that answers them. What a step that fails had before it is undone, and the change is refused as a whole;
only at the start, and when volumes come, the volume of the step that failed is left out, so that one broken
backstore keeps no other volume from its hosts (C3). One that hosts use already stays as it was: a LUN is never
taken from under a file system because something about it could not be changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from appliance.exposures import FindUnit
from appliance.lio import rules
from appliance.lio.configfs import Configfs, LioError
from appliance.lio.plan import Present, StartHandler, Step, StopHandler, after, plan
from appliance.lio.sessions import read_sessions
from appliance.lio.tree import HBA, Disk, Node, Site, Tree, lun_numbers, numbers_in, wanted
from appliance.messages import Exposure, HostDefinition, SessionStatus
from backstores.errors import TiergateError, UsageError
from backstores.scsi.unit import LogicalUnit
from backstores.wwn import Wwn

log = logging.getLogger(__name__)


class Handler(Protocol):
    """Something that answers a backstore's commands."""

    async def close(self) -> None:
        """End, once all commands that run have been answered."""


class OpenHandler(Protocol):
    """Opens a backstore's device and starts to answer."""

    async def __call__(self, folder: str, unit: LogicalUnit, on_lost: Callable[[TiergateError], None]) -> Handler:
        """Take over the device of a backstore, by its folder below /sys/kernel/config/target.

        ``on_lost`` is called when it can't go on; it still has to be closed.

        Raises:
            TiergateError: it can't be opened.
        """


class Listener(Protocol):
    """Somebody who hears the kernel's announcements; without one it refuses to change a backstore's size."""

    def close(self) -> None:
        """Hear no more."""


class Lio:
    """Implements ``appliance.front_end.FrontEnd``."""

    def __init__(
        self,
        site: Site,
        find_unit: FindUnit,
        open_handler: OpenHandler,
        listen: Callable[[], Listener],
        configfs: Configfs,
    ) -> None:
        self._site = site
        self._find_unit = find_unit
        self._open_handler = open_handler
        self._listen = listen
        self._configfs = configfs
        self._listener: Listener | None = None
        self._present: Present | None = None  # until it is started
        self._handlers: dict[str, Handler] = {}
        self._hosts: tuple[HostDefinition, ...] = ()
        self._exposures: tuple[Exposure, ...] = ()
        self._left_out: frozenset[Wwn] = frozenset()
        self._as_it_was: dict[str, Node] = {}  # backstores that could not be changed
        self._changing = asyncio.Lock()
        self._recoveries: set[asyncio.Task[None]] = set()

    # What the storage processor asks

    async def start(self) -> None:
        """Look at what is there, take over what a predecessor has left, and make the rest."""
        async with self._changing:
            self._listener = self._listen()
            self._present = await asyncio.to_thread(self._configfs.read, self._site)
            taken_over = sum(path.startswith(f"{HBA}/") for path in self._present.nodes)
            if taken_over:
                log.info("taking over %d backstores of an appliance that was killed", taken_over)
            for reason in rules.refusals(self._hosts, self._exposures).values():
                log.warning("%s; it is left out", reason)
            try:
                await self._make_true_without_broken()
            except TiergateError:
                await self._remove_all()
                raise

    async def set(self, hosts: Sequence[HostDefinition], exposures: Sequence[Exposure]) -> None:
        """Make the tree say so, or refuse with all as it was."""
        async with self._changing:
            before = self._hosts, self._exposures
            old, new = rules.refusals(*before), rules.refusals(hosts, exposures)
            for host, reason in new.items():
                # What was left out at the start must not stand in the way of every other change.
                if self._present is not None and host not in old:
                    raise UsageError(reason)
            self._hosts, self._exposures = tuple(hosts), tuple(exposures)
            try:
                await self._make_true()
            except TiergateError as error:
                self._hosts, self._exposures = before
                raise UsageError(str(error)) from error
            if self._left_out:
                await self._try_left_out()

    async def refresh(self) -> None:
        """Make backstores and LUNs for volumes that came, and take away those of volumes that went."""
        async with self._changing:
            await self._try_again()

    async def _try_left_out(self) -> None:
        """Serve what was left out, if it can be by now; the change that was just made stands either way."""
        left_out = self._left_out
        try:
            await self._try_again()
        except TiergateError as error:
            log.error("what was left out can't be served yet: %s", error)
            self._left_out = left_out

    async def _try_again(self) -> None:
        """Make the tree say all that it should: what stood in the way of a volume may be gone."""
        self._left_out = frozenset()
        self._as_it_was = {}
        await self._make_true_without_broken()

    async def release(self, volume: Wwn) -> None:
        """Take the LUNs and the backstore of a volume away."""
        async with self._changing:
            self._left_out |= {volume}
            await self._make_true()

    def sessions(self) -> list[SessionStatus]:
        """List what LIO says; of several sessions of one initiator it tells the last only."""
        groups = [self._configfs.root / folder for folder in self._site.group_folders]
        return [session for group in groups for session in read_sessions(group, self._hosts, self._exposures)]

    async def close(self) -> None:
        """Log the hosts out, and remove all that is ours."""
        async with self._changing:
            await self._remove_all()

    # From wanted to there

    async def _make_true_without_broken(self) -> None:
        while True:
            try:
                return await self._make_true()
            except LioError as error:
                volume = self._volume_at(error.path)
                if volume is None or volume in self._left_out or error.path in self._as_it_was:
                    raise
                assert self._present is not None
                if error.path in self._present.handled:
                    log.error("volume %s is not changed: %s", volume, error)
                    self._as_it_was[error.path] = self._present.nodes[error.path]
                else:
                    log.error("volume %s is left out: %s", volume, error)
                    self._left_out |= {volume}

    async def _make_true(self) -> None:
        if self._present is not None:
            await self._move_to(self._wanted(self._present))

    def _wanted(self, present: Present) -> dict[str, Node]:
        refused = rules.refusals(self._hosts, self._exposures)
        hosts = [host for host in self._hosts if host.name not in refused]
        names = {host.name for host in hosts}
        exposures = [row for row in self._exposures if row.host in names]
        disks = {row.volume: disk for row in exposures if (disk := self._disk(row.volume)) is not None}
        numbers = lun_numbers(hosts, exposures, numbers_in(self._site, present.nodes))
        tree = wanted(self._site, disks, hosts, exposures, numbers)
        return {path: self._as_it_was.get(path, node) for path, node in tree.items()}

    def _disk(self, wwn: Wwn) -> Disk | None:
        unit = None if wwn in self._left_out else self._find_unit(wwn)
        if unit is None:
            return None
        return Disk(wwn, unit.device.blocks * unit.device.block_bytes, unit.device.block_bytes)

    def _volume_at(self, path: str) -> Wwn | None:
        prefix = f"{HBA}/{self._site.backstore_prefix}"
        return self._site.wwn_of(path) if path.startswith(prefix) else None

    async def _remove_all(self) -> None:
        if self._present is not None:
            await self._move_to({})
            self._present = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _move_to(self, tree: Tree) -> None:
        """Carry out a plan; when a step fails, go back to where it began, and raise that step's error."""
        assert self._present is not None
        before = self._present
        try:
            await self._carry_out(plan(before, tree))
        except TiergateError:
            # A handler that did not run before is not started now: what failed may have been just that.
            back = (
                step
                for step in plan(self._present, before.nodes)
                if not isinstance(step, StartHandler) or step.path in before.handled
            )
            try:
                await self._carry_out(back)
            except TiergateError as error:
                log.error("a change of LIO's tree could not be undone: %s", error)
            raise

    async def _carry_out(self, steps: Iterable[Step]) -> None:
        for step in steps:
            assert self._present is not None
            match step:
                case StartHandler(path):
                    await self._start_handler(path)
                case StopHandler(path):
                    await self._handlers.pop(path).close()
                case _:
                    await asyncio.to_thread(self._configfs.carry_out, step)
            self._present = after(self._present, step)

    async def _start_handler(self, path: str) -> None:
        unit = self._find_unit(self._site.wwn_of(path))
        if unit is None:
            raise LioError(path, f"the volume of {path} is off line")
        try:
            self._handlers[path] = await self._open_handler(path, unit, lambda error: self._lost(path))
        except TiergateError as error:
            raise LioError(path, str(error)) from error

    def _lost(self, path: str) -> None:
        """Start the handler anew that has lost its device, as that of a predecessor would be."""
        recovery = asyncio.create_task(self._recover(path))
        self._recoveries.add(recovery)  # the loop itself holds its tasks weakly
        recovery.add_done_callback(self._recoveries.discard)

    async def _recover(self, path: str) -> None:
        async with self._changing:
            handler = self._handlers.pop(path, None)
            if handler is None or self._present is None:
                return  # it was stopped meanwhile
            await handler.close()
            self._present = after(self._present, StopHandler(path))
            try:
                await self._make_true_without_broken()
            except TiergateError as error:
                log.error("volume %s is not served any more: %s", self._site.wwn_of(path), error)
