"""A guest kernel as an ordinary process of the host: it boots, runs one test, and is gone without a trace.

The guest works on the host's own file tree: the tree is its lower, read-only layer, and a file system in its
memory takes all that it writes. So a test finds the project, its virtual environment and every tool where they are,
and leaves nothing behind. What crosses the border is text: a job (a file that the guest reads) goes in, the
console comes out, and in it one verdict line that bears a word only this guest was told.

``UserModeLinux`` is Debian's kernel as a process: it boots in two seconds and needs no rights, but has one CPU.
Another kernel (QEMU with two CPUs, for races) is another implementation of ``Kernel`` with the same ``init.py``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

INIT: Final = Path(__file__).with_name("init.py")
PROJECT: Final = INIT.parents[2]
MEMORY: Final = Path("/dev/shm")  # where a guest keeps its memory, if it can; the file has no name
TERMINATION_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a guest is told: the command to run in the project's folder, and the kernel modules it needs."""

    command: tuple[str, ...]
    modules: tuple[str, ...]
    verdict: str  # the word that the verdict line begins with


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guest ended. ``status`` is the command's exit status; None: the guest gave no verdict."""

    status: int | None
    console: str


class Kernel(Protocol):
    """Something that boots a guest for a job."""

    def missing(self) -> str | None:
        """Say what has to be installed before it can boot; None: nothing."""

    def command_line(self, job: Path, folder: Path) -> Sequence[str]:
        """Give the process that is the guest; ``folder`` is for what it needs while it runs."""


class UserModeLinux:
    """Debian's user-mode-linux."""

    def missing(self) -> str | None:
        """Say what has to be installed."""
        return None if shutil.which("linux.uml") else "user-mode-linux"

    def command_line(self, job: Path, folder: Path) -> Sequence[str]:
        """Give the kernel's command line; what follows ``--`` is for ``init``, as is TIERGATE_JOB (by environment)."""
        return (
            *("linux.uml", "mem=1G", f"uml_dir={folder}", "con=null", "con0=fd:0,fd:1", "quiet", "selinux=0"),
            *("rootfstype=hostfs", "rootflags=/", "ro"),
            *(f"init={sys.executable}", f"TIERGATE_JOB={job}", "--", str(INIT)),
        )


def run(kernel: Kernel, command: Sequence[str], modules: Sequence[str], deadline_s: float) -> Outcome:
    """Run a command in a guest of its own."""
    job = Job(tuple(command), tuple(modules), f"verdict-{secrets.token_hex(8)}")
    with tempfile.TemporaryDirectory(prefix="tiergate-guest-") as name:
        folder = Path(name)
        (folder / "job").write_text(json.dumps(asdict(job)))
        _run_process(kernel.command_line(folder / "job", folder), folder, deadline_s)
        text = (folder / "console").read_text(errors="replace").replace("\r", "")
    found = re.search(rf"^{job.verdict} (\d+)$", text, re.MULTILINE)
    return Outcome(int(found[1]) if found else None, text)


def _run_process(command: Sequence[str], folder: Path, deadline_s: float) -> None:
    """Wait until the guest has ended, or make it end. Its processes are a group, none of which outlives this."""
    # A guest whose test run is killed goes with it.
    line = ("setpriv", "--pdeathsig", "TERM", *command)
    with (folder / "console").open("wb") as output:
        guest = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(MEMORY if MEMORY.is_dir() else folder)},
        )
        try:
            guest.wait(deadline_s)
        except subprocess.TimeoutExpired:
            output.write(f"\nthe guest did not end within {deadline_s:g} s\n".encode())
            guest.terminate()
            with suppress(subprocess.TimeoutExpired):
                guest.wait(TERMINATION_S)
        finally:
            with suppress(ProcessLookupError):  # the usual case: the whole group has ended
                os.killpg(guest.pid, signal.SIGKILL)
            guest.wait()
