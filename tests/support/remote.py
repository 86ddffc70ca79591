"""A target for initiators under test: real logical units over devices, behind portals of this event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from backstores.device import MemoryDevice
from backstores.iscsi.access import Account, Credentials, Portal, Target
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.target import Event, RemoteTarget
from backstores.iscsi.initiator.tasks import EMPTY, Task
from backstores.iscsi.portal import Portal as ListeningPortal
from backstores.iscsi.session import SessionRegistry
from backstores.scsi.model import Nexus
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.unit import Identity as UnitIdentity
from backstores.scsi.unit import LogicalUnit
from backstores.wwn import Wwn

TARGET = "iqn.2026-11.example:sp2.t1"
INITIATOR = "iqn.2026-11.example:sp3.t2"
ISID = b"\x80\0\0\0\1\0"
OURS = Credentials("sp3", b"what sp3 proves itself with")
THEIRS = Credentials("sp2", b"what sp2 proves itself with")
QUICK = Patience(
    login_s=5, idle_s=0.2, answer_s=0.3, first_wait_s=0.01, last_wait_s=0.05, busy_s=0.001, deadline_s=5, tick_s=0.05
)


def wwn_of(number: int) -> Wwn:
    """Name a unit."""
    return Wwn(f"6025447{number:025x}")


def make_unit(number: int, blocks: int = 8192, block_bytes: int = 512) -> LogicalUnit:
    """Make a unit over a device in memory."""
    return LogicalUnit(MemoryDevice(blocks, block_bytes), UnitIdentity(wwn_of(number)))


@dataclass
class House:
    """One target with portals on loopback, and who may log in there."""

    units: dict[int, Exposed] = field(default_factory=dict)
    account_of: Account = field(default_factory=lambda: Account("sp3", OURS, THEIRS))
    portals: list[ListeningPortal] = field(default_factory=list)
    registry: SessionRegistry = field(default_factory=SessionRegistry)
    device: TargetDevice = field(default_factory=lambda: TargetDevice(TARGET))

    def account(self, initiator: str) -> Account | None:
        return self.account_of if initiator == INITIATOR else None

    def targets(self, account: Account) -> tuple[Target, ...]:
        return (Target(TARGET, tuple(Portal("127.0.0.1", 3260, portal.group_tag) for portal in self.portals)),)

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        return self.device.open_nexus(f"{initiator},i,0x{isid.hex()}", self.units)

    @property
    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(*portal.endpoint) for portal in self.portals]

    async def stop(self, number: int) -> Endpoint:
        """Stop listening at one portal, and cut its sessions off."""
        portal = self.portals[number]
        endpoint = Endpoint(*portal.endpoint)
        await portal.close()
        return endpoint

    async def start(self, number: int, endpoint: Endpoint | None = None) -> None:
        """Listen at one portal, anew or for the first time."""
        portal = ListeningPortal(self, registry=self.registry, group_tag=1)
        await portal.start("127.0.0.1", 0 if endpoint is None else endpoint.port)
        self.portals[number : number + 1] = [portal]


@asynccontextmanager
async def house(units: dict[int, LogicalUnit], portals: int = 2) -> AsyncIterator[House]:
    """Serve units at some portals while the context lasts."""
    made = House({number: Exposed(unit, False) for number, unit in units.items()})
    for number in range(portals):
        await made.start(number)
    try:
        yield made
    finally:
        for portal in made.portals:
            await portal.close()


def identity(*, mutual: bool = True, header_digest: bool = True, data_digest: bool = False) -> Identity:
    """Give what logs in to a house."""
    return Identity(INITIATOR, TARGET, ISID, OURS, THEIRS if mutual else None, header_digest, data_digest)


@asynccontextmanager
async def reached(
    at: House | Sequence[Endpoint],
    patience: Patience = QUICK,
    who: Identity | None = None,
    events: list[Event] | None = None,
) -> AsyncIterator[RemoteTarget]:
    """Log in to a house by all its portals, or by some endpoints, while the context lasts."""
    endpoints = at.endpoints if isinstance(at, House) else at
    target = RemoteTarget(
        endpoints, who or identity(), patience=patience, on_event=([] if events is None else events).append
    )
    await target.open()
    try:
        yield target
    finally:
        await target.close()


async def when(condition: Callable[[], object]) -> None:
    """Wait for what other tasks of this loop bring about; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def run(target: RemoteTarget, make: Callable[[Callable[[Task], None]], Task]) -> Task:
    """Run a task to its end."""
    ended: asyncio.Future[Task] = asyncio.get_running_loop().create_future()
    target.submit(make(ended.set_result))
    return await ended


def writing(lba: int, data: bytes, **options: Any) -> Callable[[Callable[[Task], None]], Task]:
    """Give what makes a task that writes to LUN 0."""
    cdb = transfer(WRITE_16, lba, len(data) // 512)
    return lambda done: Task(0, cdb, done, EMPTY, memoryview(data), **options)


def reading(lba: int, blocks: int) -> Callable[[Callable[[Task], None]], Task]:
    """Give what makes a task that reads from LUN 0."""
    return lambda done: Task(0, transfer(READ_16, lba, blocks), done, memoryview(bytearray(blocks * 512)))


def ups(target: RemoteTarget) -> list[bool]:
    """Say of each path whether it is up."""
    return [path.up for path in target.paths()]


def actives(target: RemoteTarget) -> list[bool]:
    """Say of each path whether it is the active one."""
    return [path.active for path in target.paths()]
