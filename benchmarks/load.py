"""Load: what is done to a target, and the C program that does it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = HERE / "build" / "loadgen"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a load generator logs in. ``pid`` is the target's process."""

    name: str
    port: int
    target: str
    lun: int
    pid: int


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of load: one connection that always has ``depth`` commands under way."""

    direction: str  # read or write
    order: str  # random or sequential
    block_bytes: int
    depth: int

    @property
    def name(self) -> str:
        """The form that stands in tables."""
        size = f"{self.block_bytes >> 10}k" if self.block_bytes < 1 << 20 else f"{self.block_bytes >> 20}M"
        return f"{size} {self.order} {self.direction} qd{self.depth}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it."""

    iops: float
    mb_s: float
    p50_us: float
    p99_us: float
    cpu_us: float  # of the target, for each command: what else runs on the machine hardly changes it


def build() -> None:
    """Compile the load generator."""
    PROGRAM.parent.mkdir(exist_ok=True)
    source = HERE / "loadgen.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(PROGRAM), str(source)], check=True)


def load(endpoint: Endpoint, work: Work, seconds: float) -> Measured:
    """Put load on a target; 0 seconds go through the whole device once."""
    words = [
        *("127.0.0.1", endpoint.port, endpoint.target, endpoint.lun),
        *(work.direction, work.order, work.block_bytes, work.depth, seconds),
    ]
    before_s = cpu_s(endpoint.pid)
    done = subprocess.run([str(PROGRAM), *map(str, words)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    spent_s = cpu_s(endpoint.pid) - before_s
    return Measured(cpu_us=spent_s / max(1, found.pop("commands")) * 1e6, **found)


def cpu_s(pid: int) -> float:
    """Give the processor time that a process has used up, in user mode and in the kernel (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
