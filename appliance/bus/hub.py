"""The VCM's end of the bus: one ROUTER socket that listens on every internal fabric."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Generic, TypeVar

import zmq
import zmq.asyncio

from appliance.bus.attendance import Attendance, Verdict
from appliance.bus.frames import Head, Kind, head
from appliance.bus.inbox import Inbox
from appliance.bus.liveness import BEAT_S
from appliance.bus.ports import Codec, Gone, Heard, Joined
from appliance.bus.security import Doorkeeper, KeyPair, WhoHas, put, set_limits
from backstores.errors import ProtocolError, UsageError

log = logging.getLogger(__name__)

S = TypeVar("S")
R = TypeVar("R")

ANSWERS: Final = {
    Verdict.WRONG_VERSION: Kind.WRONG_VERSION,
    Verdict.SUPERSEDED: Kind.SUPERSEDED,
}


class ZmqHub(Generic[S, R]):
    """Implements ``appliance.bus.ports.Hub``. ``outgoing`` says what a peer of this name understands."""

    def __init__(
        self,
        incoming: Codec[R],
        outgoing: Callable[[str], Codec[S]],
        *,
        version: int,
        most_bytes: int,
        incarnation: int,
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._version = version
        self._most_bytes = most_bytes
        self._incarnation = incarnation
        self._attendance = Attendance(version)
        self._routes: dict[str, bytes] = {}
        self._inbox: Inbox[Joined | Gone | Heard[R]] = Inbox()
        self._tasks: list[asyncio.Task[None]] = []
        self._context = zmq.asyncio.Context()
        self._complained: set[str] = set()

    async def start(self, addresses: Sequence[str], keys: KeyPair, who_has: WhoHas) -> None:
        """Listen at ``address:port``, each on another fabric.

        Raises:
            UsageError: an address is not ours, or its port is taken.
        """
        self._doorkeeper = Doorkeeper(self._context, who_has)
        self._socket = self._context.socket(zmq.ROUTER)
        set_limits(self._socket, self._most_bytes)
        self._socket.router_mandatory = True
        self._socket.curve_server = True
        self._socket.curve_secretkey = keys.secret
        for address in addresses:
            try:
                self._socket.bind(f"tcp://{address}")
            except zmq.ZMQError as error:
                await self.close()
                raise UsageError(f"the VCM can't listen on {address}: {error.strerror}") from error
        self._tasks = [self._inbox.watched(self._receive()), self._inbox.watched(self._tick())]

    def __aiter__(self) -> AsyncIterator[Joined | Gone | Heard[R]]:
        return self._inbox

    def send(self, peer: str, message: S) -> bool:
        """Send a message to a peer that is there; False: it is not, or takes nothing in."""
        route = self._routes.get(peer)
        return route is not None and self._put(route, Kind.MESSAGE, self._outgoing(peer).encode(message))

    async def close(self) -> None:
        """End it; what was sent last still goes out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._inbox.close()
        await self._doorkeeper.close()
        self._socket.close()
        await asyncio.to_thread(self._context.term)  # which waits for what was sent last

    def _put(self, route: bytes, kind: Kind, *payload: bytes) -> bool:
        """Hand a frame to ZeroMQ, which refuses it for who is gone, and for who has too many already."""
        return put(self._socket, [route, head(kind, self._version, self._incarnation), *payload])

    async def _receive(self) -> None:
        while True:
            await self._inbox.room()
            parts = await self._socket.recv_multipart(copy=False)
            # the doorkeeper gave the name: it is that of the key, whatever the peer says
            peer = str(parts[0].get("User-Id"))
            try:
                self._take(peer, [part.bytes for part in parts])
            except ProtocolError as error:
                self._complain(peer, str(error))

    def _take(self, peer: str, parts: list[bytes]) -> None:
        if len(parts) not in (2, 3):
            raise ProtocolError(f"{len(parts)} parts came in place of 2 or 3")
        route, first, *payload = parts
        frame = Head.parse(first)
        verdict, changes = self._attendance.arrived(peer, frame, time.monotonic())
        if verdict is not Verdict.WELCOME:
            self._put(route, ANSWERS[verdict])
            if verdict is Verdict.WRONG_VERSION:
                raise ProtocolError(f"it speaks version {frame.version}, this process version {self._version}")
            return
        for change in changes:
            self._change(change)
        if frame.kind != Kind.PROBE or peer not in self._routes:
            self._routes[peer] = route
        if payload:
            self._inbox.put(Heard(peer, self._incoming.decode(payload[0])))
        else:
            self._put(route, Kind.PROBE if frame.kind == Kind.PROBE else Kind.BEAT)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for gone in self._attendance.tick(time.monotonic()):
                self._change(gone)

    def _change(self, change: Joined | Gone) -> None:
        self._inbox.put(change)
        self._complained.discard(change.peer)
        if isinstance(change, Gone):
            self._routes.pop(change.peer, None)

    def _complain(self, peer: str, reason: str) -> None:
        """Tell what is wrong with a peer's frames: once, until it goes and comes again."""
        if peer not in self._complained:
            self._complained.add(peer)
            log.error("%s sends what can't be used: %s", peer, reason)
