"""What the protocol core asks of the portal; it does no I/O and starts nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

from backstores.iscsi.session import Session
from backstores.iscsi.tasks import Execute
from backstores.scsi.model import Function


@dataclass(frozen=True, slots=True)
class Manage:
    """Have the nexus carry out a task management function, and tell ``Connection.managed``."""

    function: Function
    lun: int
    referenced_itt: int
    itt: int
    immediate: bool


@dataclass(frozen=True, slots=True)
class Close:
    """Send what there is, then close the connection."""

    reason: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A session has begun."""

    session: Session


@dataclass(frozen=True, slots=True)
class Refused:
    """A login has failed; both texts may hold what the peer sent."""

    initiator: str
    reason: str


Effect = Execute | Manage | Close | LoggedIn | Refused
