"""A system of real processes: hosts write and check, and one process after the other is killed."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backstores.errors import TiergateError
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.questions import settle_attentions
from backstores.iscsi.initiator.target import RemoteTarget
from tests.support.system import System, system

BLOCK = 512
SPAN = 8000  # blocks that a host writes
TOPOLOGY = """
sps: 5
alus:
  - {{name: a0, path: {0}/a0.img, size: 64M, sps: [sp3, sp4]}}
  - {{name: a1, path: {0}/a1.img, size: 64M, sps: [sp4, sp3]}}
  - {{name: a2, path: {0}/a2.img, size: 64M, sps: [sp3, sp4]}}
  - {{name: a3, path: {0}/a3.img, size: 64M, sps: [sp4, sp3]}}
hosts:
  - {{name: web1, iqn: "iqn.2026-01.org.host:web1", ports: [sp1/hostA, sp2/hostB]}}
  - {{name: web2, iqn: "iqn.2026-01.org.host:web2", ports: [sp1/hostA, sp2/hostB]}}
"""


@dataclass
class Host:
    """Writes to its part of the volume over two paths, and reads back what it wrote. ``rounds`` counts."""

    number: int
    target: str
    port: int
    rounds: int = 0
    longest_s: float = 0.0
    failure: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=f"host {self.number}")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    async def _run(self) -> None:
        try:
            await self._work()
        except (TiergateError, AssertionError) as failure:
            self.failure = failure

    async def _work(self) -> None:
        identity = Identity(
            f"iqn.2026-01.org.host:web{self.number + 1}", self.target, isid=b"\x80\0\0\0" + bytes([self.number, 0])
        )
        endpoints = [Endpoint("127.103.0.1", self.port), Endpoint("127.104.0.2", self.port)]
        paths = RemoteTarget(endpoints, identity, patience=Patience(last_wait_s=1, deadline_s=60))
        await paths.open()
        await settle_attentions(paths, 0)
        dice, model, first = random.Random(self.number), dict[int, bytes](), self.number * SPAN
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            blocks = dice.randint(1, 64)
            lba = first + dice.randrange(SPAN - blocks)
            data = dice.randbytes(blocks * BLOCK)
            since_s = loop.time()
            await paths.execute(0, transfer(WRITE_16, lba, blocks), data_out=data)
            model |= {lba + at: data[at * BLOCK : (at + 1) * BLOCK] for at in range(blocks)}
            await self._check(paths, model, lba + dice.randrange(blocks))
            await self._check(paths, model, dice.choice(list(model)))
            self.longest_s = max(self.longest_s, loop.time() - since_s)
            self.rounds += 1
        for lba in model:
            await self._check(paths, model, lba)
        await paths.close()

    async def _check(self, paths: RemoteTarget, model: dict[int, bytes], lba: int) -> None:
        found = bytes(await paths.execute(0, transfer(READ_16, lba, 1), BLOCK))
        assert found == model[lba], f"block {lba} of host {self.number} is not what was written last"


@contextmanager
def two_hosts(running: System) -> Iterator[tuple[Host, Host]]:
    """Have two hosts at work on one volume while the context lasts."""
    running.say("/volumes", "create", "name=db", "size=16M", "layout=stripe-mirror")
    for name in ("web1", "web2"):
        running.say("/volumes/db", "expose", f"host={name}")
    target = str(running.sp("sp1")["target"])
    hosts = (Host(0, target, running.port), Host(1, target, running.port))
    try:
        yield hosts
    finally:
        for host in hosts:
            host.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[System]:
    with system(tmp_path / "system", TOPOLOGY.format(tmp_path)) as running:
        yield running


def go_on(running: System, hosts: tuple[Host, Host], rounds: int = 20) -> None:
    """Wait until both hosts have worked for a while since now."""
    goals = [host.rounds + rounds for host in hosts]
    running.until(
        lambda: all(host.failure or host.rounds >= goal for host, goal in zip(hosts, goals, strict=True)),
        "the hosts go on",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mic", "vcm", "mvsp", "sp1", "sp2", "sp3", "sp4"])
def test_no_host_sees_an_error_when_a_process_is_killed(running: System, name: str) -> None:
    """R9, C1: data goes on, over the other path if need be, and what was killed comes back."""
    with two_hosts(running) as hosts:
        go_on(running, hosts)
        victim = running.master() if name == "mvsp" else name
        running.signal(victim, signal.SIGKILL)
        go_on(running, hosts, 200)
    running.until(lambda: bool(running.master()), "there is an mvsp")
    (volume,) = running.say("/volumes", "list")
    assert volume["state"] == "on line"


@pytest.mark.slow
def test_an_mvsp_that_sleeps_is_replaced_and_ended(running: System) -> None:
    """R9: the role moves at once; who sleeps on is ended, for it holds what others need, and hosts only wait."""
    with two_hosts(running) as hosts:
        go_on(running, hosts)
        first = running.master()
        pid = running.signal(first, signal.SIGSTOP)
        running.until(lambda: running.master() not in ("", first), "another is the mvsp")
        create = ("/volumes", "create", "name=after", "size=1M", "layout=linear")
        running.until(lambda: running.run(*create).returncode == 0, "a change is carried out")
        running.until(lambda: running.sp(first)["state"] == "at work", "who slept was started again")
        assert running.pid(first) != pid
        go_on(running, hosts, 50)
    assert {str(row["name"]) for row in running.say("/volumes", "list")} == {"db", "after"}
