"""The ALUs that a storage processor has open: locked against all others, and passed through to the MVSP (R9).

What lies on them is looked at here and changed by the MVSP alone, so what was seen at the beginning may be old.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence, Set

from appliance.control.orders import Follow, OpenAlus
from appliance.control.reports import Opened, Scanned
from appliance.control.values import Found
from appliance.inventory import Inventory, OpenAlu
from appliance.processor.internal import InternalTarget, MakeUnit
from appliance.processor.names import MASTER_MARK, master_initiator, pass_through
from appliance.processor.pulled import Pulled
from appliance.recognition import Recognize, recognize_nothing
from backstores.alu.base import AluDriver
from backstores.alu.descriptor import DescriptorDriver
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.objects import Extent
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume.extents import ExtentDevice
from backstores.wwn import Wwn


class AttachedAlus:
    """The ALUs of one storage processor."""

    def __init__(
        self,
        engine: Engine,
        susid: str,
        iqn: str,
        sp: str,
        target: InternalTarget,
        recognize: Recognize = recognize_nothing,
    ) -> None:
        self._engine = engine
        self._iqn = iqn
        self._sp = sp
        self._target = target
        self._inventory = Inventory(engine, susid, recognize)
        self._master: Follow | None = None
        self._out_of_reach: frozenset[str] = frozenset()
        self._pulled: dict[str, Pulled] = {}

    def lose(self, paths: Set[str]) -> None:
        """Have exactly these ALUs fail whatever is asked of them: a fault that somebody has made (R19)."""
        self._out_of_reach = frozenset(paths)
        for path in self._pulled.keys() - paths:
            self._pulled.pop(path).plug_in()
        for alu in self._inventory:
            path, driver = alu.driver.path, alu.driver
            if path in paths and path not in self._pulled and isinstance(driver, DescriptorDriver):
                self._pulled[path] = Pulled(driver)

    async def scan(self, paths: Sequence[str]) -> Scanned:
        """Say what paths lead to; nothing is opened for longer than that takes."""
        return Scanned(found=tuple(await asyncio.to_thread(lambda: [_look(path) for path in paths])))

    async def open(self, order: OpenAlus) -> Opened:
        """Open ALUs; one that can't be opened holds up no other (C3)."""
        opened, refused = [], []
        for path in order.paths:
            try:
                opened.append((await self._opened(path, order)).status())
            except TiergateError as error:
                refused.append(Found(path, 0, str(error)))
        self._pass_through()
        return Opened(alus=tuple(opened), refused=tuple(refused))

    async def _opened(self, path: str, order: OpenAlus) -> OpenAlu:
        if order.legacy:
            raise UsageError(
                f"alu {path!r} can't be a legacy alu here: these need an appliance of one storage processor"
            )
        if path in self._out_of_reach:
            raise UsageError(f"alu {path!r} can't be reached by storage processor {self._sp}: it was failed on purpose")
        there = [alu for alu in self._inventory if alu.driver.path == path]
        return there[0] if there else await self._inventory.attach(path, order.size_bytes)

    async def close(self, paths: Sequence[str]) -> None:
        """Close ALUs that nothing stands on, and wait for what the MVSP has under way there."""
        self._target.withdraw({pass_through(path) for path in paths})
        for path in paths:
            if path in self._pulled:
                self._pulled.pop(path).plug_in()
            if any(alu.driver.path == path for alu in self._inventory):
                await self._inventory.detach(path)

    async def close_all(self) -> None:
        """Close them all: the process ends."""
        await self.close([alu.driver.path for alu in self._inventory])

    async def follow(self, order: Follow) -> None:
        """Let the MVSP of this epoch in; those before it are ended, with all that they had under way (M5)."""
        if self._master is None or order.epoch > self._master.epoch:
            await self._target.end([name for name in self._target.initiators if MASTER_MARK in name])
        self._master = order
        self._pass_through()

    def _pass_through(self) -> None:
        if self._master is not None and self._master.grant.sp != self._sp:
            grant = self._master.grant
            makers = {pass_through(alu.driver.path): self._maker(alu.driver) for alu in self._inventory}
            self._target.grant(master_initiator(self._iqn, grant.sp, grant.secret), grant.secret, makers)

    def _maker(self, driver: AluDriver) -> MakeUnit:
        def make() -> LogicalUnit:
            block_bytes = driver.sector_bytes
            whole = Extent(0, driver.size_bytes // block_bytes * block_bytes)
            device = ExtentDevice(self._engine, driver, [whole], block_bytes)
            return LogicalUnit(device, Identity(pass_through(driver.path), product="ALU"))

        return make

    def driver(self, path: str) -> AluDriver:
        """Give the driver of an ALU that is open here.

        Raises:
            UsageError: it is not.
        """
        return self._inventory.by_path(path).driver

    async def by_wwn(self, wwn: Wwn) -> AluDriver:
        """Give the driver of an ALU by its name, also of one that the MVSP has given its name meanwhile.

        Raises:
            UsageError: it is not here.
        """
        if wwn not in self._inventory.drivers:
            for alu in self._inventory:
                if not alu.owned:
                    await self._inventory.look_again(alu)
        return self._inventory.owned(wwn).driver


def _look(path: str) -> Found:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return Found(path, 0, error.strerror or "it can't be opened")
    try:
        if not stat.S_ISREG(mode := os.fstat(handle).st_mode) and not stat.S_ISBLK(mode):
            return Found(path, 0, "no file and no block device")
        return Found(path, os.lseek(handle, 0, os.SEEK_END))
    finally:
        os.close(handle)
