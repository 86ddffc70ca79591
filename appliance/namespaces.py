"""Work in a network namespace of this machine, as `ip netns add` makes them.

A namespace belongs to a thread. So the work runs in a thread of its own that ends with it: no other ever finds itself
in the wrong network. What it makes stays in the namespace: a socket, and a portal of LIO's, too. `ip netns exec` would
not do for the latter, because it mounts a /sys of its own, without configfs.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from backstores.errors import UsageError

T = TypeVar("T")

FOLDER: Final = Path("/run/netns")
CLONE_NEWNET: Final = 0x40000000
"""Says what kind of namespace we mean to enter; the sandbox of the systemd unit lets nothing else through."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Do some work in a namespace, and wait for it; "" is the one in which we are.

    Raises:
        UsageError: there is no such namespace, or we may not enter it.
        Exception: whatever the work raises.
    """
    if not namespace:
        return work()

    def run() -> T:
        enter(namespace)
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix=f"in namespace {namespace}") as thread:
        return thread.submit(run).result()


def enter(namespace: str) -> None:
    """Have this thread work in a namespace from now on, and all threads that it starts.

    Raises:
        UsageError: there is no such namespace, or we may not enter it.
    """
    try:
        handle = os.open(FOLDER / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"there is no network namespace {namespace}: type `ip netns add {namespace}`") from None
    try:
        if _libc.setns(handle, CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise UsageError(f"can't enter network namespace {namespace}: {reason}; it takes root")
    finally:
        os.close(handle)
