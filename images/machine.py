"""The virtual machine that the image is booted in: QEMU's command line, and whether KVM can be used."""

from __future__ import annotations

import base64
import enum
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.tools import KERNEL, ImageError, run

QEMU: Final = "qemu-system-x86_64"
OVMF: Final = Path("/usr/share/OVMF")
FIRMWARE: Final = ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
PROBE_S: Final = 20  # a kernel that finds no disk has given up after two, where KVM works
PORTAL_PORT: Final = 3260
SSH_PORT: Final = 22


class Accelerator(enum.StrEnum):
    """Who runs the guest's instructions."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"  # QEMU itself, some 15 times slower


OPTIONS: Final = {
    Accelerator.KVM: ("-accel", "kvm", "-cpu", "host"),
    Accelerator.TCG: ("-accel", "tcg,thread=multi", "-cpu", "max"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with an appliance's disk and some for data. Ports are those of the loopback address here; 0: none."""

    system: Path
    data: tuple[Path, ...]
    portal_port: int
    ssh_port: int = 0
    ssh_key: str = ""
    accelerator: Accelerator = Accelerator.TCG
    firmware: tuple[Path, Path] | None = None  # for UEFI: code, and variables of its own
    memory_mib: int = 1024
    processors: int = 2

    def command(self) -> list[str]:
        """Give QEMU's command line; its standard input and output are the guest's serial console."""
        return [
            QEMU,
            *("-machine", "q35", *OPTIONS[self.accelerator]),
            *("-m", str(self.memory_mib), "-smp", str(self.processors)),
            *("-nodefaults", "-display", "none", "-device", "virtio-rng-pci"),
            *self._firmware(),
            *self._disk("system", self.system, "bootindex=0"),
            *(word for number, path in enumerate(self.data, 1) for word in self._disk(f"data{number}", path)),
            *("-netdev", ",".join(["user", "id=net", *self._forwards()])),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *self._credentials(),
        ]

    def _firmware(self) -> Iterator[str]:
        if self.firmware is not None:
            for path, access in zip(self.firmware, ("on", "off"), strict=True):
                yield from ("-drive", f"if=pflash,format=raw,readonly={access},file={_escaped(path)}")

    @staticmethod
    def _disk(name: str, path: Path, *options: str) -> Iterator[str]:
        """Add a disk; its serial number gives it a name in the guest that does not change."""
        yield from ("-drive", f"if=none,id={name},format=qcow2,discard=unmap,file={_escaped(path)}")
        yield from ("-device", ",".join(["virtio-blk-pci", f"drive={name}", f"serial={name}", *options]))

    def _forwards(self) -> Iterator[str]:
        for here, there in ((self.portal_port, PORTAL_PORT), (self.ssh_port, SSH_PORT)):
            if here:
                yield f"hostfwd=tcp:127.0.0.1:{here}-:{there}"

    def _credentials(self) -> Iterator[str]:
        """Hand a key to systemd in the guest, the way of systemd.system-credentials(7)."""
        if self.ssh_key:
            value = base64.b64encode(f"{self.ssh_key}\n".encode()).decode()
            yield from ("-smbios", f"type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={value}")


def _escaped(path: Path) -> str:
    """Write a path as the value of an option: QEMU takes a comma for the end of it, and two for one."""
    return str(path).replace(",", ",,")


def check_port(port: int, variable: str) -> None:
    """Make sure that a port is free.

    Raises:
        ImageError: it is not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ImageError(
                f"port {port} of 127.0.0.1 can't be used ({error.strerror}): type `make boot {variable}={port + 1}`"
            ) from error


def uefi(folder: Path) -> tuple[Path, Path]:
    """Give the firmware for UEFI; its variables are kept in a folder.

    Raises:
        ImageError: it is not installed.
    """
    code, variables = (OVMF / name for name in FIRMWARE)
    if not code.exists():
        raise ImageError(f"{code} is not there: type `apt-get install ovmf`, as root")
    own = folder / FIRMWARE[1]
    if not own.exists():
        shutil.copyfile(variables, own)
    return code, own


def make_data_disk(path: Path, size: str) -> Path:
    """Make a sparse disk where there is none."""
    if not path.exists():
        run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), size])
    return path


def usable(wanted: Accelerator, kernel: Path = KERNEL) -> tuple[Accelerator, str]:
    """Choose who runs the guest, and say why."""
    if wanted is not Accelerator.AUTO:
        return wanted, "as ACCEL= says"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accelerator.TCG, "/dev/kvm is not there for this user"
    if not _kvm_boots(kernel):
        return Accelerator.TCG, "a kernel does not boot under /dev/kvm"
    return Accelerator.KVM, "/dev/kvm works"


def _kvm_boots(kernel: Path) -> bool:
    """Boot a kernel without a disk: it has to panic and reboot, which ends QEMU. /dev/kvm alone proves nothing."""
    command = [QEMU, "-machine", "q35", *OPTIONS[Accelerator.KVM], "-m", "256M", "-nodefaults", "-display", "none"]
    command += ["-no-reboot", "-kernel", str(kernel), "-append", "panic=-1 quiet"]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
