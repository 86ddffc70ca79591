"""The management API on a UNIX socket: ``protocol`` over it, ``operations`` behind it (S4).

Who may talk to it: this process's user and root. The socket is made with mode 0600 from its first
moment on, and the kernel tells who is at the other end. A lock file beside it says whether an
appliance is alive in a state folder; a socket that a dead one left behind is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Final

import msgspec

from appliance.mic.commands import CommandError, bind
from appliance.mic.operations import Dispatcher
from appliance.mic.protocol import LINE_LIMIT, ErrorKind, Failure, Progress, Reply, Request, socket_path
from backstores.errors import TiergateError, UsageError

log = logging.getLogger(__name__)

LOCK_NAME: Final = "tiergate.lock"
MOST_CONNECTIONS: Final = 64
ROOT: Final = 0
LINGER_S: Final = 5.0
CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid

ERROR_KINDS: Final[tuple[tuple[type[TiergateError], ErrorKind], ...]] = (
    (CommandError, ErrorKind.COMMAND),
    (UsageError, ErrorKind.USAGE),
    (TiergateError, ErrorKind.FAILED),
)


class StateLock:
    """Says that an appliance is alive in a state folder, for as long as its process lives."""

    def __init__(self, state: Path) -> None:
        """Take the lock.

        Raises:
            UsageError: another appliance has it.
        """
        try:
            self._handle = os.open(state / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"state folder {state} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._handle, 20, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise UsageError(f"an appliance runs in {state} already (process {owner})") from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next appliance in."""
        os.close(self._handle)


class ApiServer:
    """Serves the management API of one appliance."""

    def __init__(self, dispatcher: Dispatcher, state: Path) -> None:
        self._dispatcher = dispatcher
        self._state = state
        self._path = socket_path(state)
        self._connections: set[asyncio.Task[None]] = set()
        self._lock: StateLock | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            UsageError: another appliance runs in this state folder, or it can't be written.
        """
        lock = StateLock(self._state)
        try:
            self._server = await asyncio.start_unix_server(self._accept, sock=self._bound(), limit=LINE_LIMIT)
        except OSError as error:
            lock.release()
            raise UsageError(f"socket {self._path} can't be made: {error.strerror}") from error
        self._lock = lock

    def _bound(self) -> socket.socket:
        self._path.unlink(missing_ok=True)  # we have the lock: whoever made it is dead
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        umask = os.umask(0o177)  # the socket is never, not for a moment, open to others
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(umask)
        return listener

    async def close(self) -> None:
        """Stop listening, let the changes under way end, and hang up."""
        if self._server is not None:
            self._server.close()
        await self._dispatcher.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            refusal = self._refusal(writer)
            if refusal is None:
                await self._converse(reader, writer)
            else:
                log.warning("management connection refused: %s", refusal)
                await _send(writer, Reply(error=Failure(ErrorKind.USAGE, refusal)))
                await _let_go(reader)
        except (ConnectionError, asyncio.CancelledError):
            pass  # whoever asked has gone, or the appliance ends: there is nobody to tell
        finally:
            self._connections.discard(task)
            writer.close()

    def _refusal(self, writer: asyncio.StreamWriter) -> str | None:
        """Say why the one at the other end may not talk to us; None if it may."""
        peer = writer.get_extra_info("socket")
        _, uid, _ = CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        if uid not in (ROOT, os.geteuid()):
            return f"user {uid} may not manage this appliance; user {os.geteuid()} and root may"
        if len(self._connections) > MOST_CONNECTIONS:
            return f"{MOST_CONNECTIONS} connections are open already"
        return None

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # StreamReader's way to say that the limit is passed
                message = f"a request is longer than {LINE_LIMIT} bytes"
                await _send(writer, Reply(error=Failure(ErrorKind.COMMAND, message)))
                await _let_go(reader)
                return
            if not line.endswith(b"\n"):
                return
            await _send(writer, await self._answer(line, writer))

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> Reply:
        """Carry out one line; every error ends in a reply."""
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Reply(error=Failure(ErrorKind.COMMAND, f"this is no request: {error}"))

        def report(text: str, done: int, total: int) -> None:
            if not writer.is_closing():
                writer.write(_line(Reply(request.id, progress=Progress(text, done, total))))

        try:
            result = await self._dispatcher.run(bind(request.path, request.command, request.args), report)
        except TiergateError as error:
            kind = next(kind for type_, kind in ERROR_KINDS if isinstance(error, type_))
            return Reply(request.id, error=Failure(kind, " ".join(str(error).split())))
        except Exception:
            log.exception("%s %s failed", request.path, request.command)
            message = f"{request.command} met an error of the appliance's own; its log has the details"
            return Reply(request.id, error=Failure(ErrorKind.INTERNAL, message))
        return Reply(request.id, ok=msgspec.Raw(msgspec.json.encode(result)))


def _line(reply: Reply) -> bytes:
    return msgspec.json.encode(reply) + b"\n"


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(_line(reply))
    await writer.drain()


async def _let_go(reader: asyncio.StreamReader) -> None:
    """Wait until the peer has hung up: from a socket closed with bytes unread, it could not read our last words."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(1 << 16):
                pass
