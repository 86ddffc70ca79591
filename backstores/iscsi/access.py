"""What the iSCSI target asks of the appliance: who may log in, with which secret, and what they see.

Nothing here touches a volume before a login has succeeded (S1), and an initiator that no account
matches learns of nothing (S2).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from backstores.scsi.model import Nexus

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})
"""What a portal that listens on every address of the machine has in place of one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A CHAP name and secret. The secret stays out of every repr, and so out of logs."""

    user: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """A host as the appliance knows it. ``chap``: it must prove itself; ``mutual``: we can, too, if it asks."""

    host: str
    chap: Credentials | None = None
    mutual: Credentials | None = None


@dataclass(frozen=True, slots=True)
class Portal:
    """One address of a target, in numeric form (IPv6 without brackets)."""

    address: str
    port: int
    group_tag: int


@dataclass(frozen=True, slots=True)
class Target:
    """An iSCSI target node and its portals."""

    name: str
    portals: tuple[Portal, ...]


class Access(Protocol):
    """The appliance's answers. All of them come from memory, at once."""

    def account(self, initiator: str) -> Account | None:
        """Find the host whose name or pattern matches an initiator name; the exact name goes first."""

    def targets(self, account: Account) -> tuple[Target, ...]:
        """Give the targets that a host may log in to, for SendTargets."""

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        """Make the I_T nexus of a new session. Called after a login has succeeded, never before."""


@dataclass(frozen=True, slots=True)
class AccessVia:
    """The same answers for one connection: a wildcard address becomes the one that this host has reached."""

    access: Access
    address: str

    def account(self, initiator: str) -> Account | None:
        """Find the host of an initiator name."""
        return self.access.account(initiator)

    def targets(self, account: Account) -> tuple[Target, ...]:
        """Give the targets, with addresses that mean something to the host (RFC 7143, appendix C)."""
        return tuple(
            replace(target, portals=tuple(map(self._seen, target.portals))) for target in self.access.targets(account)
        )

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        """Make the I_T nexus of a new session."""
        return self.access.open_nexus(account, initiator, isid, target, group_tag)

    def _seen(self, portal: Portal) -> Portal:
        return replace(portal, address=self.address) if portal.address in WILDCARDS else portal
