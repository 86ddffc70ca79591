"""Inside of a guest kernel: the kernel's target over several backstores, its own initiator, and fio.

    python -m benchmarks.inside ROUNDS TARGET...

Every target has its file in one tmpfs, so that what is compared is the way and not a disk. All of them are logged in to
by open-iscsi over the guest's loopback. Each measurement prints a line when it begins, and one when it ends that tells
what was done, so that the host can say what it cost the guest. One of a single command comes before: what the load
generator itself needs to start and end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.load import Work
from tests.guest.inside import INITIATOR, TARGET, Guest
from tests.support.appliance import Appliance

BEGIN: Final = "measurement begins"
END: Final = "measurement ended: "
SIZE_BYTES: Final = 64 << 20
FOLDER: Final = Path("/run/bench")
PREFIX: Final = "iqn.2026-11.example.bench"
MODULES: Final = ("target_core_user", "target_core_file", "iscsi_target_mod", "iscsi_tcp", "sd_mod")
COMMANDS: Final = {
    Work("read", "random", 4096, 32): 16384,
    Work("write", "random", 4096, 32): 16384,
    Work("read", "sequential", 1 << 20, 4): 2048,
    Work("write", "sequential", 1 << 20, 4): 2048,
}
"""What is measured, and how many commands of it at a time."""


@contextmanager
def lio_fileio(guest: Guest) -> Iterator[Path]:
    """Serve a file by LIO alone."""
    (folder := TARGET / "core" / "fileio_0" / "f").mkdir(parents=True)
    (folder / "control").write_text(f"fd_dev_name={FOLDER}/fileio,fd_dev_size={SIZE_BYTES},fd_buffered_io=1")
    (folder / "enable").write_text("1")
    guest.iscsi_target(f"{PREFIX}:fileio", folder, "127.0.0.1:3261")
    yield log_in(guest, f"{PREFIX}:fileio", 3261)


@contextmanager
def tcmu_runner(guest: Guest) -> Iterator[Path]:
    """Serve a file by LIO and tcmu-runner. Debian packages no handler for plain files, but qcow's takes them, too."""
    path = FOLDER / "runner"
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
    guest.sh("mkdir -p /run/dbus && dbus-daemon --system --fork")
    guest.start("tcmu-runner")
    said = Path("/var/log/tcmu-runner.log")
    guest.until("handler", lambda: (said.exists() and "qcow is registered" in said.read_text()) or None)
    (folder := TARGET / "core" / "user_0" / "r").mkdir(parents=True)
    (folder / "control").write_text(f"dev_size={SIZE_BYTES},dev_config=qcow/{path},hw_block_size=512")
    (folder / "enable").write_text("1")
    guest.iscsi_target(f"{PREFIX}:runner", folder, "127.0.0.1:3262")
    yield log_in(guest, f"{PREFIX}:runner", 3262)


@contextmanager
def tgt(guest: Guest) -> Iterator[Path]:
    """Serve a file by tgtd."""
    iqn, path = f"{PREFIX}:tgt", FOLDER / "tgt"
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
    process = guest.start("tgtd", "--foreground", "--iscsi", "portal=127.0.0.1:3263")
    admin = "tgtadm --lld iscsi --op"
    guest.until("tgtd", lambda: subprocess.run(f"{admin} show --mode target", shell=True).returncode == 0 or None)
    guest.sh(f"{admin} new --mode target --tid 1 --targetname {iqn}")
    guest.sh(f"{admin} new --mode logicalunit --tid 1 --lun 1 --backing-store {path} --bstype rdwr")
    guest.sh(f"{admin} bind --mode target --tid 1 --initiator-address ALL")
    yield log_in(guest, iqn, 3263, lun=1)
    process.kill()


def tiergate(layout: str, alus: int, port: int) -> Target:
    """Serve a volume by LIO and the appliance."""

    @contextmanager
    def served(guest: Guest) -> Iterator[Path]:
        iqn = f"{PREFIX}:{layout}"
        (folder := FOLDER / layout).mkdir()
        appliance = Appliance(folder, port=port)
        appliance.start("--frontend", "lio", "--iqn", iqn)
        names = [f"a{number}" for number in range(alus)]
        for name in names:
            appliance.say("/alus", "attach", f"path={folder}/{name}", "size=128M", f"name={name}")
        appliance.say(
            "/volumes", "create", "name=v", f"size={SIZE_BYTES}", f"layout={layout}", f"alus={','.join(names)}"
        )
        appliance.say("/hosts", "create", "name=any", "iqn=*")
        appliance.say("/volumes/v", "expose", "host=any", "lun=0")
        yield log_in(guest, iqn, port)
        appliance.stop()

    return served


Target = Callable[[Guest], AbstractContextManager[Path]]
TARGETS: Final[Mapping[str, Target]] = {
    "LIO fileio": lio_fileio,
    "tiergate, linear": tiergate("linear", 1, 3264),
    "tiergate, stripe-mirror": tiergate("stripe-mirror", 4, 3265),
    "tcmu-runner": tcmu_runner,
    "tgt": tgt,
}
TOOLS: Final = {"tcmu-runner": "tcmu-runner", "tgt": "tgtd"}
"""What has to be installed for a target."""


def log_in(guest: Guest, iqn: str, port: int, lun: int = 0) -> Path:
    """Log in to a target, and write its disk once: no file has holes then."""
    guest.log_in(iqn, f"127.0.0.1:{port}")
    disk = guest.iscsi_disk(iqn, lun)
    guest.sh(f"dd if=/dev/zero of={disk} bs=64k oflag=direct count={SIZE_BYTES >> 16}")
    return disk


def measure(guest: Guest, disk: Path, work: Work, commands: int) -> None:
    """Have a disk carry out commands, and tell the host."""
    order = work.direction if work.order == "sequential" else f"rand{work.direction}"
    print(BEGIN, flush=True)
    guest.sh(
        f"fio --name=load --filename={disk} --rw={order} --bs={work.block_bytes} --iodepth={work.depth} "
        f"--ioengine=libaio --direct=1 --io_size={commands * work.block_bytes}"
    )
    print(END, json.dumps({"work": work.name, "commands": commands}), flush=True)


def main(rounds: int, names: Sequence[str]) -> None:
    """Measure all works on all targets, in turns, and before each the load generator alone."""
    FOLDER.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70%", "none", FOLDER], check=True)
    with Guest(FOLDER) as guest, ExitStack() as stack:
        guest.start_initiator(INITIATOR)
        disks = {name: stack.enter_context(TARGETS[name](guest)) for name in names}
        for _ in range(rounds):
            for work in COMMANDS:
                for disk in disks.values():
                    measure(guest, disk, work, 1)
                    measure(guest, disk, work, COMMANDS[work])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
