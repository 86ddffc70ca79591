"""A guest kernel as an ordinary process of the host: it boots, runs one test, and is gone without a trace.

The guest works on the host's own file tree: the tree is its lower, read-only layer, and a file system in its
memory takes all that it writes. So a test finds the project, its virtual environment and every tool where they are,
and leaves nothing behind. What crosses the border is text: a job (a file that the guest reads) goes in, the
console comes out, and in it one verdict line that bears a word only this guest was told.

``UserModeLinux`` is Debian's kernel as a process: it boots in two seconds and runs at full speed, but has one CPU.
``Qemu`` is a machine with two CPUs that run at the same time, for races. It is emulated, so everything takes some ten
times as long: a nested KVM, where there is one, hangs more often than not. Both start the same ``init.py``.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from tests.guest import boot_files

INIT: Final = Path(__file__).with_name("init.py")
PROJECT: Final = boot_files.PROJECT
MEMORY: Final = Path("/dev/shm")  # where a guest keeps its memory, if it can; the file has no name
PIECE_BYTES: Final = 1 << 16
QEMU: Final = "qemu-system-x86_64"
MACHINE: Final = "pc,usb=off,vmport=off,smbus=off"
QUICK_BOOT: Final = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable random.trust_cpu=on "
    "selinux=0 apparmor=0 audit=0 nowatchdog rcupdate.rcu_expedited=1"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What a guest is told: the command to run in the project's folder, and the kernel modules it needs."""

    command: tuple[str, ...]
    modules: tuple[str, ...]
    modules_folder: str  # where in the host's tree they lie, a folder for each release
    environment: Mapping[str, str]
    verdict: str  # the word that the verdict line begins with


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guest ended. ``status`` is the command's exit status; None: the guest gave no verdict."""

    status: int | None
    console: str


class Kernel(Protocol):
    """Something that boots a guest for a job, with the host's tree as its root, and ``init.py`` as process 1."""

    @property
    def name(self) -> str:
        """Give the name by which a person chooses it."""

    @property
    def modules(self) -> str:
        """Say where its modules lie: a folder with one for each release."""

    @property
    def slowness(self) -> int:
        """Say how much more time everything needs than on the host."""

    def missing(self) -> str | None:
        """Say what has to be installed before it can boot; None: nothing."""

    def command_line(self, job: Path, folder: Path) -> Sequence[str]:
        """Give the process that is the guest; ``folder`` is for what it needs while it runs."""


class UserModeLinux:
    """Debian's user-mode-linux."""

    name: Final = "uml"
    modules: Final = "/usr/lib/uml/modules"
    slowness: Final = 1

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


class Qemu:
    """Debian's ordinary kernel on an emulated machine with two CPUs, its files made by ``boot_files``."""

    name: Final = "qemu"
    modules: Final = str(boot_files.MODULES)
    slowness: Final = 6

    def missing(self) -> str | None:
        """Say what has to be installed."""
        if not shutil.which(QEMU):
            return "qemu-system-x86"
        return None if boot_files.INITRAMFS.exists() else f"{boot_files.PACKAGE}, unpacked by scripts/setup.sh test"

    def command_line(self, job: Path, folder: Path) -> Sequence[str]:
        """Give the machine: no device but the console and the host's tree, read-only.

        It is a whole PC and no microvm, whose only clock at the start is a timer that the emulation can't keep.
        """
        environment = f"TIERGATE_JOB={job} TIERGATE_PYTHON={sys.executable} TIERGATE_INIT={INIT}"
        return (
            *(QEMU, "-machine", MACHINE, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1G"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(boot_files.KERNEL), "-initrd", str(boot_files.INITRAMFS)),
            *("-fsdev", "local,id=tree,path=/,readonly=on,security_model=none,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev=tree,mount_tag={boot_files.TREE_TAG}"),
            *("-append", f"{QUICK_BOOT} {environment}"),
        )


KERNELS: Final[Mapping[str, Kernel]] = {kernel.name: kernel for kernel in (UserModeLinux(), Qemu())}


Heard = Callable[[int, str], None]
"""Hear a line of the console when it comes; the number is that of the guest's process group."""


def run(
    kernel: Kernel,
    command: Sequence[str],
    modules: Sequence[str],
    deadline_s: float,
    heard: Heard = lambda group, line: None,
) -> Outcome:
    """Run a command in a guest of its own. ``deadline_s`` is for a kernel as fast as the host's."""
    environment = {"TIERGATE_GUEST": kernel.name, "TIERGATE_SLOWNESS": str(kernel.slowness)}
    job = Job(tuple(command), tuple(modules), kernel.modules, environment, f"verdict-{secrets.token_hex(8)}")
    with tempfile.TemporaryDirectory(prefix="tiergate-guest-") as name:
        folder = Path(name)
        (folder / "job").write_text(json.dumps(asdict(job)))
        guest = _boot(kernel.command_line(folder / "job", folder), folder)
        try:
            verdict = re.compile(rf"^{job.verdict} (\d+)\r?$".encode(), re.MULTILINE)
            return _watch(guest, verdict, deadline_s * kernel.slowness, heard)
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


def _watch(guest: subprocess.Popen[bytes], verdict: re.Pattern[bytes], deadline_s: float, heard: Heard) -> Outcome:
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
        *lines, _ = (text[text.rfind(b"\n") + 1 :] + piece).split(b"\n")
        text += piece
        for line in lines:
            heard(guest.pid, line.decode(errors="replace").rstrip("\r"))
    return Outcome(int(found[1]) if found else None, text.decode(errors="replace").replace("\r", ""))
