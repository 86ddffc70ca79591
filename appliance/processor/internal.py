"""What other storage processors reach here on the internal fabrics: first-tier objects, lead units, ALUs (R12, R15).

Each of them has a LUN map of its own, and sees in it what the VCM has granted it by name; nobody else gets in. An
MVSP comes for each epoch under another name. When a later epoch is followed, the sessions of earlier ones are ended,
and what they still had under way is awaited, before the answer says that they are: no late write of theirs can land
behind one of the new MVSP (M5).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final
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

GROUP_TAG: Final = 1


MakeUnit = Callable[[], LogicalUnit]


@dataclass(slots=True)
class Peer:
    """An initiator that may log in, and its LUN map: a unit keeps its LUN while it is there."""

    secret: bytes = field(repr=False)
    units: dict[int, LogicalUnit] = field(default_factory=dict)

    def add(self, makers: Mapping[Wwn, MakeUnit]) -> None:
        """Give LUNs to what has none yet, the lowest that are free.

        Each initiator has a unit of its own: storage tells of a loss once, and whoever flushes must hear of it (D1).
        """
        there = {unit.identity.wwn for unit in self.units.values()}
        numbers = itertools.count()
        for wwn in makers.keys() - there:
            self.units[next(number for number in numbers if number not in self.units)] = makers[wwn]()

    def drop(self, wwns: Container[Wwn]) -> list[LogicalUnit]:
        """Take units out of the map, and give them."""
        gone = {number: unit for number, unit in self.units.items() if unit.identity.wwn in wwns}
        for number, unit in gone.items():
            unit.close()
            del self.units[number]
        return list(gone.values())


class InternalTarget:
    """The internal target node of one storage processor. Implements ``backstores.iscsi.access.Access``."""

    def __init__(self, name: str, addresses: Sequence[PortalAddress]) -> None:
        self.name = name
        self._addresses = tuple(addresses)
        self._portals = tuple(Portal(at.address, at.port, GROUP_TAG) for at in addresses)
        self._someone_left = asyncio.Event()
        self._device = TargetDevice(name, (GROUP_TAG,), left=self._someone_left.set)
        self._registry = SessionRegistry()
        self._peers: dict[str, Peer] = {}
        self._owners: WeakKeyDictionary[TargetNexus, str] = WeakKeyDictionary()
        self._listening: dict[PortalAddress, ListeningPortal] = {}
        self._turned_away: frozenset[str] = frozenset()

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
            portal.turn_away(self._turned_away)
            await portal.serve(inside(address.namespace, lambda: open_socket(address.address, address.port)))
            self._listening[address] = portal

    async def hush(self, address: PortalAddress) -> None:
        """Listen on an address no more, and end what came by it."""
        portal = self._listening.pop(address, None)
        if portal is not None:
            await portal.close()

    async def listen_only(self, addresses: Set[PortalAddress]) -> None:
        """Listen on these of the addresses, and on no other."""
        for address in self._addresses:
            await (self.listen(address) if address in addresses else self.hush(address))

    def turn_away(self, sources: Set[str]) -> None:
        """End what comes from these addresses, and let in no more from them."""
        self._turned_away = frozenset(sources)
        for portal in self._listening.values():
            portal.turn_away(self._turned_away)

    async def deserted(self) -> None:
        """Wait until nobody is logged in any more."""
        while self._device.nexuses:
            self._someone_left.clear()
            await self._someone_left.wait()

    async def close(self) -> None:
        """Stop listening, and end all sessions."""
        await asyncio.gather(*(portal.close() for portal in self._listening.values()))
        self._listening.clear()

    # What the VCM has granted

    def grant(self, initiator: str, secret: str, makers: Mapping[Wwn, MakeUnit]) -> None:
        """Show things to an initiator, besides those that it sees already; its sessions learn of it."""
        peer = self._peers.setdefault(initiator, Peer(secret.encode()))
        peer.secret = secret.encode()  # what is logged in has proved itself
        peer.add(makers)
        self._refresh(initiator)

    def withdraw(self, wwns: Container[Wwn], but: Container[str] = ()) -> list[LogicalUnit]:
        """Show things no more, except to the initiators in ``but``; what was shown may have commands at work still."""
        gone = []
        for initiator, peer in self._peers.items():
            if initiator not in but:
                gone += peer.drop(wwns)
                self._refresh(initiator)
        return gone

    async def withdraw_quietly(self, wwns: Container[Wwn], but: Container[str] = ()) -> None:
        """Show things no more, and return when no command of those who saw them can reach a disk any more."""
        await runner.drained([task for unit in self.withdraw(wwns, but) for task in unit.tasks])

    async def end(self, initiators: Iterable[str]) -> None:
        """Let initiators in no more, and return when nothing of theirs is under way."""
        for initiator in initiators:
            peer = self._peers.pop(initiator, None)
            self._registry.drop_host(initiator, "it was told off")
            for unit in peer.units.values() if peer else ():
                unit.close()
                await runner.drained(tuple(unit.tasks))

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
