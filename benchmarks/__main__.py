"""Measure, print a table of ratios, and keep it in benchmarks/results/.

Targets are measured in turns, round after round, because these machines are shared and noisy; what is
printed are medians. All files lie in the page cache and are locked there. Each round starts every target
afresh, so that a median is one over starts, too.

Before it is measured each target is warmed with 1 MiB writes, for the sake of tgt: it allocates a buffer for each
command, and glibc maps, faults in and unmaps one of 128 KiB every time (33 page faults a command) until the first
larger one was freed, which raises glibc's thresholds (mallopt(3), M_MMAP_THRESHOLD). From then on tgt is up to twice as
fast at 128 KiB. We compare with it at its best.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import Measured, Work, build, load
from benchmarks.memory import idle_memory
from benchmarks.peers import tgt, tiergate

RESULTS = Path(__file__).parent / "results"
Runs = dict[tuple[Work, str], list[Measured]]
WORKS = (
    Work("read", "random", 4096, 32),
    Work("write", "random", 4096, 32),
    Work("read", "random", 4096, 1),
    Work("write", "random", 4096, 1),
    Work("read", "sequential", 128 << 10, 8),
    Work("write", "sequential", 128 << 10, 8),
    Work("read", "sequential", 1 << 20, 4),
    Work("write", "sequential", 1 << 20, 4),
)
WARM_UP = Work("write", "sequential", 1 << 20, 4)
WARM_UP_S = 0.5
GOALS = (3.0, 2.5, 1.2, 1.2, 1.0, 2.0, None, None)  # through stripe over mirror; what the project set itself


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--size", type=int, default=512, help="of the volumes, in MiB")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the files are made")
    options = parser.parse_args()
    build()
    measured: Runs = {}
    for number in range(options.rounds):
        one_round(options.folder, options.size << 20, options.seconds, measured)
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    report(measured, idle_memory(options.folder))


def one_round(folder: Path, size_bytes: int, seconds: float, measured: Runs) -> None:
    """Start all targets, and measure all works on them, in turns."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as name, ExitStack() as stack:
        endpoints = [
            stack.enter_context(tgt(Path(name), size_bytes)),
            stack.enter_context(tiergate(Path(name), size_bytes, "linear", 1)),
            stack.enter_context(tiergate(Path(name), size_bytes, "stripe-mirror", 4)),
        ]
        for endpoint in endpoints:
            load(endpoint, WARM_UP, WARM_UP_S)
        for work in WORKS:
            for endpoint in endpoints:
                os.sync()  # or what was written before, by another target or to fill a file, would be written back now
                measured.setdefault((work, endpoint.name), []).append(load(endpoint, work, seconds))


def report(measured: Runs, memory: dict[str, float]) -> None:
    """Print the table, and keep it."""
    iops = {key: statistics.median(m.iops for m in runs) for key, runs in measured.items()}
    cpu_us = {key: statistics.median(m.cpu_us for m in runs) for key, runs in measured.items()}
    base, *others = dict.fromkeys(name for _, name in measured)
    lines = [
        f"| work | {base}: per second (CPU µs) | " + " | ".join(f"{e}: ratio (CPU µs)" for e in others) + " | goal |",
        "|---" * (len(others) + 3) + "|",
    ]
    for work, goal in zip(WORKS, GOALS, strict=True):
        ratios = [f"{iops[work, e] / iops[work, base]:.2f} ({cpu_us[work, e]:,.1f})" for e in others]
        first = f"{iops[work, base]:,.0f} ({cpu_us[work, base]:,.1f})"
        lines.append(f"| {work.name} | {first} | " + " | ".join(ratios) + f" | {goal or ''} |")
    lines += ["", *(f"- {what}: {value:.1f}" for what, value in memory.items())]
    text = "\n".join(lines)
    print(text)
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    head = f"# {now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Python {platform.python_version()}\n\n"
    (RESULTS / "latest.md").write_text(head + text + "\n")
    raw = {f"{work.name}: {name}": [asdict(m) for m in runs] for (work, name), runs in measured.items()}
    (RESULTS / "latest.json").write_text(json.dumps({"runs": raw, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
