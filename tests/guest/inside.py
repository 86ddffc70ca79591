"""What tests do inside a guest: run tools, set LIO's configfs by hand, and log in to what it serves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeVar

T = TypeVar("T")

CONFIGFS: Final = Path("/sys/kernel/config")
TARGET: Final = CONFIGFS / "target"
PATIENCE_S: Final = 20.0 * int(os.environ.get("TIERGATE_SLOWNESS", 1))
POLL_S: Final = 0.02
INITIATOR: Final = "iqn.2026-11.example.tiergate:guest"


@dataclass
class Guest:
    """The machine: what it starts ends with the test."""

    folder: Path
    _ends: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        if CONFIGFS.exists() and not CONFIGFS.is_mount():  # it comes with the modules that use it
            self.sh(f"mount -t configfs configfs {CONFIGFS}")
        self.sh("ip link set lo up")
        return self

    def __exit__(self, *details: object) -> None:
        self._ends.close()

    def sh(self, command: str) -> str:
        """Run a shell command that must succeed, and give what it prints."""
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def fails(self, command: str) -> str:
        """Run a shell command that must not succeed, and give what it prints."""
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode != 0, f"{command}: succeeded\n{done.stdout}"
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process; it is killed at the end if it still runs."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        # It is not waited for: a process that waits for a disk without handler would never end. The guest does.
        self._ends.callback(process.kill)
        return process

    def until(self, what: str, found: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
        """Wait for something that gives no event."""
        end_s = time.monotonic() + patience_s
        while (result := found()) is None:
            assert time.monotonic() < end_s, f"no {what} within {patience_s:g} s"
            time.sleep(POLL_S)
        return result

    def kernel_lines(self, pattern: str) -> list[str]:
        """Give the lines of the kernel's log in which a pattern is found, in upper or lower case."""
        said = re.compile(pattern, re.IGNORECASE)
        return [line for line in self.sh("dmesg").splitlines() if said.search(line)]

    # open-iscsi

    def start_initiator(self, name: str = INITIATOR) -> None:
        """Start open-iscsi's daemon under an initiator name."""
        for folder in ("/etc/iscsi", "/run/lock/iscsi"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        Path("/etc/iscsi/initiatorname.iscsi").write_text(f"InitiatorName={name}\n")
        self.start("iscsid", "--foreground", "--no-pid-file")

    def log_in(self, iqn: str, portal: str = "127.0.0.1:3260", settings: tuple[str, ...] = ()) -> None:
        """Log in to a target; ``settings`` are open-iscsi's, as ``name=value``."""
        node = f"iscsiadm --mode node --targetname {iqn} --portal {portal}"
        self.sh(f"{node} --op new")
        for setting in settings:
            key, _, value = setting.partition("=")
            self.sh(f"{node} --op update --name {key} --value '{value}'")
        self.sh(f"{node} --login")

    def log_out(self, iqn: str) -> None:
        """Log out of a target."""
        self.sh(f"iscsiadm --mode node --targetname {iqn} --logout")

    def iscsi_disk(self, iqn: str, lun: int = 0) -> Path:
        """Wait for the disk that is a LUN of a target that was logged in to."""

        def look() -> Path | None:
            for session in Path("/sys/class/iscsi_session").glob("session*"):
                if (session / "targetname").read_text().strip() == iqn:
                    for block in session.glob(f"device/target*/*:{lun}/block/*"):
                        return _node(block.name)
            return None

        return self.until(f"disk for lun {lun} of {iqn}", look)

    # LIO by hand: no appliance is needed to test the handler

    def backstore(self, hba: int, name: str, size_bytes: int) -> Path:
        """Make a TCMU backstore and enable it; a handler is not waited for."""
        folder = TARGET / "core" / f"user_{hba}" / name
        folder.mkdir(parents=True)
        (folder / "control").write_text(
            f"dev_size={size_bytes},dev_config=tiergate/{name},hw_block_size=512,nl_reply_supported=-1"
        )
        (folder / "enable").write_text("1")
        (folder / "attrib" / "cmd_time_out").write_text("0")
        return folder

    def serve(self, hba: int, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a handler over a stripe of mirrors, and wait until it serves."""
        process = self.start(sys.executable, "-m", "tests.guest.serving", str(hba), name, str(self.folder), *options)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == b"ready\n", f"the handler said {line!r}, not that it is ready"
        return process

    def loop_disk(self, backstore: Path) -> Path:
        """Make a backstore a disk of this machine by tcm_loop."""
        nexus = "naa.6025447000000001"
        group = TARGET / "loopback" / nexus / "tpgt_1"
        if not group.exists():
            group.mkdir(parents=True)
            (group / "nexus").write_text("naa.6025447000000002\n")
        number = len(list((group / "lun").glob("lun_*")))
        lun = group / "lun" / f"lun_{number}"
        lun.mkdir(parents=True)
        (lun / "backstore").symlink_to(backstore)
        address = (group / "address").read_text().strip()

        def found() -> Path | None:
            names = (block.name for block in Path("/sys/bus/scsi/devices").glob(f"{address}:{number}/block/*"))
            return next((node for node in map(_node, names) if node is not None and _opens(node)), None)

        return self.until(f"disk for {backstore.name}", found)

    def iscsi_target(self, iqn: str, backstore: Path, portal: str = "127.0.0.1:3260") -> None:
        """Serve a backstore as LUN 0 of an open target."""
        group = TARGET / "iscsi" / iqn / "tpgt_1"
        group.mkdir(parents=True)
        for name, value in (
            ("authentication", "0"),
            ("generate_node_acls", "1"),
            ("demo_mode_write_protect", "0"),
            ("cache_dynamic_acls", "1"),
        ):
            (group / "attrib" / name).write_text(value)
        (group / "np" / portal).mkdir()
        lun = group / "lun" / "lun_0"
        lun.mkdir()
        (lun / "backstore").symlink_to(backstore)
        (group / "enable").write_text("1")


def _opens(node: Path) -> bool:
    """Whether a disk's driver is ready: its node is there somewhat earlier."""
    try:
        node.open("rb").close()
    except OSError:
        return False
    return True


def _node(name: str) -> Path | None:
    """Give a disk's node when all of the disk is there: the kernel makes its entry in /sys/block last."""
    node = Path("/dev", name)
    return node if node.exists() and Path("/sys/block", name, "device").exists() else None
