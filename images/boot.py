"""``make boot``: the image in QEMU, with two disks for data, and the portal on this machine's loopback.

    python -m images.boot [--port 3260] [--accel auto|kvm|tcg] [--uefi] [--key FILE [--ssh-port 2222]] [--folder DIR]

What the machine writes is kept in the folder, so that the next boot goes on where this one ended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstores.errors import TiergateError
from images.machine import QEMU, Accelerator, Machine, check_port, make_data_disk, uefi, usable
from images.tools import IMAGE, ImageError, need

DATA_DISKS: Final = 2
DATA_SIZE: Final = "8G"
NOTICE: Final = """\
The guest runs under {accelerator} ({why}). Its serial console is this terminal; the first boot takes {patience}.
Ctrl-A X switches it off; `exit` and `poweroff` do it gently.
From this machine:    iscsi-ls iscsi://127.0.0.1:{port}
"""
PATIENCE: Final = {Accelerator.KVM: "some seconds", Accelerator.TCG: "one or two minutes"}


@dataclass(frozen=True, slots=True)
class Options:
    """What stands on the command line."""

    folder: Path
    port: int
    accel: Accelerator
    uefi: bool
    key: Path | None
    ssh_port: int


def main(argv: Sequence[str]) -> int:
    """Become QEMU; give an exit status where that can't be."""
    options = parse(argv)
    try:
        machine, why = prepare(options)
    except TiergateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    accelerator = machine.accelerator
    print(NOTICE.format(accelerator=accelerator.upper(), why=why, patience=PATIENCE[accelerator], port=options.port))
    sys.stdout.flush()
    return os.execvp(QEMU, [*machine.command(), "-serial", "mon:stdio"])


def parse(argv: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make boot", description="Boot the VM image in QEMU.")
    parser.add_argument("--folder", type=Path, default=Path("var/boot"), help="where the machine's disks are kept")
    parser.add_argument("--port", type=int, default=3260, help="port of 127.0.0.1 that leads to the portal")
    parser.add_argument("--accel", type=Accelerator, choices=list(Accelerator), default=Accelerator.AUTO)
    parser.add_argument("--uefi", action="store_true", help="start by UEFI instead of BIOS")
    parser.add_argument("--key", type=Path, help="a public key that may log in by SSH, as root")
    parser.add_argument("--ssh-port", type=int, default=2222, help="port of 127.0.0.1 that leads to SSH, with --key")
    return Options(**vars(parser.parse_args(list(argv))))


def prepare(options: Options) -> tuple[Machine, str]:
    """Make what the machine needs, and say why its accelerator was chosen.

    Raises:
        ImageError: something is missing or taken.
    """
    need(QEMU, "qemu-img")
    if not IMAGE.exists():
        raise ImageError(f"there is no image yet ({IMAGE}): type `make image`")
    key = _read_key(options.key) if options.key else ""
    check_port(options.port, "PORT")
    if key:
        check_port(options.ssh_port, "SSH_PORT")
    options.folder.mkdir(parents=True, exist_ok=True)
    accelerator, why = usable(options.accel)
    machine = Machine(
        system=_system_disk(options.folder),
        data=tuple(
            make_data_disk(options.folder / f"data{number}.qcow2", DATA_SIZE) for number in range(1, DATA_DISKS + 1)
        ),
        portal_port=options.port,
        ssh_port=options.ssh_port if key else 0,
        ssh_key=key,
        accelerator=accelerator,
        firmware=uefi(options.folder) if options.uefi else None,
    )
    return machine, why


def _system_disk(folder: Path) -> Path:
    """Give the machine its own copy of the image: it keeps its settings when the image is built anew."""
    system = folder / "system.qcow2"
    if not system.exists():
        shutil.copyfile(IMAGE, system)
    elif system.stat().st_mtime < IMAGE.stat().st_mtime:
        print(f"note: {system} was made of an older image; delete it to boot the new one")
    return system


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ImageError(f"key {path} can't be read: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
