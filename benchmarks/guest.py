"""The way through the kernel's target, measured in a guest kernel: ``python -m benchmarks.guest`` (``make bench``).

What is compared is how many commands a second of processor time carries out, the load generator's, the initiator's and
the target's own work included: the guest's processors do everything. So it does not matter what else the machine does,
which for a guest, whose every wake-up waits for the host's scheduler, would matter more than any target. User-Mode
Linux, the usual guest, has one processor, and a system call costs it ten microseconds; ``--kernel qemu`` has two,
emulated, where all work is slow alike.

User-Mode Linux is several processes of the host, of which one runs at a time. It is given one of the host's processors:
spread over two it costs up to three times as much, and another amount each time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.inside import BEGIN, COMMANDS, END, MODULES, TARGETS, TOOLS
from tests.guest.kernel import KERNELS, UserModeLinux, run

RESULTS: Final = Path(__file__).parent / "results"
CLOCK_HZ: Final = os.sysconf("SC_CLK_TCK")
Costs = dict[tuple[str, str], list[float]]
"""Microseconds of processor time a command, by work and target."""
GOALS: Final = ("linear 0.6 and 1.5 times tcmu-runner, stripe-mirror 0.4", "", "", "")
BOOT_S: Final = 240
ROUND_S: Final = 600


def main() -> None:
    """Run everything, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest", description=__doc__)
    parser.add_argument("--kernel", choices=sorted(KERNELS), default="uml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="this one only; may be repeated")
    options = parser.parse_args()
    kernel = KERNELS[options.kernel]
    if missing := kernel.missing():
        sys.exit(f"benchmarks in a guest are left out; not installed: {missing}")
    names = [name for name in options.target or TARGETS if shutil.which(TOOLS.get(name, "fio"))]
    command = (sys.executable, "-m", "benchmarks.inside", str(options.rounds), *names)
    if kernel.name == UserModeLinux.name:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    meter = Meter(names)
    outcome = run(kernel, command, MODULES, BOOT_S + options.rounds * ROUND_S, meter.heard)
    if outcome.status != 0:
        sys.exit(f"{outcome.console}\nthe guest failed (exit status {outcome.status}); above is its console")
    lines = table(meter.costs, names)
    lines += [f"- left out, not installed: {name}" for name in TARGETS if name not in names and not options.target]
    print(text := "\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    title = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, guest kernel {kernel.name} on {os.cpu_count()} cores"
    kept = f"latest.guest-{kernel.name}"
    (RESULTS / f"{kept}.md").write_text(f"# {title}, Python {platform.python_version()}\n\n{text}\n")
    raw = {f"{work}: {name}": costs for (work, name), costs in meter.costs.items()}
    (RESULTS / f"{kept}.json").write_text(json.dumps(raw, indent=1) + "\n")


class Meter:
    """Listens to a guest that measures targets in turns, and takes what each measurement costs."""

    def __init__(self, names: Sequence[str]) -> None:
        self.costs: Costs = {}
        self._turns = itertools.cycle(names)
        self._begin_s = self._load_generator_s = 0.0

    def heard(self, group: int, line: str) -> None:
        """Take a line of the guest's console."""
        if line == BEGIN:
            self._begin_s = processor_time(group)
        elif line.startswith(END):
            done = json.loads(line.removeprefix(END))
            cost_s = processor_time(group) - self._begin_s
            if done["commands"] == 1:
                self._load_generator_s = cost_s
            else:
                cost_us = (cost_s - self._load_generator_s) / done["commands"] * 1e6
                self.costs.setdefault((done["work"], next(self._turns)), []).append(cost_us)


def processor_time(group: int) -> float:
    """Give the processor time of a process group in seconds, that of ended children included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(") ")[2].split()  # from the third on, of proc(5)
            if int(fields[2]) == group:
                ticks += sum(map(int, fields[11:15]))
    return ticks / CLOCK_HZ


def table(costs: Costs, names: Sequence[str]) -> list[str]:
    """Make a table of medians; the first target is what the others are compared with."""
    base, *others = names
    lines = [
        f"| work | {base}: CPU µs | " + " | ".join(f"{name}: ratio (CPU µs)" for name in others) + " | goal |",
        "|---" * (len(others) + 3) + "|",
    ]
    for work, goal in zip(COMMANDS, GOALS, strict=True):
        medians = {name: statistics.median(costs[work.name, name]) for name in names}
        cells = [f"{medians[base] / medians[name]:.2f} ({medians[name]:,.0f})" for name in others]
        lines.append(f"| {work.name} | {medians[base]:,.0f} | " + " | ".join(cells) + f" | {goal} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
