"""The embedded portal (R32): one listening address round the protocol core, as asyncio ``BufferedProtocol``s.

One receive buffer and one send buffer serve all connections of a portal, for asyncio receives, hands over and
returns without a break: a thousand idle sessions cost a thousand times next to nothing. The caps of S1 are
kept here, and so is the clock that ends late logins, silent initiators and stalled data.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from backstores.errors import UsageError
from backstores.iscsi.access import Access, AccessVia
from backstores.iscsi.connection import Connection
from backstores.iscsi.limits import Limits
from backstores.iscsi.sender import SCRATCH_BYTES, Sender
from backstores.iscsi.session import SessionRegistry
from backstores.iscsi.transport import ConnectionProtocol, ReceiveBuffer

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
GOODBYE_S: Final = 2.0  # what a peer has to take our last words
BACKLOG: Final = 256


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as a status listing shows it. ``target`` is None for discovery."""

    host: str
    initiator: str
    target: str | None
    address: str
    tsih: int


def open_socket(address: str, port: int) -> socket.socket:
    """Bind a socket to a numeric address, in the network of the thread that calls this.

    Raises:
        UsageError: the address is not ours, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # The system's words, without what the library adds; a resolver's errors have numbers below zero.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UsageError(f"can't listen on {address} port {port}: {reason}") from error


class Portal:
    """One address where hosts reach the target node. Portals of one node share their ``registry``."""

    def __init__(
        self,
        access: Access,
        *,
        registry: SessionRegistry | None = None,
        group_tag: int = 1,
        limits: Limits | None = None,
    ) -> None:
        self.registry = SessionRegistry() if registry is None else registry
        self.group_tag = group_tag
        self._access = access
        self._limits = Limits() if limits is None else limits
        self._receive_buffer = ReceiveBuffer()
        self._send_buffer = bytearray(SCRATCH_BYTES)
        self._connections: set[ConnectionProtocol] = set()
        self._logging_in: dict[ConnectionProtocol, None] = {}  # the oldest first
        self._per_address: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._turned_away: frozenset[str] = frozenset()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    # The appliance's calls

    async def start(self, address: str, port: int) -> None:
        """Listen on a numeric address.

        Raises:
            UsageError: the address can't be listened on.
        """
        await self.serve(open_socket(address, port))

    async def serve(self, opened: socket.socket) -> None:
        """Serve who comes by a socket of ``open_socket``; it is the portal's from here on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ConnectionProtocol(self, self._receive_buffer), sock=opened, backlog=BACKLOG
        )
        self._timer = loop.call_later(TICK_S, self._tick)

    @property
    def endpoint(self) -> tuple[str, int]:
        """The address and the port that this portal really listens on."""
        assert self._server is not None
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    async def close(self) -> None:
        """Stop listening, tell the initiators, and end all sessions of this portal."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.goodbye("the target stops")
        if self._connections:
            self._empty.clear()
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await self._empty.wait()
            except TimeoutError:
                for connection in tuple(self._connections):
                    connection.abort("the peer took no more output")

    def turn_away(self, addresses: Iterable[str]) -> None:
        """Let in nobody from these addresses, and from all others again; connections from them end without a word."""
        self._turned_away = frozenset(addresses)
        for connection in tuple(self._connections):
            if connection.address in self._turned_away:
                connection.abort("its address is turned away")

    def sessions(self) -> list[SessionInfo]:
        """List the sessions of this portal, oldest first."""
        return [
            SessionInfo(
                session.grant.account.host,
                session.grant.initiator,
                session.grant.target,
                session.address,
                session.tsih,
            )
            for session in self.registry
            if session.group_tag == self.group_tag
        ]

    def drop_host(self, host: str, reason: str = "the host was removed") -> int:
        """End all sessions of a host, on whatever portal of the node; say how many there were."""
        return self.registry.drop_host(host, reason)

    # The connections' calls

    def admit(self, connection: ConnectionProtocol) -> Connection | None:
        """Make the core of a new connection; None when there are too many (S1).

        When all places are taken, the oldest that has not logged in goes: a login takes milliseconds, and those who
        only hold places must not keep hosts out (C3).
        """
        limits = self._limits
        if connection.address in self._turned_away:
            return None
        if self._per_address[connection.address] >= limits.unauthenticated_per_address:
            log.debug("connection from %s refused: too many of its logins are under way", connection.address)
            return None
        if len(self._connections) >= limits.connections:
            oldest = next(iter(self._logging_in), None)
            if oldest is None:
                log.debug("connection from %s refused: %d are open", connection.address, limits.connections)
                return None
            self.forget(oldest)
            oldest.abort("made room for a newer connection")
        self._connections.add(connection)
        self._logging_in[connection] = None
        self._per_address[connection.address] += 1
        return Connection(
            AccessVia(self._access, connection.local_address),
            self.registry,
            self.group_tag,
            connection.address,
            Sender(self._send_buffer),
            connection.abort,
            asyncio.get_running_loop().time(),
            limits,
        )

    def authenticated(self, connection: ConnectionProtocol) -> None:
        """Hear that a connection has logged in."""
        if connection in self._logging_in:
            del self._logging_in[connection]
            self._per_address[connection.address] -= 1
            if not self._per_address[connection.address]:
                del self._per_address[connection.address]

    def forget(self, connection: ConnectionProtocol) -> None:
        """Hear that a connection is gone."""
        self.authenticated(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection in tuple(self._connections):
            connection.tick(now_s, self._limits.answer_s)
        self._timer = loop.call_later(TICK_S, self._tick)
