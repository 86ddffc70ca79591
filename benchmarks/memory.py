"""What an appliance costs in memory: idle, and for each of many sessions."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

from benchmarks.load import Endpoint
from benchmarks.peers import tiergate
from tests.support.iscsi_client import Client, SocketChannel

SESSIONS = 1000
MIB = 1 << 20


def idle_memory(folder: Path) -> dict[str, float]:
    """Start an appliance with a stripe over mirrors, and log many sessions in."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as name,
        tiergate(Path(name), 64 * MIB, "stripe-mirror", 4) as endpoint,
    ):
        before = resident_bytes(endpoint.pid)
        channels = [_log_in(endpoint, number) for number in range(SESSIONS)]
        grown = resident_bytes(endpoint.pid) - before
        for channel in channels:
            channel.close()
    return {
        "resident memory of an idle appliance, MiB (goal: under 120)": before / MIB,
        f"resident memory of each of {SESSIONS:,} sessions, KiB (goal: under 64)": grown / SESSIONS / 1024,
    }


def resident_bytes(pid: int) -> int:
    """Give the resident set of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _log_in(endpoint: Endpoint, number: int) -> SocketChannel:
    channel = SocketChannel(("127.0.0.1", endpoint.port))
    client = Client(channel, f"iqn.2026-11.example.tiergate:bench-{number}")
    client.login(target=endpoint.target)
    return channel
