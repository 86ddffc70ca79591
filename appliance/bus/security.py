"""Keys on the bus: who may speak (ZAP, ZeroMQ RFC 27), and how sockets are set up (CURVE, ZeroMQ RFC 26)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils import z85

log = logging.getLogger(__name__)

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
ZAP_VERSION: Final = b"1.0"
ZAP_PARTS: Final = 7  # version, request, domain, address, identity, mechanism, key
RAW_KEY_BYTES: Final = 32
ADMITTED: Final = b"200"
TURNED_AWAY: Final = b"400"
QUIET_S: Final = 60.0  # between two lines about unknown keys

HANDSHAKE_MS: Final = 5_000
CONNECT_MS: Final = 2_000
RECONNECT_MS: Final = 100
RECONNECT_MOST_MS: Final = 1_000
KEEPALIVE_S: Final = 3  # silence after which the kernel asks whether the other end is there, and how long it tries
LINGER_MS: Final = 1_000  # for the last words of a process that ends
MOST_QUEUED: Final = 256  # messages for one peer that does not take them

WhoHas = Callable[[bytes], str | None]
"""Tells whose public key (in Z85) this is; None: nobody's."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair in Z85, 40 characters each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"  # no secret in a log


def make_key_pair() -> KeyPair:
    """Make a new one."""
    return KeyPair(*zmq.curve_keypair())


def set_limits(socket: zmq.asyncio.Socket, most_bytes: int) -> None:
    """Bound what a socket takes in and keeps, and how long it believes in a connection."""
    socket.maxmsgsize = most_bytes
    socket.sndhwm = socket.rcvhwm = MOST_QUEUED
    socket.linger = LINGER_MS
    socket.handshake_ivl = HANDSHAKE_MS
    # No heartbeats of ZeroMQ's own: one that is due on a connection which has broken while input was stopped ends the
    # whole process (libzmq 4.3.5, an assertion in stream_engine_base_t::out_event). We have beats; TCP does the rest.
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = socket.tcp_keepalive_cnt = KEEPALIVE_S
    socket.connect_timeout = CONNECT_MS
    socket.reconnect_ivl = RECONNECT_MS
    socket.reconnect_ivl_max = RECONNECT_MOST_MS


def put(socket: zmq.asyncio.Socket, parts: list[bytes]) -> bool:
    """Hand a message to ZeroMQ at once; False: nobody is there who would take it."""
    sent = socket.send_multipart(parts, zmq.NOBLOCK)
    assert isinstance(sent, asyncio.Future), "zmq.asyncio gives a future, which is done if it must not wait"
    return sent.exception() is None


class Doorkeeper:
    """Answers for all sockets of a context whether a key is known, and gives its owner's name to what it sends."""

    def __init__(self, context: zmq.asyncio.Context, who_has: WhoHas, clock: Callable[[], float] = time.monotonic):
        self._who_has = who_has
        self._clock = clock
        self._refused = 0
        self._told_s: float | None = None
        self._socket = context.socket(zmq.REP)
        self._socket.bind(ZAP_ENDPOINT)
        self._task = asyncio.create_task(self._answer())

    async def close(self) -> None:
        """Let nobody in any more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close(linger=0)

    async def _answer(self) -> None:
        while True:
            request = await self._socket.recv_multipart()
            await self._socket.send_multipart(self._judged(request))

    def _judged(self, request: list[bytes]) -> list[bytes]:
        if len(request) != ZAP_PARTS or len(request[-1]) != RAW_KEY_BYTES:
            number = request[1] if len(request) > 1 else b""
            return [ZAP_VERSION, number, TURNED_AWAY, b"no key", b"", b""]
        _, number, _, address, _, _, key = request
        name = self._who_has(z85.encode(key))
        if name is None:
            self._refuse(address.decode("ascii", "replace"))
            return [ZAP_VERSION, number, TURNED_AWAY, b"unknown key", b"", b""]
        return [ZAP_VERSION, number, ADMITTED, b"", name.encode(), b""]

    def _refuse(self, address: str) -> None:
        """Tell of it, but not of each: whoever has no key tries for ever."""
        self._refused += 1
        now_s = self._clock()
        if self._told_s is None or now_s - self._told_s >= QUIET_S:
            log.warning("turned away a connection from %s: its key is not known (%d so far)", address, self._refused)
            self._told_s = now_s
