"""A session with a target, for those who run commands there: one connection, logged in."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from backstores.errors import ProtocolError
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, pad, transfer
from backstores.iscsi.initiator.connection import Connection, State
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.outcome import CommandFailed, ConnectionLost, errno_of
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.tasks import EMPTY, Task
from backstores.iscsi.initiator.transport import Transport
from backstores.iscsi.transport import ReceiveBuffer
from backstores.scsi.lun import decode, encode

Done = Callable[[Task], None]
DEFAULT_PATIENCE: Final = Patience()


class Session:
    """A session that has logged in. ``ended`` is called once when it is over, before its tasks end unanswered."""

    def __init__(
        self,
        endpoint: Endpoint,
        sock: socket.socket,
        core: Connection,
        patience: Patience,
        buffer: ReceiveBuffer,
        ended: Callable[[Session], None],
        takes_back: Callable[[Task], bool],
    ) -> None:
        self.endpoint = endpoint
        self._core = core
        self._tell_end = ended
        self._told = False
        self._changed = asyncio.Event()
        self._transport = Transport(sock, core, buffer, patience.tick_s, self._hear, takes_back)

    @property
    def ready(self) -> bool:
        """Whether commands can be sent."""
        return self._core.state is State.READY

    @property
    def reason(self) -> str:
        """Why it is over."""
        return self._core.reason

    @property
    def under_way(self) -> int:
        """How many tasks have not ended."""
        return len(self._core.tasks)

    # Commands

    def submit(self, task: Task) -> None:
        """Run a task; its ``done`` is called from the event loop when it has ended, never from here."""
        self._core.submit(task)
        self._transport.flush_soon()

    def read(self, lun: int, lba: int, blocks: int, into: memoryview, done: Done) -> None:
        """Read blocks; ``into`` is as long as they are. ``lun`` is the field of the PDU as a number."""
        self.submit(Task(lun, transfer(READ_16, lba, blocks), done, into))

    def write(self, lun: int, lba: int, blocks: int, data: memoryview, done: Done, fua: bool = False) -> None:
        """Write blocks; ``data`` stays as it is until they are written."""
        self.submit(Task(lun, transfer(WRITE_16, lba, blocks, fua), done, data=data))

    def flush(self) -> None:
        """Send what was submitted at once, instead of at the end of this turn of the event loop."""
        self._transport.flush()

    async def execute(self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"") -> memoryview:
        """Run one command at a LUN and give what it sends.

        Raises:
            ConnectionLost: the session is over, and there was no answer.
            CommandFailed: the target did not carry it out.
        """
        return await run(self.submit, encode(lun), cdb, data_in_bytes, data_out)

    # The end

    async def close(self) -> None:
        """Log out, and wait until the target has answered or its time is up."""
        self._core.leave()
        self._transport.settle()
        while self._core.state is State.LEAVING:
            self._changed.clear()
            await self._changed.wait()
        self.abort("closed")

    def abort(self, reason: str) -> None:
        """End it at once."""
        self._transport.end(reason)

    async def logged_in(self) -> None:
        """Wait for the end of the login.

        Raises:
            ProtocolError: the login has failed; the subclass says why.
            ConnectionLost: the connection was closed meanwhile.
        """
        while self._core.state is State.LOGGING_IN:
            self._changed.clear()
            await self._changed.wait()
        if self._core.failure is not None:
            raise self._core.failure
        if not self.ready:
            raise ConnectionLost(f"login at {self.endpoint}: {self.reason}")

    def _hear(self) -> None:
        self._changed.set()
        if self._core.state is State.CLOSED and not self._told:
            self._told = True
            self._tell_end(self)


async def connect(
    endpoint: Endpoint,
    identity: Identity,
    *,
    patience: Patience = DEFAULT_PATIENCE,
    buffer: ReceiveBuffer | None = None,
    ended: Callable[[Session], None] = lambda session: None,
    takes_back: Callable[[Task], bool] = lambda task: False,
) -> Session:
    """Connect to a target and log in. Sessions of one event loop may share a receive buffer.

    ``takes_back`` sees each task that has not ended well first; True: it will have it run once more.

    Raises:
        ProtocolError: the login has failed; the subclass says why.
        ConnectionLost: the target can't be reached.
    """
    loop = asyncio.get_running_loop()
    sock = await _reach(endpoint, patience)
    core = Connection(identity, patience, loop.time())
    session = Session(endpoint, sock, core, patience, buffer or ReceiveBuffer(), ended, takes_back)
    try:
        await session.logged_in()
    except (ProtocolError, CommandFailed):
        raise
    except BaseException:
        session.abort("given up")
        raise
    return session


async def _reach(endpoint: Endpoint, patience: Patience) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectionLost(f"no socket for {endpoint}: {error.strerror}") from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if endpoint.source is not None:
            sock.bind((endpoint.source, 0))
        async with asyncio.timeout(patience.login_s):
            await asyncio.get_running_loop().sock_connect(sock, (endpoint.address, endpoint.port))
    except TimeoutError as error:
        sock.close()
        raise ConnectionLost(f"no connection to {endpoint} within {patience.login_s:g} s") from error
    except OSError as error:
        sock.close()
        raise ConnectionLost(f"no connection to {endpoint} ({error.strerror or error})") from error
    except BaseException:
        sock.close()
        raise
    return sock


async def run(
    submit: Callable[[Task], None], lun: int, cdb: bytes, data_in_bytes: int, data_out: bytes, repeatable: bool = True
) -> memoryview:
    """Run one command by ``submit`` and wait for it.

    Raises:
        ConnectionLost: there was no answer.
        CommandFailed: the target did not carry it out.
    """
    ended = asyncio.get_running_loop().create_future()
    into = memoryview(bytearray(data_in_bytes)) if data_in_bytes else EMPTY
    data = memoryview(data_out) if data_out else EMPTY

    def done(task: Task) -> None:
        if not ended.done():  # else: whoever asked has gone
            ended.set_result(None)

    task = Task(lun, pad(cdb), done, into, data, repeatable)
    submit(task)
    await ended
    if task.lost:
        raise ConnectionLost(f"command {cdb[0]:#04x} to lun {decode(lun)} has no answer")
    number = errno_of(task)
    if number:
        raise CommandFailed(f"command {cdb[0]:#04x} to lun {decode(lun)}: {os.strerror(number)}", number, task.sense)
    return into[: task.moved_bytes]
