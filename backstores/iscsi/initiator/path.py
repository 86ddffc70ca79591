"""One path to a target: a session, and who logs it in again whenever it has died.

A path carries commands only while each unit behind it is known to be the one it is taken for, by its name: a
target may have given its LUNs out anew while we were away (R12), and says so by a unit attention when it does
while we are there.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Protocol

from backstores.errors import ProtocolError
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.outcome import CommandFailed, ConnectionLost
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.questions import identify, settle_attentions
from backstores.iscsi.initiator.session import Session, connect
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.transport import ReceiveBuffer
from backstores.scsi.lun import encode
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 32  # units that are asked for their names at once


class Owner(Protocol):
    """Whose path it is."""

    names: dict[int, Wwn]  # which unit is expected at which LUN

    def takes_back(self, task: Task) -> bool:
        """Hear that a task has not ended well; True: it will be run once more."""

    def went_up(self, path: Path) -> None:
        """Hear that a path can carry commands."""

    def went_down(self, path: Path, reason: str) -> None:
        """Hear that it can't any more, or that it could not be made to."""


class Path:
    """One way to a target. ``usable``: it can carry commands; ``gone``: fields of LUNs that are somebody else's.

    Two are its owner's: ``carried``, the session has had commands; ``told``, somebody was told that it is up.
    """

    def __init__(
        self, owner: Owner, endpoint: Endpoint, identity: Identity, patience: Patience, buffer: ReceiveBuffer
    ) -> None:
        self.endpoint = endpoint
        self.identity = identity
        self.session: Session | None = None
        self.usable = False
        self.carried = self.told = False
        self.gone: frozenset[int] = frozenset()
        self.error: ProtocolError | CommandFailed | None = None  # why it is not usable
        self._owner = owner
        self._patience = patience
        self._buffer = buffer
        self._news = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Log in, and again whenever that is over."""
        self._keeper = asyncio.create_task(self._keep(), name=f"path to {self.endpoint}")
        self._keeper.add_done_callback(tell_failure)

    async def stop(self) -> None:
        """Log out."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self.usable = False
        if self.session is not None:
            await self.session.close()

    def renew(self, chap: Credentials) -> None:
        """Prove ourselves with this from the next login on."""
        self.identity = replace(self.identity, chap=chap)

    def doubt(self) -> None:
        """Look again who the units are before anything else is sent."""
        self.usable = False
        self._news.set()

    async def check(self) -> None:
        """Look who the units are.

        Raises:
            CommandFailed: the session is over, or the target has no time.
        """
        session = self.session
        assert session is not None
        gone: set[int] = set()
        todo = list(self._owner.names.items())
        for at in range(0, len(todo), SIDE_BY_SIDE):
            part = todo[at : at + SIDE_BY_SIDE]
            answers = await asyncio.gather(*(_is_there(session, number, wwn) for number, wwn in part))
            gone |= {encode(number) for (number, _), there in zip(part, answers, strict=True) if not there}
        self.gone = frozenset(gone)

    async def _keep(self) -> None:
        wait_s = self._patience.first_wait_s
        while True:
            try:
                self.session = await connect(
                    self.endpoint,
                    self.identity,
                    patience=self._patience,
                    buffer=self._buffer,
                    ended=self._ended,
                    takes_back=self._owner.takes_back,
                )
                await self._serve(self.session)
                wait_s = self._patience.first_wait_s
            except (ProtocolError, CommandFailed) as error:
                self._fail(error)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._patience.last_wait_s)

    async def _serve(self, session: Session) -> None:
        """Let a session carry commands until it is over."""
        while session.ready:
            self._news.clear()
            if not self.usable:
                await self.check()
                self.usable = session.ready and not self._news.is_set()
                if self.usable:
                    log.info("path to %s is up", self.endpoint)
                    self.error = None
                    self._owner.went_up(self)
            await self._news.wait()

    def _fail(self, error: ProtocolError | CommandFailed) -> None:
        if str(error) != str(self.error):
            log.warning("path to %s: %s", self.endpoint, error)
        self.error = error
        if self.session is not None and self.session.ready:
            self.session.abort(str(error))
        self.usable = False
        self._owner.went_down(self, str(error))

    def _ended(self, session: Session) -> None:
        """Hear that the session is over; its tasks hear it after that, and are sent by another path."""
        self._news.set()
        if self.usable:
            self.usable = False
            self.error = ConnectionLost(f"the session is over: {session.reason}")
            log.warning("path to %s is down: %s", self.endpoint, session.reason)
            self._owner.went_down(self, session.reason)


def tell_failure(keeper: asyncio.Task[None]) -> None:
    """Log a bug of ours that has ended what nobody waits for."""
    error = None if keeper.cancelled() else keeper.exception()
    if error is not None:
        log.error("%s has failed", keeper.get_name(), exc_info=error)


async def _is_there(session: Session, number: int, wwn: Wwn) -> bool:
    """Look who a unit is. One that does not answer as it should keeps no other from being used (C3)."""
    try:
        await settle_attentions(session, number)
    except ConnectionLost:
        raise
    except CommandFailed as error:  # a unit that is not ready says who it is all the same
        log.info("lun %d of %s: %s", number, session.endpoint, error)
    try:
        return await identify(session, number) == wwn
    except ConnectionLost:
        raise
    except (ProtocolError, CommandFailed) as error:
        log.warning("lun %d of %s: %s", number, session.endpoint, error)
        return False
