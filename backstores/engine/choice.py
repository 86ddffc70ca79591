"""Choose what carries I/O out: io_uring where it was built and the kernel allows it, else threads."""

from __future__ import annotations

import enum
import logging
from typing import Protocol

from backstores.alu.base import Backend
from backstores.engine.pool import Pool
from backstores.errors import UsageError

log = logging.getLogger(__name__)


class BackendChoice(enum.StrEnum):
    """What to carry I/O out with."""

    AUTO = "auto"
    IO_URING = "io_uring"
    THREADS = "threads"


class OwnedBackend(Backend, Protocol):
    """A backend with its life cycle."""

    name: str

    async def close(self) -> None:
        """End it, once nothing is under way."""


def make_backend(choice: BackendChoice) -> OwnedBackend:
    """Make the backend of the running event loop.

    Raises:
        UsageError: io_uring was asked for by name and is not to be had.
    """
    if choice is BackendChoice.THREADS:
        return Pool()
    try:
        return _io_uring()
    except (ImportError, OSError) as error:  # the extension was not built; the kernel has or allows no io_uring
        if choice is BackendChoice.IO_URING:
            raise UsageError(f"io_uring can't be used here ({error}); threads always can") from error
        log.info("uncached I/O goes to threads: no io_uring here (%s)", error)
        return Pool()


def _io_uring() -> OwnedBackend:
    from backstores.engine.ring import RingBackend  # not at the top: the extension below it is optional

    return RingBackend()
