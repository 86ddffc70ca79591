"""Sessions: which initiator is logged in to which target, and over which connection.

A session has one connection (MaxConnections is 1, ErrorRecoveryLevel 0), and the two end together.
``Session.end`` is the one place where a session ends, whoever asks for it: a logout, a lost connection,
a login that takes its place, an account that was removed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from backstores.errors import TiergateError
from backstores.iscsi.access import Access
from backstores.iscsi.limits import NODE_BYTES, SESSIONS_PER_INITIATOR
from backstores.iscsi.login import Grant, LoginRefused, LoginStatus
from backstores.scsi.model import Nexus

Drop = Callable[[str], None]
"""Closes a connection at once; the text is the reason, for the log."""


@dataclass(eq=False, slots=True)
class Session:
    """A session in its full feature phase. ``nexus`` is None for discovery."""

    grant: Grant
    group_tag: int
    tsih: int
    address: str
    drop: Drop = field(repr=False)
    nexus: Nexus | None = field(default=None, repr=False)
    ended: bool = False

    @property
    def name(self) -> tuple[str, bytes, str | None, int]:
        """What RFC 7143 (4.4.3) tells sessions apart by: the initiator port and the target port."""
        return (self.grant.initiator, self.grant.isid, self.grant.target, self.group_tag)


@dataclass(eq=False, slots=True)
class Allowance:
    """Room for the data of commands that all sessions of a node share (S3)."""

    left_bytes: int = NODE_BYTES


class SessionRegistry:
    """All sessions of a target node, over all its portals."""

    def __init__(self) -> None:
        self.allowance = Allowance()
        self._sessions: dict[int, Session] = {}
        self._tsihs = itertools.cycle(range(1, 0x10000))  # 0 stands for "a new session"

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, access: Access, grant: Grant, group_tag: int, address: str, drop: Drop) -> Session:
        """Begin a session, and end the one whose place it takes (6.3.5).

        A login with the TSIH and CID of a living session reinstates its connection (6.3.4). At
        ErrorRecoveryLevel 0 no task outlives a connection, so that too is a new session in the old one's place.

        Raises:
            LoginRefused: no session has this TSIH; a second connection; the initiator has too many sessions; or the
                appliance opens no nexus.
        """
        if len(self._sessions) >= 0xFFFF:
            raise LoginRefused(LoginStatus.SERVICE_UNAVAILABLE, "every TSIH is in use")
        session = Session(grant, group_tag, 0, address, drop)
        before = self._predecessor(session)
        session.tsih = before.tsih if before is not None and grant.tsih else self._free_tsih()
        if before is not None:
            self.end(before, "reinstated by a new login")
        if sum(s.grant.initiator == grant.initiator for s in self._sessions.values()) >= SESSIONS_PER_INITIATOR:
            raise LoginRefused(LoginStatus.OUT_OF_RESOURCES, f"{SESSIONS_PER_INITIATOR} sessions of this initiator")
        if grant.target is not None:
            try:
                session.nexus = access.open_nexus(grant.account, grant.initiator, grant.isid, grant.target, group_tag)
            except TiergateError as error:
                raise LoginRefused(LoginStatus.SERVICE_UNAVAILABLE, str(error)) from error
        self._sessions[session.tsih] = session
        return session

    def _predecessor(self, session: Session) -> Session | None:
        grant = session.grant
        if grant.tsih == 0:
            same = (s for s in self._sessions.values() if s.name == session.name and s.nexus is not None)
            return next(same, None)
        before = self._sessions.get(grant.tsih)
        if before is None or before.name != session.name:
            raise LoginRefused(LoginStatus.SESSION_DOES_NOT_EXIST, f"no session with TSIH {grant.tsih}")
        if before.grant.cid != grant.cid:
            raise LoginRefused(LoginStatus.TOO_MANY_CONNECTIONS, "a session has one connection here")
        return before

    def _free_tsih(self) -> int:
        return next(tsih for tsih in self._tsihs if tsih not in self._sessions)

    def end(self, session: Session, reason: str) -> None:
        """End a session: its nexus is closed, its connection dropped. Ending it again does nothing."""
        if session.ended:
            return
        session.ended = True
        self._sessions.pop(session.tsih, None)
        if session.nexus is not None:
            session.nexus.close()
        session.drop(reason)

    def drop_host(self, host: str, reason: str) -> int:
        """End all sessions of a host; say how many there were."""
        mine = [session for session in self if session.grant.account.host == host]
        for session in mine:
            self.end(session, reason)
        return len(mine)
