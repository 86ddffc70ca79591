"""How hosts reach volumes: what the storage processor asks of a front end, the embedded one, and the choice.

There are two: the portal in this process (R32), and the kernel's LIO (R31, ``appliance.lio``). Whichever it is,
it learns the same things, and in its own way makes them true.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from appliance.exposures import Exposures, FindUnit
from appliance.messages import Exposure, HostDefinition, SessionStatus
from appliance.namespaces import inside
from appliance.portals import Groups, PortalAddress
from backstores.errors import UsageError
from backstores.iscsi import access
from backstores.iscsi.portal import Portal, open_socket
from backstores.iscsi.session import SessionRegistry
from backstores.wwn import Wwn


class FrontEnd(Protocol):
    """What makes volumes LUNs. Before ``start`` it only takes notes."""

    async def start(self) -> None:
        """Let hosts in.

        Raises:
            TiergateError: it can't; nothing is left of the attempt.
        """

    async def set(self, hosts: Sequence[HostDefinition], exposures: Sequence[Exposure]) -> None:
        """Make this the whole truth of who may log in and sees what; running sessions learn of changes.

        Raises:
            UsageError: this front end can't express it; nothing has changed.
        """

    async def refresh(self) -> None:
        """Hear that volumes have come on line, gone off line, or grown."""

    async def release(self, volume: Wwn) -> None:
        """Take a volume away from all hosts; when this returns, no command of theirs runs on it."""

    def sessions(self) -> list[SessionStatus]:
        """List the sessions of hosts; discovery sessions are no longer than their question."""

    async def close(self) -> None:
        """End the sessions, and leave nothing behind."""


class Embedded:
    """The portals in this process."""

    def __init__(self, target_iqn: str, groups: Groups, find_unit: FindUnit, elsewhere: Groups | None = None) -> None:
        """``elsewhere``: portals of other processes that lead to the same target; hosts are told of these, too."""
        all_groups = sorted({**groups, **(elsewhere or {})}.items())
        known = tuple(access.Portal(p.address, p.port, tag) for tag, portals in all_groups for p in portals)
        self._exposures = Exposures(target_iqn, known, find_unit)
        self._registry = SessionRegistry()
        self._exposures.drop_host = self._registry.drop_host
        self._listening: dict[PortalAddress, Portal] = {}
        self._groups = groups

    async def start(self) -> None:
        """Listen on every portal."""
        await self.listen_only({portal for portals in self._groups.values() for portal in portals})

    async def listen_only(self, addresses: Set[PortalAddress]) -> None:
        """Listen on these of the portals, and on no other.

        Raises:
            UsageError: an address is not ours, or a port is taken.
        """
        for tag, portals in self._groups.items():
            for at in portals:
                if at not in addresses and at in self._listening:
                    await self._listening.pop(at).close()
                elif at in addresses and at not in self._listening:
                    await self._listen(tag, at)

    def turn_away(self, sources: Set[str]) -> None:
        """Let in nobody from these addresses."""
        for portal in self._listening.values():
            portal.turn_away(sources)

    async def _listen(self, group_tag: int, at: PortalAddress) -> None:
        portal = Portal(self._exposures, registry=self._registry, group_tag=group_tag)
        try:
            # The thread of another namespace makes the socket, and the socket stays in it.
            await portal.serve(inside(at.namespace, lambda: open_socket(at.address, at.port)))
        except UsageError as error:
            raise UsageError(f"portal {at}: {error}; choose another with --portal ADDRESS:PORT") from error
        self._listening[at] = portal

    async def set(self, hosts: Sequence[HostDefinition], exposures: Sequence[Exposure]) -> None:
        """Change LUN maps, and end the sessions of hosts that were changed."""
        self._exposures.set(hosts, exposures)

    async def refresh(self) -> None:
        """Give every session the LUN map that is true now."""
        self._exposures.refresh()

    async def release(self, volume: Wwn) -> None:
        """Do nothing: units that go off line end their commands themselves."""

    def sessions(self) -> list[SessionStatus]:
        """List what the portals have; those of one group know the same sessions."""
        return [
            SessionStatus(
                host=info.host,
                initiator=info.initiator,
                address=info.address,
                luns=self._exposures.luns_of(info.host),
            )
            for group in {portal.group_tag: portal for portal in self._listening.values()}.values()
            for info in group.sessions()
            if info.target is not None
        ]

    async def close(self) -> None:
        """Stop listening, and say goodbye."""
        await asyncio.gather(*(portal.close() for portal in self._listening.values()))


class Choice(enum.StrEnum):
    """What stands behind --frontend."""

    AUTO = "auto"
    LIO = "lio"
    EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which front end, and why, in words for the log."""

    lio: bool
    why: str

    @property
    def name(self) -> str:
        """What it is called."""
        return "LIO" if self.lio else "the embedded portal"


async def choose(choice: Choice, prepare: Callable[[], None]) -> Chosen:
    """Choose a front end. ``prepare`` makes the machine ready for LIO, and raises UsageError where it can't.

    Raises:
        UsageError: LIO was asked for, and can't be used.
    """
    if choice is Choice.EMBEDDED:
        return Chosen(False, "as --frontend says")
    try:
        await asyncio.to_thread(prepare)
    except UsageError as error:
        if choice is Choice.LIO:
            raise
        return Chosen(False, str(error))
    return Chosen(True, "as --frontend says" if choice is Choice.LIO else "root, its modules and configfs are there")
