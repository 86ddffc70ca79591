"""A management over a fake storage processor, with commands given as in the shell."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from appliance.discovery import Disk
from appliance.mic.commands import bind
from appliance.mic.management import Management
from appliance.mic.operations import Dispatcher
from appliance.mic.views import Outcome
from tests.support.fake_sp import FakeSp, MemoryStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Site:
    """One appliance. ``do("/volumes", "create", name="db", ...)`` is a line of the shell."""

    def __init__(self) -> None:
        self.sp = FakeSp()
        self.store = MemoryStore()
        self.disks: list[Disk] = []  # what a scan finds
        self.progress: list[tuple[str, int, int]] = []
        self._start()

    def _start(self) -> None:
        self.management = Management(self.store, self.sp, clock=lambda: NOW, disks=lambda: self.disks)
        asyncio.run(self.management.start())

    def do(self, path: str, command: str, /, **given: str | int | bool) -> Any:
        """Carry out a command; ``chap_user=`` stands for ``chap-user=``."""
        return asyncio.run(self._do(path, command, {k.replace("_", "-"): v for k, v in given.items()}))

    async def _do(self, path: str, command: str, given: dict[str, str | int | bool]) -> object:
        return await Dispatcher(self.management).run(
            bind(path, command, given), lambda *step: self.progress.append(step)
        )

    def restarted(self) -> Site:
        """Give the appliance as it is after a restart: same disks, same store."""
        other = Site.__new__(Site)
        other.sp, other.store, other.disks, other.progress = FakeSp(self.sp.disks), self.store, self.disks, []
        other.sp.trees = self.sp.trees
        other._start()
        return other

    def snapshot(self) -> tuple[object, ...]:
        """Give all that a refused command must leave as it was."""
        sp = self.sp
        return (self.store.settings, dict(sp.attached), dict(sp.trees), sp.hosts, sp.exposures)


@pytest.fixture
def site() -> Site:
    """An appliance with nothing on it."""
    return Site()


@pytest.fixture
def furnished(site: Site) -> Site:
    """An appliance with four ALUs of 1 GiB, a pool, a volume, and two hosts of which one sees it."""
    for number in range(4):
        site.do("/alus", "attach", path=f"/x/a{number}.img", size="1G")
    site.do("/pools", "create", name="fast", alus="a0,a1,a2,a3")
    site.do("/volumes", "create", name="db", size="256M", layout="stripe-mirror", pool="fast")
    site.do("/hosts", "create", name="web1", iqn="iqn.2026-01.org.example:web1")
    site.do("/hosts", "create", name="any", iqn="*")
    outcome = site.do("/volumes/db", "expose", host="web1")
    assert isinstance(outcome, Outcome)
    return site
