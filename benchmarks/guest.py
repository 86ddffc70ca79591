"""The way through the kernel's target, measured in a guest kernel: ``python -m benchmarks.guest`` (``make bench``).

All targets share the guest's processors with the load, so a ratio is one of what a command costs in all. Their files
lie in one tmpfs. User-Mode Linux, the usual guest, has one processor, and a system call costs it tens of microseconds;
``--kernel qemu`` has two, emulated, where all work is slow alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.inside import MODULES, TARGETS, TOOLS, WORKS
from tests.guest.kernel import KERNELS, run

RESULTS: Final = Path(__file__).parent / "results"
Measured = dict[str, list[float]]
GOALS: Final = ("linear 0.6 and 1.5 times tcmu-runner, stripe-mirror 0.4", "", "", "")
BOOT_S: Final = 120


def main() -> None:
    """Run everything, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest", description=__doc__)
    parser.add_argument("--kernel", choices=sorted(KERNELS), default="uml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="this one only; may be repeated")
    options = parser.parse_args()
    kernel = KERNELS[options.kernel]
    if missing := kernel.missing():
        sys.exit(f"benchmarks in a guest are left out; not installed: {missing}")
    names = [name for name in options.target or TARGETS if shutil.which(TOOLS.get(name, "fio"))]
    command = (sys.executable, "-m", "benchmarks.inside", str(options.rounds), str(options.seconds), *names)
    deadline_s = BOOT_S + 2 * options.rounds * len(WORKS) * len(names) * (options.seconds + 1)
    outcome = run(kernel, command, MODULES, deadline_s)
    if outcome.status != 0:
        sys.exit(f"{outcome.console}\nthe guest failed (exit status {outcome.status}); above is its console")
    (line,) = [line for line in outcome.console.splitlines() if line.startswith("{")]
    lines = table(json.loads(line), names)
    lines += [f"- left out, not installed: {name}" for name in TARGETS if name not in names and not options.target]
    print(text := "\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    title = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, guest kernel {kernel.name} on {os.cpu_count()} cores"
    kept = f"latest.guest-{kernel.name}"
    (RESULTS / f"{kept}.md").write_text(f"# {title}, Python {platform.python_version()}\n\n{text}\n")
    (RESULTS / f"{kept}.json").write_text(line + "\n")


def table(measured: Measured, names: Sequence[str]) -> list[str]:
    """Make a table of medians; the first target is what the others are compared with."""
    base, *others = names
    lines = [
        f"| work | {base}: per second | " + " | ".join(f"{name}: ratio" for name in others) + " | goal |",
        "|---" * (len(others) + 3) + "|",
    ]
    for work, goal in zip(WORKS, GOALS, strict=True):
        medians = {name: statistics.median(measured[f"{work.name}: {name}"]) for name in names}
        cells = [f"{medians[name] / medians[base]:.2f}" for name in others]
        lines.append(f"| {work.name} | {medians[base]:,.0f} | " + " | ".join(cells) + f" | {goal} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
