"""One TCP connection of a portal, and the buffer it shares with all others.

What a connection must keep for itself is the beginning of a PDU whose rest has not come, and output that the
peer does not take; the latter stops its reading.

The receive buffer remembers whose unhandled bytes lie in it. As long as the same connection goes on
receiving, they stay where they are and nothing is copied; the next one moves them out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Final, Protocol

from backstores.iscsi.connection import Connection
from backstores.iscsi.effects import Close, Effect, LoggedIn, Manage, Refused
from backstores.iscsi.limits import LOGIN_BUFFER_BYTES, MAX_SEGMENT_BYTES
from backstores.iscsi.sender import Sender
from backstores.iscsi.session import Session
from backstores.iscsi.tasks import Execute, Task

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 4 * MAX_SEGMENT_BYTES
TURN_S: Final = 0.002
SHOWN_CHARACTERS: Final = 223  # the longest iSCSI name


def shown(text: str) -> str:
    """Make what a peer may have sent safe for a log line."""
    return ascii(text)[1:-1][:SHOWN_CHARACTERS]


class Keeper(Protocol):
    """A connection that shares a receive buffer."""

    kept: bytes  # its unhandled bytes while the buffer is another's


class ReceiveBuffer:
    """The one receive buffer of a portal or an initiator. ``start`` and ``end`` bound the owner's unhandled bytes."""

    def __init__(self) -> None:
        self.raw = bytearray(RECEIVE_BYTES)
        self.view = memoryview(self.raw)
        self.owner: Keeper | None = None
        self.start = self.end = 0

    def claim(self, owner: Keeper) -> None:
        """Make the buffer hold a connection's unhandled bytes, and save the former owner's."""
        if self.owner is not owner:
            if self.owner is not None:
                self.owner.kept = bytes(self.view[self.start : self.end])
            self.owner = owner
            self.start, self.end = 0, len(owner.kept)
            self.view[: self.end] = owner.kept
            owner.kept = b""

    def release(self, owner: Keeper) -> None:
        """Forget a connection that has ended."""
        if self.owner is owner:
            self.owner = None
            self.start = self.end = 0

    def room(self) -> memoryview:
        """Give the free end of the buffer; the bytes move to the front when that leaves too little."""
        if self.start == self.end:
            self.start = self.end = 0
        elif len(self.raw) - self.end < MAX_SEGMENT_BYTES:
            length = self.end - self.start
            self.raw[:length] = self.raw[self.start : self.end]
            self.start, self.end = 0, length
        return self.view[self.end :]


class House(Protocol):
    """What a connection asks of its portal."""

    def admit(self, connection: ConnectionProtocol) -> Connection | None:
        """Make the core of a new connection; None when there are too many."""

    def authenticated(self, connection: ConnectionProtocol) -> None:
        """Hear that a connection has logged in."""

    def forget(self, connection: ConnectionProtocol) -> None:
        """Hear that a connection is gone."""


