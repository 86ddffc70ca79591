"""Process 1 of a guest: makes the host's tree writable for the guest alone, runs one command, and says how it went.

It runs before the project's packages can be imported with any certainty, so it uses the standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

Job = dict[str, Any]  # kernel.Job, as it comes out of JSON
FINIT_MODULE = 313  # the number of the system call on x86-64
STAGE = "/mnt"  # any empty folder that every Debian has
FRESH = {"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/run": "tmpfs", "/dev/shm": "tmpfs"}
NOT_RUN = 99
QUICK = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # a guest may be slow
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, where: str, options: str = "", source: str = "none") -> None:
    """mount(2), for /bin/mount would want /proc."""
    if libc.mount(source.encode(), where.encode(), kind.encode(), 0, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"can't mount {kind} on {where}: {os.strerror(number)}")


def load(module: Path) -> None:
    """finit_module(2), for modprobe would look in /lib/modules."""
    descriptor = os.open(module, os.O_RDONLY)
    if libc.syscall(FINIT_MODULE, descriptor, b"", 0):
        number = ctypes.get_errno()
        raise OSError(number, f"can't load {module}: {os.strerror(number)}")
    os.close(descriptor)


def enter_overlay(modules: str) -> None:
    """Change to a tree that is the host's, but keeps what is written in memory."""
    release = os.uname().release
    load(Path(modules, release, "kernel/fs/overlayfs/overlay.ko"))
    mount("tmpfs", STAGE, "size=75%")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{STAGE}/{name}")
    mount("overlay", f"{STAGE}/root", f"lowerdir=/,upperdir={STAGE}/upper,workdir={STAGE}/work")
    os.chroot(f"{STAGE}/root")
    os.chdir("/")
    for where, kind in FRESH.items():
        os.makedirs(where, exist_ok=True)
        mount(kind, where)
    link = Path("/lib/modules", release)
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"{modules}/{release}")


def run(job: Job) -> int:
    """Load the modules, run the command, and give its exit status."""
    os.environ.update(PATH=PATH, HOME="/root", **QUICK, **job["environment"])
    if job["modules"]:
        subprocess.run(["modprobe", "--all", *job["modules"]], check=True)
    os.chdir(Path(__file__).parents[2])
    status = subprocess.run(job["command"], check=False).returncode
    if status:
        print("the guest kernel's last messages:", flush=True)
        subprocess.run("dmesg | tail -n 40", shell=True, check=False)
    return status


def main() -> None:
    """Give the verdict, whatever happens; then the guest is ended from outside."""
    job: Job = json.loads(Path(os.environ["TIERGATE_JOB"]).read_text())
    status = NOT_RUN
    try:
        enter_overlay(job["modules_folder"])
        status = run(job)
    except BaseException:  # noqa: BLE001 (the edge of the guest's first process: the log must tell)
        traceback.print_exc()
    sys.stderr.flush()
    print(f"{job['verdict']} {status}", flush=True)
    while True:
        signal.pause()


main()
