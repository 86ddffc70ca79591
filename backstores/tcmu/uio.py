"""The character device through which the kernel shares a ring: found by its name, opened, mapped."""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstores.errors import TiergateError, UsageError

CLASS: Final = Path("/sys/class/uio")
DEV: Final = Path("/dev")
KIND: Final = "tcm-user"
EVENT_BYTES: Final = 4  # the counter of wake-ups is read, and a kick written, as one 32-bit number
KICK: Final = bytes(EVENT_BYTES)


class DeviceGone(TiergateError):
    """The kernel has removed the device."""


@dataclass(frozen=True, slots=True)
class UioDevice:
    """A TCMU device. ``hba`` and ``name`` are those of the backstore: ``core/user_HBA/NAME`` in configfs."""

    node: str  # such as uio0
    hba: int
    name: str
    config: str  # what the backstore's dev_config says

    @property
    def map_bytes(self) -> int:
        """How long the memory is."""
        return int((CLASS / self.node / "maps" / "map0" / "size").read_text(), 16)

    def open(self) -> Mapping:
        """Open and map the device.

        Raises:
            UsageError: another process has it, or we may not open it.
        """
        try:
            fd = os.open(DEV / self.node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            hint = "end the process that serves it" if error.errno == errno.EBUSY else "this takes root"
            raise UsageError(
                f"can't open {DEV / self.node} of backstore {self.name}: {error.strerror}; {hint}"
            ) from error
        try:
            return Mapping(fd, mmap.mmap(fd, self.map_bytes))
        except BaseException:
            os.close(fd)
            raise


class Mapping:
    """An open device: its memory, and the wake-ups and kicks that go with it."""

    def __init__(self, fd: int, memory: mmap.mmap) -> None:
        self.fd = fd
        self._memory = memory

    def view(self) -> memoryview:
        """Give a view of the memory; it has to be released before ``close``."""
        return memoryview(self._memory)

    def acknowledge(self) -> None:
        """Take a wake-up. There may be none: the kernel counts them, and one read takes all.

        Raises:
            DeviceGone: the device was removed.
        """
        try:
            os.read(self.fd, EVENT_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise DeviceGone(f"the kernel has removed the device: {error.strerror}") from error

    def kick(self) -> None:
        """Have the kernel look at the ring.

        Raises:
            DeviceGone: the device was removed.
        """
        try:
            os.write(self.fd, KICK)
        except OSError as error:
            raise DeviceGone(f"the kernel has removed the device: {error.strerror}") from error

    def close(self) -> None:
        """Unmap and close. The mapping holds the device, too: without this nobody else could open it."""
        self._memory.close()
        os.close(self.fd)


def find(hba: int, name: str) -> UioDevice:
    """Find a backstore's device by its name, ``tcm-user/HBA/NAME/CONFIG``.

    Raises:
        UsageError: there is none.
    """
    for entry in sorted(CLASS.glob("uio*")):
        kind, *parts = (entry / "name").read_text().strip().split("/", 3)
        if kind == KIND and parts[:2] == [str(hba), name]:
            return UioDevice(entry.name, hba, name, "".join(parts[2:]))  # the kernel leaves an empty one out
    raise UsageError(
        f"there is no {CLASS}/uio*/name {KIND}/{hba}/{name}; enable backstore core/user_{hba}/{name} first"
    )
