"""Measure, print a table of ratios, and keep it in benchmarks/results/.

Targets are measured in turns, round after round, because these machines are shared and noisy; what is
printed are medians. All files lie in the page cache and are locked there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load import Endpoint, Measured, Work, build, load
from benchmarks.memory import idle_memory
from benchmarks.peers import tgt, tiergate

RESULTS = Path(__file__).parent / "results"
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
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-") as name, ExitStack() as stack:
        folder, size = Path(name), options.size << 20
        endpoints = [
            stack.enter_context(tgt(folder, size)),
            stack.enter_context(tiergate(folder, size, "linear", 1)),
            stack.enter_context(tiergate(folder, size, "stripe-mirror", 4)),
        ]
        measured = measure(endpoints, options.rounds, options.seconds)
    report(endpoints, measured, idle_memory(options.folder))


def measure(endpoints: list[Endpoint], rounds: int, seconds: float) -> dict[tuple[Work, str], list[Measured]]:
    """Measure all works on all targets, in turns."""
    found: dict[tuple[Work, str], list[Measured]] = {}
    for number in range(rounds):
        for work in WORKS:
            for endpoint in endpoints:
                found.setdefault((work, endpoint.name), []).append(load(endpoint, work, seconds))
        print(f"round {number + 1} of {rounds} done", flush=True)
    return found


def report(
    endpoints: list[Endpoint], measured: dict[tuple[Work, str], list[Measured]], memory: dict[str, float]
) -> None:
    """Print the table, and keep it."""
    median = {key: statistics.median(m.iops for m in runs) for key, runs in measured.items()}
    base = endpoints[0].name
    lines = [
        f"| work | {base}, per second | " + " | ".join(f"{e.name}: ratio" for e in endpoints[1:]) + " | goal |",
        "|---" * (len(endpoints) + 2) + "|",
    ]
    for work, goal in zip(WORKS, GOALS, strict=True):
        ratios = [f"{median[work, e.name] / median[work, base]:.2f}" for e in endpoints[1:]]
        lines.append(f"| {work.name} | {median[work, base]:,.0f} | " + " | ".join(ratios) + f" | {goal or ''} |")
    lines += ["", *(f"- {what}: {value:.1f}" for what, value in memory.items())]
    text = "\n".join(lines)
    print(text)
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    head = f"# {now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Python {platform.python_version()}\n\n"
    (RESULTS / "latest.md").write_text(head + text + "\n")
    raw = {f"{work.name}: {name}": [m.iops for m in runs] for (work, name), runs in measured.items()}
    (RESULTS / "latest.json").write_text(json.dumps({"iops": raw, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
