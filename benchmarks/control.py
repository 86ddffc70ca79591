"""What a system of many storage processors costs: to start, to make volumes, to read through an RRN, and as it grows.

    python -m benchmarks.control

The first table is measured on real processes on this machine: the system of Fig. 10, then two small ones whose volume
lies with the storage processor that serves it (LRN) or with another (RRN), read side by side, in turns. The second is
the control plane in virtual time (``appliance.simulation.scale``): the real decision cores, and simulated ALUs.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.questions import settle_attentions
from backstores.iscsi.initiator.session import Session, connect
from backstores.iscsi.initiator.tasks import Task
from backstores.scsi.lun import encode
from cli.client import Client

SIZES: Final = ((10, 40, 100), (100, 400, 1000), (1000, 4000, 10_000))
FIG_10: Final = Path(__file__).parent.parent / "examples" / "fig10.yaml"
PORT: Final = 7860
VOLUMES: Final = 9  # made one after the other, for a median
VOLUME_BYTES: Final = 64 << 20
HOST: Final = "iqn.2026-11.example.tiergate:bench"
ROUNDS: Final = 3
SECONDS: Final = 1.0
WORKS: Final = (("4k random read qd32", 8, 32, 0.6), ("128k read qd8", 256, 8, 1.0))
TWO: Final = """
sps: 2
alus:
  - {{name: a0, path: a0.img, size: 128M, sps: [{0}]}}
hosts:
  - {{name: host1, iqn: "{1}", ports: [sp1/hostA]}}
"""


@contextmanager
def running(folder: Path, topology: Path) -> Iterator[tuple[Client, float, int]]:
    """Run a system; give a client, how long it took until it was ready, and its supervisor's process."""
    since_s = time.monotonic()
    line = [
        str(Path(sys.executable).with_name("tiergate")),
        "serve",
        "--state",
        str(folder),
        f"--topology={topology}",
        f"--port={PORT}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log) as process:
        assert process.stdout is not None
        if not process.stdout.readline().startswith(b"ready"):
            raise SystemExit(f"the system did not start:\n{(folder / 'log').read_text()}")
        try:
            yield Client(folder), time.monotonic() - since_s, process.pid
        finally:
            process.terminate()
            process.wait()


def say(client: Client, path: str, command: str, **given: str) -> Any:
    """Type a command."""
    return client.call(path, command, given, lambda text, done, total: None)


def private_mib(supervisor: int) -> Mapping[str, float]:
    """Give the private memory of each process of a system."""
    found = {}
    for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        name = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode().removeprefix("tiergate: ")
        rows = (line.split() for line in Path(f"/proc/{child}/smaps_rollup").read_text().splitlines())
        found[name] = sum(int(row[1]) for row in rows if row[0].startswith("Private_")) / 1024
    return found


def fig_10(folder: Path) -> list[str]:
    """Start the system of Fig. 10, and make volumes."""
    with running(folder, FIG_10) as (client, ready_s, supervisor):
        memory = [mib for name, mib in private_mib(supervisor).items() if name.startswith("sp")]
        took = []
        for number in range(VOLUMES):
            since_s = time.monotonic()
            say(client, "/volumes", "create", name=f"v{number}", size="64M", layout="stripe-mirror")
            took.append(time.monotonic() - since_s)
    return [
        f"| all of 16 storage processors ready, s | {ready_s:.1f} | under 5 |",
        f"| private memory of an idle one, median and most, MiB | {statistics.median(memory):.0f}, {max(memory):.0f} |"
        " under 25 |",
        f"| a volume created, median and most, s | {statistics.median(took):.2f}, {max(took):.2f} | under 0.5 |",
    ]


class Load:
    """Random reads of one size, so many at a time."""

    def __init__(self, session: Session, blocks: int) -> None:
        self._session = session
        self._blocks = blocks
        self._dice = random.Random(blocks)
        self._until_s = 0.0
        self.count = 0

    async def run(self, depth: int) -> float:
        """Read for a while; give reads per second."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        self.count, self._until_s = 0, since_s + SECONDS
        self._over: asyncio.Future[None] = loop.create_future()
        self._under_way = depth
        for _ in range(depth):
            self._next(memoryview(bytearray(self._blocks * 512)))
        await self._over
        return self.count / (loop.time() - since_s)

    def _next(self, into: memoryview) -> None:
        def done(task: Task) -> None:
            assert task.status == 0, f"a read has failed with status {task.status}"
            self.count += 1
            if asyncio.get_running_loop().time() < self._until_s:
                self._next(into)
                return
            self._under_way -= 1
            if not self._under_way:
                self._over.set_result(None)

        lba = self._dice.randrange(VOLUME_BYTES // 512 // self._blocks) * self._blocks
        self._session.read(encode(0), lba, self._blocks, into, done)


async def read(target: str, blocks: int, depth: int) -> float:
    """Log in as the host, and read."""
    identity = Identity(HOST, target, isid=b"\x80\0\0\1\0\0")
    session = await connect(Endpoint("127.103.0.1", PORT), identity)
    await settle_attentions(session, 0)
    rate = await Load(session, blocks).run(depth)
    await session.close()
    return rate


def through(folder: Path, sp: str) -> dict[str, float]:
    """Measure reads at sp1 of a volume that lies with some storage processor."""
    folder.mkdir()
    topology = folder / "topology.yaml"
    topology.write_text(TWO.format(sp, HOST))
    with running(folder, topology) as (client, _, _):
        say(client, "/volumes", "create", name="v", size="64M", layout="linear")
        say(client, "/volumes/v", "expose", host="host1")
        target = str(say(client, "/sps", "status")[0]["target"])
        return {name: asyncio.run(read(target, blocks, depth)) for name, blocks, depth, _ in WORKS}


def references(folder: Path) -> list[str]:
    """Compare reads through a remote reference node with reads through a local one."""
    rates: dict[str, list[dict[str, float]]] = {"sp1": [], "sp2": []}
    for turn in range(ROUNDS):
        for sp, found in rates.items():
            found.append(through(folder / f"{sp}-{turn}", sp))
    rows = []
    for name, _, _, goal in WORKS:
        local, remote = (statistics.median(one[name] for one in rates[sp]) for sp in ("sp1", "sp2"))
        text = f"{local:,.0f} by LRN, {remote:,.0f} by RRN: {remote / local:.2f}"
        rows.append(f"| {name}, per second | {text} | {goal} |")
    return rows


def growth() -> list[str]:
    """Initialize ever larger systems in virtual time, a process for each."""
    rows = ["| SPs | ALUs | volumes | messages | most orders a volume | processor, s |", "|---|---|---|---|---|---|"]
    code = (
        "from appliance.simulation.scale import initialize;"
        " found = initialize(*{}); print(found.messages, found.orders_a_volume, found.cpu_s)"
    )
    for size in SIZES:
        out = subprocess.run(
            [sys.executable, "-c", code.format(size)], capture_output=True, text=True, check=True
        ).stdout
        messages, orders, cpu_s = out.split()
        rows.append(f"| {size[0]:,} | {size[1]:,} | {size[2]:,} | {int(messages):,} | {orders} | {float(cpu_s):.1f} |")
    return rows


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tiergate-bench-") as name:
        folder = Path(name)
        (folder / "fig10").mkdir()
        rows = ["| what | seen | goal |", "|---|---|---|", *fig_10(folder / "fig10"), *references(folder)]
    print("\n".join([*rows, "", *growth()]))


if __name__ == "__main__":
    main()