class ConnectionProtocol(asyncio.BufferedProtocol):
    """The I/O side of one connection, and the one owner of its end."""

    def __init__(self, house: House, buffer: ReceiveBuffer) -> None:
        self.kept = b""  # unhandled bytes while the receive buffer is another's
        self.transport: asyncio.Transport | None = None
        self.core: Connection | None = None
        self.address = ""
        self.local_address = ""
        self._house = house
        self._buffer = buffer
        self._fd = -1
        self._loop = asyncio.get_running_loop()  # to ask for it costs a system call each time
        self._blocked = False
        self._rests = False  # has had its turn, and goes on when others have had theirs
        self._closing_since_s: float | None = None
        self._runs: set[asyncio.Task[None]] = set()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        endpoint: socket.socket = transport.get_extra_info("socket")
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = endpoint.fileno()
        transport.set_write_buffer_limits(high=0)  # any unsent byte stops the reading
        self.address = str(transport.get_extra_info("peername")[0])
        self.local_address = str(transport.get_extra_info("sockname")[0])
        self.core = self._house.admit(self)
        if self.core is None:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._fd = -1
        self._buffer.release(self)
        self._house.forget(self)
        if self.core is not None:
            self.core.end("connection lost")

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer.claim(self)
        room = self._buffer.room()
        if self.core is not None and not self.core.logged_in:
            unhandled_bytes = self._buffer.end - self._buffer.start
            return room[: LOGIN_BUFFER_BYTES - unhandled_bytes]  # S1; never empty, for a login PDU is far smaller
        return room

    def buffer_updated(self, nbytes: int) -> None:
        self._buffer.end += nbytes
        self._run()

    def eof_received(self) -> bool:
        return False  # iSCSI knows no half-open connections

    def pause_writing(self) -> None:
        self._blocked = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        if not self._rests:
            self._go_on()

    # Serving

    def _run(self) -> None:
        """Handle what has been received until it is used up, the peer takes no more output, or its turn is over."""
        core, buffer, loop = self.core, self._buffer, self._loop
        if core is None:
            return
        until_s = loop.time() + TURN_S
        while not self._blocked and not core.closing:
            before = buffer.start
            buffer.start = core.feed(buffer.raw, buffer.view, buffer.start, buffer.end)
            core.pump()
            sent = core.sender.used
            self._settle(core)
            if buffer.start == before and not sent:
                break
            if loop.time() >= until_s:
                self._rest()
                break

    def _rest(self) -> None:
        """Let others have their turn: a peer must not hold them up, however much it sends at once (C3)."""
        if self.transport is not None and not self._rests:
            self._rests = True
            self.transport.pause_reading()
            self._loop.call_soon(self._end_rest)

    def _end_rest(self) -> None:
        self._rests = False
        if not self._blocked:
            self._go_on()

    def _go_on(self) -> None:
        """Read again, and handle what was left."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._buffer.claim(self)
            self._run()

    def _settle(self, core: Connection) -> None:
        """Send what stands in the send buffer, and carry out what the core asks for."""
        if core.sender.used:
            self._flush(core.sender)
        if core.effects:
            effects, core.effects[:] = tuple(core.effects), ()
            for effect in effects:
                self._carry_out(effect)

    def _answer(self) -> None:
        """Send what a call from outside of ``_run`` has made the core say."""
        core = self.core
        if core is None or self.transport is None:
            return
        while True:
            if not self._blocked:
                core.pump()  # before the effects, of which one may close the connection
            some = core.sender.used
            self._settle(core)
            if self._blocked or not some:
                break

    def _flush(self, sender: Sender) -> None:
        """Send straight out of the send buffer; only what the socket does not take is copied."""
        end, sender.used = sender.used, 0
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        sent = 0
        if not self._blocked:
            try:
                sent = os.write(self._fd, sender.view[:end])
            except BlockingIOError:
                sent = 0
            except OSError:
                transport.abort()  # reset by the peer: connection_lost cleans up
                return
        if sent < end:
            transport.write(bytes(sender.view[sent:end]))

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Execute(task):
                self._start(self._execute(task))
            case Manage():
                self._start(self._manage(effect))
            case LoggedIn(session):
                self._house.authenticated(self)
                self._log_login(session)
            case Refused(initiator, reason):
                log.warning("login from %s as %s refused: %s", self.address, shown(initiator), shown(reason))
            case Close(reason):
                self.close(reason)

    def _log_login(self, session: Session) -> None:
        grant = session.grant
        what = "discovery" if grant.target is None else shown(grant.target)
        log.info("%s as %s (host %s) logged in to %s", self.address, shown(grant.initiator), grant.account.host, what)

    # The nexus's work

    def _start(self, work: Coroutine[None, None, None]) -> None:
        run = self._loop.create_task(work)
        self._runs.add(run)  # the loop itself holds its tasks weakly
        run.add_done_callback(self._finished)

    def _finished(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        error = None if run.cancelled() else run.exception()
        if error is not None:
            log.error("a command failed inside of the target; its connection is closed", exc_info=error)
            self.abort("an internal error")

    async def _execute(self, task: Task) -> None:
        core, session = self._serving()
        core.begun(task)
        assert session.nexus is not None
        core.completed(task, await session.nexus.execute(task.lun, task.command()))
        self._answer()

    async def _manage(self, request: Manage) -> None:
        core, session = self._serving()
        assert session.nexus is not None
        core.managed(request, await session.nexus.manage(request.function, request.lun, request.referenced_itt))
        self._answer()

    def _serving(self) -> tuple[Connection, Session]:
        core = self.core
        assert core is not None
        assert core.session is not None
        return core, core.session

    # The end

    def close(self, reason: str) -> None:
        """Send what there is, then close. A peer that takes nothing is cut off by ``tick``."""
        if self.transport is not None and not self.transport.is_closing():
            log.info("connection from %s closed: %s", self.address, shown(reason))
            self._closing_since_s = self._loop.time()
            self.transport.close()

    def abort(self, reason: str) -> None:
        """Close at once."""
        if self.core is not None:
            self.core.end(reason)
        if self.transport is not None:
            log.info("connection from %s dropped: %s", self.address, shown(reason))
            self.transport.abort()

    def goodbye(self, reason: str) -> None:
        """Tell the initiator that the target goes away, and close."""
        if self.core is not None:
            self.core.announce_close()
            self._answer()
        self.close(reason)

    def tick(self, now_s: float, patience_s: float) -> None:
        """Let time pass."""
        if self._closing_since_s is not None:
            if now_s - self._closing_since_s >= patience_s:
                self.abort("the peer took no more output")
        elif self.core is not None:
            self.core.tick(now_s)
            self._answer()
