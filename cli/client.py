"""The other end of the management socket."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.mic.commands import CommandError
from appliance.mic.protocol import LINE_LIMIT, ErrorKind, Failure, Reply, Request, socket_path
from appliance.mic.views import ProgressReport
from backstores.errors import TiergateError

LONGEST_REPLY: Final = 64 << 20


class Unreachable(TiergateError):
    """No appliance answers."""


class Refused(TiergateError):
    """The appliance answered with an error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.kind: ErrorKind = failure.kind


class Client:
    """A connection to the appliance of a state folder, made when it is first needed and again when it was lost."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._socket: socket.socket | None = None
        self._buffer = bytearray()

    def call(self, path: str, command: str, given: Mapping[str, str], progress: ProgressReport) -> Any:
        """Carry a command out and give its result, as JSON has it.

        Raises:
            CommandError: it is too long.
            Unreachable: there is no appliance, or it ended before it answered.
            Refused: it said no.
        """
        line = msgspec.json.encode(Request(path, command, dict(given))) + b"\n"
        if len(line) > LINE_LIMIT:
            raise CommandError(f"the command has {len(line)} bytes, more than {LINE_LIMIT}")
        connection = self._connected()
        try:
            connection.sendall(line)
            while True:
                reply = msgspec.json.decode(self._line(connection), type=Reply)
                if isinstance(reply.error, Failure):
                    raise Refused(reply.error)
                if isinstance(reply.ok, msgspec.Raw):
                    return msgspec.json.decode(reply.ok)
                if reply.progress is not msgspec.UNSET:
                    progress(reply.progress.text, reply.progress.done, reply.progress.total)
        except (OSError, msgspec.DecodeError) as error:
            self.close()
            raise Unreachable(
                f"the appliance in {self.state} ended before it answered; `tiergate /operations list`"
                " tells what became of the command once it runs again"
            ) from error
        except KeyboardInterrupt:
            self.close()  # the answer is still on its way; the next command must not take it for its own
            raise

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer.clear()

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(str(socket_path(self.state)))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            connection.close()
            raise Unreachable(
                f"no appliance runs in {self.state}; start one with `tiergate serve --state {self.state}`,"
                " or name another one's folder with --state or TIERGATE_STATE"
            ) from error
        except OSError as error:
            connection.close()
            raise Unreachable(
                f"the appliance in {self.state} can't be reached as user {os.geteuid()}: {error.strerror};"
                f" {_owner(self.state)}"
            ) from error
        self._socket = connection
        return connection

    def _line(self, connection: socket.socket) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            received = connection.recv(1 << 16)
            if not received or len(self._buffer) > LONGEST_REPLY:
                raise ConnectionError("the reply has no end")
            self._buffer += received
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _owner(state: Path) -> str:
    with contextlib.suppress(OSError):
        return f"user {state.stat().st_uid} and root may manage it"
    return "root may manage it"
