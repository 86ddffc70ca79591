"""How hosts reach volumes: what the storage processor asks of a front end, the embedded one, and the choice.

There are two: the portal in this process (R32), and the kernel's LIO (R31, ``appliance.lio``). Whichever it is,
it learns the same things, and in its own way makes them true.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.exposures import Exposures, FindUnit
from appliance.messages import Exposure, HostDefinition, SessionStatus
from backstores.errors import UsageError
from backstores.iscsi import access
from backstores.iscsi.portal import Portal
from backstores.wwn import Wwn

GROUP_TAG: Final = 1  # one storage processor, one portal group


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
    """The portal in this process."""

    def __init__(self, target_iqn: str, address: str, port: int, find_unit: FindUnit) -> None:
        self._exposures = Exposures(target_iqn, (access.Portal(address, port, GROUP_TAG),), find_unit)
        self._portal = Portal(self._exposures, group_tag=GROUP_TAG)
        self._exposures.drop_host = self._portal.drop_host
        self._address, self._port = address, port

    async def start(self) -> None:
        """Listen."""
        try:
            await self._portal.start(self._address, self._port)
        except UsageError as error:
            raise UsageError(f"{error}; choose another with --portal ADDRESS:PORT") from error

    async def set(self, hosts: Sequence[HostDefinition], exposures: Sequence[Exposure]) -> None:
        """Change LUN maps, and end the sessions of hosts that were changed."""
        self._exposures.set(hosts, exposures)

    async def refresh(self) -> None:
        """Give every session the LUN map that is true now."""
        self._exposures.refresh()

    async def release(self, volume: Wwn) -> None:
        """Do nothing: units that go off line end their commands themselves."""

    def sessions(self) -> list[SessionStatus]:
        """List what the portal has."""
        return [
            SessionStatus(
                host=info.host,
                initiator=info.initiator,
                address=info.address,
                luns=self._exposures.luns_of(info.host),
            )
            for info in self._portal.sessions()
            if info.target is not None
        ]

    async def close(self) -> None:
        """Stop listening, and say goodbye."""
        await self._portal.close()


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
