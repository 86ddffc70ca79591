"""A portal on loopback, in a thread of its own, that serves logical units to real initiators.

By hand: ``python -m tests.support.serving`` serves a thin unit with 4 KiB physical blocks until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from backstores.iscsi.access import Account, Portal, Target
from backstores.iscsi.portal import Portal as IscsiPortal
from backstores.scsi.model import Nexus
from backstores.scsi.target import Exposed, TargetDevice
from tests.support.scsi import IQN, memory_unit


@dataclass(slots=True)
class OpenAccess:
    """Lets every initiator in, to the same units."""

    target: TargetDevice
    luns: Mapping[int, Exposed]
    portals: tuple[Portal, ...] = ()

    def account(self, initiator: str) -> Account | None:
        """Everybody has an account."""
        return Account("anyone")

    def targets(self, account: Account) -> tuple[Target, ...]:
        """There is one target."""
        return (Target(self.target.iqn, self.portals),)

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        """Open a nexus of the initiator port, as RFC 7143 clause 4.4.1 names it."""
        return self.target.open_nexus(f"{initiator},i,0x{isid.hex()}", self.luns, group_tag=group_tag)


@contextmanager
def served(luns: Mapping[int, Exposed]) -> Iterator[str]:
    """Serve units on a free port; gives the URL of the target, to which a LUN is added."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="portal")
    thread.start()
    access = OpenAccess(TargetDevice(IQN), luns)
    portal = IscsiPortal(access)

    async def start() -> str:
        await portal.start("127.0.0.1", 0)
        address, port = portal.endpoint
        access.portals = (Portal(address, port, portal.group_tag),)
        return f"iscsi://{address}:{port}/{IQN}"

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(portal.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    """Serve until Ctrl-C."""
    with served({0: Exposed(memory_unit(16384, removable=True))}) as url:
        print(f"{url}/0", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
