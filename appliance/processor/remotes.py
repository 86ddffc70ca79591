"""The other storage processors, as this one reaches them over the internal fabrics (RRN, R12).

Each is one target, with a session over each fabric that all things found there share: one for what this storage
processor builds its second tier on, and one for the ALUs that it reaches as the MVSP.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from appliance.control.values import Access, AluAt
from appliance.fabric.addresses import same_fabric
from appliance.portals import PortalAddress, parse_portal
from appliance.processor.attached import AttachedAlus
from appliance.processor.names import internal_target, pass_through
from backstores.alu.base import AluDriver
from backstores.alu.remote import RemoteLun, open_remote
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.target import Event, PathUp, RemoteTarget, UnitsChanged
from backstores.iscsi.transport import ReceiveBuffer
from backstores.wwn import Wwn, short

RANDOM_ISID: Final = 0x80 << 40
"""The type of an ISID whose other bits are random (RFC 7143 clause 11.12.5)."""

INTERNAL_PATIENCE: Final = Patience(login_s=2, idle_s=0.5, answer_s=1, first_wait_s=0.05, last_wait_s=2, deadline_s=4)
"""Between storage processors a fail-over must be over before a host's patience is."""

NameOf = Callable[[Access], str]
"""Say by which initiator name we come to a storage processor."""


@dataclass(slots=True)
class Peer:
    """A storage processor that was reached, and what was found there."""

    access: Access
    luns: dict[Wwn, int] = field(default_factory=dict)
    known: bool = False  # whether these are the LUNs as they are now
    _target: RemoteTarget | None = None

    @property
    def target(self) -> RemoteTarget:
        """Its target, with the sessions."""
        assert self._target is not None
        return self._target

    async def open(self, endpoints: Sequence[Endpoint], identity: Identity, buffer: ReceiveBuffer) -> None:
        """Log in; all targets of a loop share a receive buffer."""
        self._target = RemoteTarget(endpoints, identity, patience=INTERNAL_PATIENCE, buffer=buffer, on_event=self._hear)
        await self._target.open()

    def _hear(self, event: Event) -> None:
        if isinstance(event, PathUp | UnitsChanged):
            self.known = False  # it may have been started anew

    async def find(self, wanted: Set[Wwn]) -> None:
        """Look for units, unless it is known where they are."""
        if not self.known or wanted - self.luns.keys():
            self.known = True
            self.luns = await self.target.units()


