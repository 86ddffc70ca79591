"""What goes over the management socket: one JSON object a line, at most ``LINE_LIMIT`` bytes long.

    > {"id": 7, "path": "/volumes/db", "command": "info", "args": {}}
    < {"id": 7, "progress": {"text": "...", "done": 1, "total": 3}}       as often as there is something to tell
    < {"id": 7, "ok": {...}}                                               once, or
    < {"id": 7, "error": {"kind": "usage", "message": "..."}}

A connection carries one command after the other. Who closes it in the middle of a change does not
stop the change: ``/operations list`` tells how it ended.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from backstores.errors import UsageError

LINE_LIMIT: Final = 1 << 20
SOCKET_NAME: Final = "tiergate.sock"
SOCKET_PATH_BYTES: Final = 107  # sun_path of Linux, less its NUL


class ErrorKind(enum.StrEnum):
    """Whose fault an error is."""

    COMMAND = "command"  # no such command or parameter, or a value that can't be read
    USAGE = "usage"  # understood, and refused
    FAILED = "failed"  # tried, and failed
    INTERNAL = "internal"  # a bug of ours


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command. The values of ``args`` are what a person would type."""

    path: str
    command: str
    args: dict[str, str | int | bool] = {}
    id: int | str | None = None


class Progress(msgspec.Struct, frozen=True):
    """How far a command has come."""

    text: str
    done: int
    total: int


class Failure(msgspec.Struct, frozen=True):
    """Why a command was refused or failed: one line."""

    kind: ErrorKind
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an answer; exactly one of ``progress``, ``ok`` and ``error`` is there."""

    id: int | str | None = None
    progress: Progress | msgspec.UnsetType = msgspec.UNSET
    ok: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | msgspec.UnsetType = msgspec.UNSET


def socket_path(state: Path) -> Path:
    """Give the management socket of the appliance with this state folder.

    Raises:
        UsageError: the folder's path is too long for a socket in it.
    """
    path = state / SOCKET_NAME
    length = len(str(path).encode())
    if length > SOCKET_PATH_BYTES:
        raise UsageError(
            f"socket {path} has a path of {length} bytes, more than {SOCKET_PATH_BYTES}: use another --state"
        )
    return path


def default_state(environment: Mapping[str, str], user: int) -> Path:
    """Say which state folder is meant when nobody names one."""
    named = environment.get("TIERGATE_STATE")
    if named:
        return Path(named).absolute()
    if user == 0:
        return Path("/var/lib/tiergate")
    # XDG Base Directory Specification: a path that is not absolute is to be ignored
    folder = environment.get("XDG_STATE_HOME", "")
    return (Path(folder) if folder.startswith("/") else Path.home() / ".local/state") / "tiergate"
