"""What other storage processors reach here on the internal fabrics: first-tier objects, lead units, ALUs (R12, R15).

Each of them has a LUN map of its own, and sees in it what the VCM has granted it by name; nobody else gets in. An
MVSP comes for each epoch under another name. When a later epoch is followed, the sessions of earlier ones are ended,
and what they still had under way is awaited, before the answer says that they are: no late write of theirs can land
behind one of the new MVSP (M5).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from appliance.namespaces import inside
from appliance.portals import PortalAddress
from backstores.errors import UsageError
from backstores.iscsi.access import Account, Credentials, Portal, Target
from backstores.iscsi.portal import Portal as ListeningPortal
from backstores.iscsi.portal import open_socket
from backstores.iscsi.session import SessionRegistry
from backstores.scsi import runner
from backstores.scsi.model import Nexus
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import LogicalUnit
from backstores.wwn import Wwn

GROUP_TAG = 1


@dataclass(slots=True)
class Peer:
    """An initiator that may log in, and its LUN map: a unit keeps its LUN while it is there."""

    secret: bytes = field(repr=False)
    units: dict[int, LogicalUnit] = field(default_factory=dict)

    def add(self, units: Iterable[LogicalUnit]) -> None:
        """Give LUNs to units that have none yet, the lowest that are free."""
        there = set(self.units.values())
        free = (number for number in itertools.count() if number not in self.units)
        for unit in units:
            if unit not in there:
                self.units[next(free)] = unit

    def drop(self, units: Iterable[LogicalUnit]) -> None:
        """Take units out of the map."""
        gone = set(units)
        self.units = {number: unit for number, unit in self.units.items() if unit not in gone}


class InternalTarget:
    """The internal target node of one storage processor. Implements ``backstores.iscsi.access.Access``."""

    def __init__(self, name: str, addresses: Sequence[PortalAddress]) -> None:
        self.name = name
        self._addresses = tuple(addresses)
        self._portals = tuple(Portal(at.address, at.port, GROUP_TAG) for at in addresses)
        self._device = TargetDevice(name, (GROUP_TAG,))
        self._registry = SessionRegistry()
        self._peers: dict[str, Peer] = {}
        self._owners: WeakKeyDictionary[TargetNexus, str] = WeakKeyDictionary()
        self._listening: dict[PortalAddress, ListeningPortal] = {}

    async def start(self) -> None:
        """Listen on every internal fabric.

        Raises:
            UsageError: an address is not ours, or a port is taken.
        """
        for address in self._addresses:
            await self.listen(address)

    async def listen(self, address: PortalAddress) -> None:
        """Listen on one of the addresses, unless it is open already."""
        if address not in self._listening:
            portal = ListeningPortal(self, registry=self._registry, group_tag=GROUP_TAG)
            await portal.serve(inside(address.namespace, lambda: open_socket(address.address, address.port)))
            self._listening[address] = portal

    async def hush(self, address: PortalAddress) -> None:
        """Listen on an address no more, and end what came by it."""
        portal = self._listening.pop(address, None)
        if portal is not None:
            await portal.close()

    async def close(self) -> None:
        """Stop listening, and end all sessions."""
        await asyncio.gather(*(portal.close() for portal in self._listening.values()))
        self._listening.clear()

    # What the VCM has granted

    def grant(self, initiator: str, secret: str, units: Iterable[LogicalUnit]) -> None:
        """Show units to an initiator, besides those that it sees already; its sessions learn of it."""
        peer = self._peers.get(initiator)
        if peer is None or peer.secret != secret.encode():
            peer = self._peers[initiator] = Peer(secret.encode(), dict(peer.units) if peer else {})
        peer.add(units)
        self._refresh(initiator)

    def withdraw(self, units: Iterable[LogicalUnit], but: Iterable[str] = ()) -> None:
        """Show units no more, except to the initiators in ``but``."""
        gone, spared = tuple(units), set(but)
        for initiator in self._peers.keys() - spared:
            self._peers[initiator].drop(gone)
            self._refresh(initiator)

    async def end(self, initiators: Iterable[str]) -> None:
        """Let initiators in no more, and return when nothing of theirs is under way."""
        for initiator in initiators:
            peer = self._peers.pop(initiator, None)
            self._registry.drop_host(initiator, "it was told off")
            for unit in peer.units.values() if peer else ():
                await runner.drained([task for task in unit.tasks if task.aborted])

    @property
    def initiators(self) -> tuple[str, ...]:
        """Who may log in."""
        return tuple(self._peers)

    def _refresh(self, initiator: str) -> None:
        for nexus, owner in list(self._owners.items()):
            if owner == initiator:
                nexus.set_luns(self._luns(initiator))

    def _luns(self, initiator: str) -> Mapping[int, Exposed]:
        return {number: Exposed(unit) for number, unit in self._peers[initiator].units.items()}

    # What the iSCSI target asks

    def account(self, initiator: str) -> Account | None:
        """Find who this is; the names are ours, so nothing but an exact one will do."""
        peer = self._peers.get(initiator)
        return None if peer is None else Account(initiator, Credentials(initiator, peer.secret))

    def targets(self, account: Account) -> tuple[Target, ...]:
        """Give the one target there is."""
        return (Target(self.name, self._portals),)

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        """Make the nexus of a new session."""
        if target != self.name or account.host not in self._peers:
            raise UsageError(f"there is no target {target} for {account.host}")
        nexus = self._device.open_nexus(f"{initiator},i,0x{isid.hex()}", self._luns(initiator), group_tag=group_tag)
        self._owners[nexus] = initiator
        return nexus


def wwns_of(units: Iterable[LogicalUnit]) -> tuple[Wwn, ...]:
    """Name units."""
    return tuple(unit.identity.wwn for unit in units)
