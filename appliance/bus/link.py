"""An SP's or the MIC's end of the bus: one DEALER socket for each internal fabric, one of which is spoken over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from typing import Final, Generic, TypeVar

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from appliance.bus.attendance import Attendance, Verdict
from appliance.bus.frames import Head, Kind, head
from appliance.bus.inbox import Inbox
from appliance.bus.liveness import BEAT_S, ROUTE_SILENCE_S, Liveness
from appliance.bus.ports import HUB, Codec, Gone, Heard, Joined, Refused
from appliance.bus.security import KeyPair, put, set_limits
from backstores.errors import ProtocolError

log = logging.getLogger(__name__)

S = TypeVar("S")
R = TypeVar("R")

FAILED_HANDSHAKES: Final[Mapping[int, str]] = {
    zmq.Event.HANDSHAKE_FAILED_AUTH: "the VCM at {address} does not know our key: use a key file that was made there",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "what answers at {address} does not have the key that ours belongs to",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "what answers at {address} is no VCM",
}


class ZmqLink(Generic[S, R]):
    """Implements ``appliance.bus.ports.Link``."""

    def __init__(
        self, outgoing: Codec[S], incoming: Codec[R], *, version: int, most_bytes: int, incarnation: int
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._version = version
        self._most_bytes = most_bytes
        self._incarnation = incarnation
        self._attendance = Attendance(version)
        self._ways: Liveness[int] = Liveness(ROUTE_SILENCE_S)
        self._active = 0
        self._refused = ""
        self._addresses: tuple[str, ...] = ()
        self._cut: frozenset[int] = frozenset()
        self._inbox: Inbox[Joined | Gone | Refused | Heard[R]] = Inbox()
        self._sockets: list[zmq.asyncio.Socket] = []
        self._monitors: list[zmq.asyncio.Socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._context = zmq.asyncio.Context()

    async def connect(self, addresses: Sequence[str], keys: KeyPair, hub_key: bytes) -> None:
        """Connect to the hub at each ``address:port``, now or whenever it is there."""
        self._addresses = tuple(addresses)
        for number, address in enumerate(addresses):
            socket = self._context.socket(zmq.DEALER)
            set_limits(socket, self._most_bytes)
            socket.immediate = True  # nothing is kept for a hub that is not there: it would come late
            socket.curve_serverkey = hub_key
            socket.curve_publickey = keys.public
            socket.curve_secretkey = keys.secret
            self._sockets.append(socket)
            self._monitors.append(socket.get_monitor_socket())
            self._tasks.append(self._inbox.watched(self._watch(self._monitors[number], address)))
            socket.connect(f"tcp://{address}")
            self._tasks.append(self._inbox.watched(self._receive(number)))
        self._tasks.append(self._inbox.watched(self._tick()))

    def __aiter__(self) -> AsyncIterator[Joined | Gone | Refused | Heard[R]]:
        return self._inbox

    def send(self, message: S) -> bool:
        """Send a message to the hub; False: it is not there, or takes nothing in."""
        if HUB not in self._attendance:
            return False
        raw = self._outgoing.encode(message)
        return any(self._put(way, Kind.MESSAGE, raw) for way in self._answering())

    def cut(self, ways: Set[int]) -> None:
        """Use none of these ways, by their numbers, and all others: a fault that somebody has made (R19)."""
        for way, address in enumerate(self._addresses):
            if way in ways and way not in self._cut:
                self._sockets[way].disconnect(f"tcp://{address}")
            elif way not in ways and way in self._cut:
                self._sockets[way].connect(f"tcp://{address}")
        self._cut = frozenset(ways)

    async def close(self) -> None:
        """End it; what was sent last still goes out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._inbox.close()
        for socket, monitor in zip(self._sockets, self._monitors, strict=True):
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close()
        await asyncio.to_thread(self._context.term)  # which waits for what was sent last

    def _put(self, way: int, kind: Kind, *payload: bytes) -> bool:
        """Hand a frame to ZeroMQ, which refuses it where nobody is connected, or too many wait already."""
        parts = [head(kind, self._version, self._incarnation), *payload]
        return put(self._sockets[way], parts)

    async def _receive(self, way: int) -> None:
        while True:
            await self._inbox.room()
            parts = await self._sockets[way].recv_multipart()
            try:
                self._take(way, parts)
            except ProtocolError as error:
                log.error("the VCM sends what can't be used: %s", error)

    def _take(self, way: int, parts: list[bytes]) -> None:
        if len(parts) not in (1, 2):
            raise ProtocolError(f"{len(parts)} parts came in place of 1 or 2")
        frame = Head.parse(parts[0])
        if frame.kind == Kind.SUPERSEDED:
            self._refuse("the VCM knows a later process of our name: this one is of no use any more")
            return
        verdict, changes = self._attendance.arrived(HUB, frame, time.monotonic())
        if verdict is Verdict.WRONG_VERSION:
            self._refuse(
                f"the VCM speaks version {frame.version}, this process version {self._version}: run the same release"
                " on all machines"
            )
        if verdict is not Verdict.WELCOME:
            return
        if self._ways.heard(way, time.monotonic()):
            self._choose()
        for change in changes:
            self._refused = ""
            self._inbox.put(change)
        if len(parts) == 2:
            self._inbox.put(Heard(HUB, self._incoming.decode(parts[1])))

    async def _tick(self) -> None:
        while True:
            for way in range(len(self._sockets)):
                self._put(way, Kind.BEAT if way == self._active else Kind.PROBE)
            await asyncio.sleep(BEAT_S)
            if self._ways.tick(time.monotonic()):
                self._choose()
            for gone in self._attendance.tick(time.monotonic()):
                self._inbox.put(gone)

    def _answering(self) -> list[int]:
        """List the ways over which the hub answers, that which is in use first."""
        ways = [self._active, *(way for way in range(len(self._sockets)) if way != self._active)]
        return [way for way in ways if way in self._ways]

    def _choose(self) -> None:
        """Go on speaking over the way that is in use as long as it answers."""
        [way, *_] = self._answering() or [self._active]
        if way != self._active:
            log.warning("the VCM is silent at %s; going on at %s", self._addresses[self._active], self._addresses[way])
            self._active = way

    async def _watch(self, monitor: zmq.asyncio.Socket, address: str) -> None:
        """Hear from ZeroMQ why a connection does not come about."""
        while True:
            happened = await recv_monitor_message(monitor)
            reason = FAILED_HANDSHAKES.get(happened["event"])
            if reason is not None:
                self._refuse(reason.format(address=address))

    def _refuse(self, reason: str) -> None:
        """Tell once that the other end does not want us; it is asked again and again."""
        if reason != self._refused:
            self._refused = reason
            self._inbox.put(Refused(reason))