class Remotes:
    """All of them, in one role."""

    def __init__(self, iqn: str, name_of: NameOf, own: Sequence[PortalAddress] = ()) -> None:
        """``own``: our addresses on the internal fabrics, from which we come on each."""
        self._own = tuple(own)
        self._iqn = iqn
        self._name_of = name_of
        self._peers: dict[str, Peer] = {}
        self._buffer = ReceiveBuffer()

    async def reach(self, access: Access) -> Peer:
        """Log in, unless we are.

        Raises:
            ProtocolError, CommandFailed: it can't be reached, or does not let us in.
        """
        peer = self._peers.get(access.sp)
        if peer is not None and (peer.access.portals, self._name_of(peer.access)) == (
            access.portals,
            self._name_of(access),
        ):
            peer.target.renew(self._credentials(access))
            peer.access = access
            return peer
        if peer is not None:
            del self._peers[access.sp]
            await peer.target.close()
        identity = Identity(
            initiator=self._name_of(access),
            target=internal_target(self._iqn, access.sp),
            isid=(RANDOM_ISID | secrets.randbits(24)).to_bytes(6),
            chap=self._credentials(access),
            header_digest=True,
        )
        portals = [parse_portal(portal) for portal in access.portals]
        endpoints = [Endpoint(portal.address, portal.port, self._source(portal)) for portal in portals]
        peer = Peer(access)
        await peer.open(endpoints, identity, self._buffer)
        self._peers[access.sp] = peer
        return peer

    def _source(self, there: PortalAddress) -> str | None:
        """Give our address on the fabric of a portal: on loopback the kernel would take any."""
        return next((ours.address for ours in self._own if same_fabric(ours.address, there.address)), None)

    def _credentials(self, access: Access) -> Credentials:
        return Credentials(self._name_of(access), access.secret.encode())

    async def discover(self, access: Access, wanted: Set[Wwn]) -> None:
        """Find things by their names, among all that a storage processor shows us (step 528).

        Raises:
            UsageError: one is not there.
            ProtocolError, CommandFailed: it can't be asked.
        """
        peer = await self.reach(access)
        await peer.find(wanted)
        missing = [short(wwn) for wwn in wanted if wwn not in peer.luns]
        if missing:
            raise UsageError(f"storage processor {access.sp} does not show us {', '.join(missing)}")

    async def open(self, sp: str, wwn: Wwn, path: str) -> RemoteLun:
        """Open something of a storage processor that was reached. Raises as ``open_remote`` does."""
        peer = self._peers.get(sp)
        if peer is not None:
            await peer.find({wwn})
        if peer is None or wwn not in peer.luns:
            raise UsageError(f"{path} was not discovered at storage processor {sp}")
        return await open_remote(peer.target, peer.luns[wwn], path, wwn)

    def target(self, sp: str) -> RemoteTarget:
        """Give a target that was reached."""
        return self._peers[sp].target

    def lun(self, sp: str, wwn: Wwn) -> int:
        """Give the LUN of something that was discovered."""
        return self._peers[sp].luns[wwn]

    def leads_to(self, driver: RemoteLun, sp: str, wwn: Wwn) -> bool:
        """Whether a driver that is open leads to something as it was discovered last."""
        peer = self._peers.get(sp)
        return peer is not None and wwn in peer.luns and driver.stands_for(peer.target, peer.luns[wwn])

    async def tidy(self) -> None:
        """Log out where nothing is open any more, and nobody answers."""
        for sp in [sp for sp, peer in self._peers.items() if not peer.target.names and not self.is_up(sp)]:
            await self._peers.pop(sp).target.close()

    def is_up(self, sp: str) -> bool:
        """Whether a storage processor that was reached can be reached now."""
        return any(path.up for path in self._peers[sp].target.paths())

    def hurry(self, sp: str, wwn: Wwn, on: bool) -> None:
        """Have commands to something fail at once while no path is up, or wait for one again."""
        peer = self._peers.get(sp)
        if peer is not None and wwn in peer.luns:
            peer.target.hurry(peer.luns[wwn], on)

    def forget(self, sp: str, wwn: Wwn) -> None:
        """Expect something to be there no more."""
        peer = self._peers.get(sp)
        if peer is not None and wwn in peer.luns:
            peer.target.forget(peer.luns.pop(wwn))

    async def close(self) -> None:
        """Log out everywhere."""
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            await peer.target.close()


class MasterOpener:
    """Opens ALUs for the MVSP: those of its own storage processor are open already, others pass through theirs."""

    def __init__(self, engine: Engine, alus: AttachedAlus, remotes: Remotes) -> None:
        self._engine = engine
        self._alus = alus
        self._remotes = remotes
        self._at: dict[str, AluAt] = {}

    async def admit(self, alu: AluAt) -> bool:
        """Learn the way to an ALU; True: it is another one than before."""
        if alu.access is not None:
            await self._remotes.discover(alu.access, {pass_through(alu.path)})
        before = self._at.get(alu.path)
        self._at[alu.path] = alu
        return before is not None and _sp_of(before) != _sp_of(alu)

    async def open(self, path: str, *, size_bytes: int | None = None) -> AluDriver:
        """Open an ALU that was admitted."""
        at = self._at[path]
        if at.access is None:
            return self._alus.driver(path)
        return await self._remotes.open(at.access.sp, pass_through(path), path)

    async def release(self, driver: AluDriver) -> None:
        """Let go of an ALU that passes through; one of our own stays open."""
        if isinstance(driver, RemoteLun):
            driver.hurry(True)
            await self._engine.release(driver)


def _sp_of(alu: AluAt) -> str | None:
    return None if alu.access is None else alu.access.sp
