"""What LIO needs of the machine: root, kernel modules, configfs. Told in a line where it is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from appliance.lio.reservations import ROOT, folder
from backstores.errors import UsageError

MODULES: Final = ("target_core_user", "iscsi_target_mod")
CONFIGFS: Final = Path("/sys/kernel/config")
LEAST_KERNEL: Final = (6, 0)  # since then an ACL can do with CHAP, or without, whatever its portal group asks for


class LioMissing(UsageError):
    """LIO can't be used here. The message says what is missing, and what to type."""


def prepare(root: Path = ROOT) -> None:
    """Load the modules and mount configfs, where that has not been done.

    Raises:
        LioMissing: it can't be.
    """
    release = os.uname().release
    if os.geteuid() != 0:
        raise LioMissing(f"LIO needs root, and this is user id {os.geteuid()}: type `sudo tiergate serve`")
    if _version(release) < LEAST_KERNEL:
        raise LioMissing(f"LIO needs Linux {'.'.join(map(str, LEAST_KERNEL))} or later, and this is {release}")
    for module in MODULES:
        if not Path("/sys/module", module).exists():
            _run(["modprobe", module], f"the kernel ({release}) has no module {module}: install it")
    if not os.path.ismount(CONFIGFS):
        _run(["mount", "-t", "configfs", "configfs", str(CONFIGFS)], f"configfs is not mounted on {CONFIGFS}")
    # The folder of the fabric is there for all iSCSI targets of the machine: it is made, and never removed.
    (root / "iscsi").mkdir(exist_ok=True)
    _make_folder_of_reservations(folder(root))


def _make_folder_of_reservations(path: Path) -> None:
    """Make it, for without it the kernel would refuse every PERSISTENT RESERVE OUT."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LioMissing(f"LIO keeps reservations in {path}, which can't be made: {error.strerror}") from error


def _version(release: str) -> tuple[int, ...]:
    numbers = release.split("-", 1)[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


def _run(command: list[str], problem: str) -> None:
    """Run a tool that makes something be there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = f"{command[0]}: {error.strerror}"
    if reason:
        line = " ".join(reason.split())
        raise LioMissing(f"{problem}, then type `{' '.join(command)}` ({line})")
