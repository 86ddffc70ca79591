"""An ALU whose cable is pulled: it stays open and locked, and whatever is asked of it fails (R19).

Its descriptors are made to stand for a socket whose other end is closed. So every way to it fails alike, the hot path,
io_uring and the threads, and none of them needs to know of faults; but locks can be had, as on a disk that has failed.
"""

from __future__ import annotations

import os
import socket

from backstores.alu.descriptor import DescriptorDriver


class Pulled:
    """One such ALU, from now on until ``plug_in``; that has to come before the driver is closed."""

    def __init__(self, driver: DescriptorDriver) -> None:
        nothing, end = socket.socketpair()
        end.close()
        # what they really are is kept, and with it the lock
        self._kept = {fd: os.dup(fd) for fd in (driver.fd, driver.durable_fd)}
        for fd in self._kept:
            os.dup2(nothing.fileno(), fd, inheritable=False)
        nothing.close()

    def plug_in(self) -> None:
        """Let it work again."""
        for fd, real in self._kept.items():
            os.dup2(real, fd, inheritable=False)
            os.close(real)
