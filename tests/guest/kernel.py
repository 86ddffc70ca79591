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
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

INIT: Final = Path(__file__).with_name("init.py")
PROJECT: Final = INIT.parents[2]
MEMORY: Final = Path("/dev/shm")  # where a guest keeps its memory, if it can; the file has no name
PIECE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Tree:
    """How a guest mounts the host's file tree, and where in it its modules lie (a folder for each release)."""

    kind: str
    source: str
    options: str
    modules: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a guest is told: the command to run in the project's folder, and the kernel modules it needs."""

    command: tuple[str, ...]
    modules: tuple[str, ...]
    tree: Tree
    verdict: str  # the word that the verdict line begins with


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guest ended. ``status`` is the command's exit status; None: the guest gave no verdict."""

    status: int | None
    console: str


class Kernel(Protocol):
    """Something that boots a guest for a job, with the host's tree as its root, and ``init.py`` as process 1."""

    @property
    def tree(self) -> Tree:
        """Say how the guest comes by the host's tree."""

    def missing(self) -> str | None:
        """Say what has to be installed before it can boot; None: nothing."""

    def command_line(self, job: Path, folder: Path) -> Sequence[str]:
        """Give the process that is the guest; ``folder`` is for what it needs while it runs."""


class UserModeLinux:
    """Debian's user-mode-linux."""

    tree: Final = Tree("hostfs", "none", "/", "/usr/lib/uml/modules")

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
    job = Job(tuple(command), tuple(modules), kernel.tree, f"verdict-{secrets.token_hex(8)}")
    with tempfile.TemporaryDirectory(prefix="tiergate-guest-") as name:
        folder = Path(name)
        (folder / "job").write_text(json.dumps(asdict(job)))
        guest = _boot(kernel.command_line(folder / "job", folder), folder)
        try:
            return _watch(guest, re.compile(rf"^{job.verdict} (\d+)\r?$".encode(), re.MULTILINE), deadline_s)
        finally:
            # The guest is not asked to shut down: its disks may be gone, and it has nothing to save.
            with suppress(ProcessLookupError):
                os.killpg(guest.pid, signal.SIGKILL)
            guest.communicate()


def _boot(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a guest, whose processes are a group. If the test run is killed, it goes, too."""
    return subprocess.Popen(
        ("setpriv", "--pdeathsig", "TERM", *command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(MEMORY if MEMORY.is_dir() else folder)},
    )


def _watch(guest: subprocess.Popen[bytes], verdict: re.Pattern[bytes], deadline_s: float) -> Outcome:
    """Read the console until the verdict is there, the guest has ended, or time is up."""
    assert guest.stdout is not None
    console = guest.stdout.fileno()
    end_s = time.monotonic() + deadline_s
    text = b""
    while not (found := verdict.search(text)):
        readable, _, _ = select.select([console], [], [], max(0, end_s - time.monotonic()))
        if not readable:
            text += f"\nthe guest did not end within {deadline_s:g} s\n".encode()
            break
        piece = os.read(console, PIECE_BYTES)
        if not piece:
            break
        text += piece
    return Outcome(int(found[1]) if found else None, text.decode(errors="replace").replace("\r", ""))
