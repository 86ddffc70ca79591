"""Who may log in, and which volumes they see: the volume location structure at work (R14, R15).

It answers the iSCSI target's questions out of what the management has set, and gives each session the
LUN map of its host. A change reaches sessions at once: their maps change, and those of hosts that may
no longer log in as they did are ended.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from appliance.messages import Exposure, HostDefinition
from backstores.errors import UsageError
from backstores.iscsi.access import Account, Credentials, Portal, Target
from backstores.scsi.model import Nexus
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import LogicalUnit
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

WILDCARDS = frozenset("*?[")

FindUnit = Callable[[Wwn], LogicalUnit | None]
DropHost = Callable[[str, str], int]


class Owner(NamedTuple):
    """Whose session it is, and by which name it came in."""

    host: str
    initiator: str


@dataclass(eq=False)
class Exposures:
    """Implements ``backstores.iscsi.access.Access`` for one target node."""

    iqn: str
    portals: tuple[Portal, ...]
    find_unit: FindUnit
    drop_host: DropHost = lambda host, reason: 0
    device: TargetDevice = field(init=False)
    _hosts: tuple[HostDefinition, ...] = ()
    _exposures: tuple[Exposure, ...] = ()
    _owners: WeakKeyDictionary[TargetNexus, Owner] = field(default_factory=WeakKeyDictionary)

    def __post_init__(self) -> None:
        # Each portal group is one port of the target device (RFC 7143 clause 4.4.1), numbered by its tag.
        tags = dict.fromkeys(portal.group_tag for portal in self.portals)
        self.device = TargetDevice(self.iqn, tuple(tags) or (1,))

    # What the iSCSI target asks

    def account(self, initiator: str) -> Account | None:
        """Find the host of an initiator name: an exact name goes first, then the longest pattern that matches."""
        name = initiator.lower()
        matching = [host for host in self._hosts if fnmatch.fnmatchcase(name, host.iqn.lower())]
        if not matching:
            return None
        return _account(max(matching, key=lambda host: (not WILDCARDS & set(host.iqn), len(host.iqn))))

    def targets(self, account: Account) -> tuple[Target, ...]:
        """Give the one target node there is; whoever has an account may log in to it."""
        return (Target(self.iqn, self.portals),)

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        """Make the nexus of a new session, with the LUN map of its host."""
        if target != self.iqn:
            raise UsageError(f"there is no target {target}")
        nexus = self.device.open_nexus(
            f"{initiator},i,0x{isid.hex()}", self._luns(account.host), group_tag=group_tag, relative_port=group_tag
        )
        self._owners[nexus] = Owner(account.host, initiator)
        return nexus

    # What the management sets

    def set(self, hosts: Sequence[HostDefinition], exposures: Sequence[Exposure]) -> None:
        """Make this the truth, for sessions that run, too."""
        before = {host.name: host for host in self._hosts}
        self._hosts, self._exposures = tuple(hosts), tuple(exposures)
        after = {host.name: host for host in hosts}
        changed = {name for name, old in before.items() if after.get(name) != old}
        for name in sorted(changed | self._claimed_by_others()):
            ended = self.drop_host(name, "its host was changed or deleted")
            if ended:
                log.info("host %s was changed: %d sessions ended", name, ended)
        self.refresh()

    def _claimed_by_others(self) -> frozenset[str]:
        """Name the hosts that have a session of an initiator which is another host's by now (R15)."""
        accounts = {owner: self.account(owner.initiator) for owner in set(self._owners.values())}
        moved = (owner.host for owner, found in accounts.items() if found is None or found.host != owner.host)
        return frozenset(moved)

    def refresh(self) -> None:
        """Give every session the LUN map that is true now: after a change, or when volumes come and go."""
        for nexus in self.device.nexuses:
            nexus.set_luns(self._luns(self._owners[nexus].host))

    def luns_of(self, host: str) -> tuple[int, ...]:
        """List the LUNs that a host sees now."""
        return tuple(sorted(self._luns(host)))

    def _luns(self, host: str) -> Mapping[int, Exposed]:
        found = (
            (exposure.lun, self.find_unit(exposure.volume)) for exposure in self._exposures if exposure.host == host
        )
        return {lun: Exposed(unit) for lun, unit in found if unit is not None}


def _account(host: HostDefinition) -> Account:
    return Account(
        host.name,
        Credentials(host.chap_user, host.chap_secret.encode()) if host.chap_user else None,
        Credentials(host.mutual_user, host.mutual_secret.encode()) if host.mutual_user else None,
    )
