"""What a test's initiator talks over: a connection's core without any I/O, or a portal that runs in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from backstores.iscsi.access import Access
from backstores.iscsi.connection import Connection
from backstores.iscsi.effects import Close, Manage
from backstores.iscsi.limits import Limits
from backstores.iscsi.portal import Portal
from backstores.iscsi.sender import SCRATCH_BYTES, Sender
from backstores.iscsi.session import SessionRegistry
from backstores.iscsi.tasks import Execute, Task
from backstores.scsi.model import Response
from tests.support.iscsi_twins import TARGET

T = TypeVar("T")


class Closed(Exception):
    """The target has closed the connection."""


class Silence(Exception):
    """The target has said nothing (more)."""


class Channel(Protocol):
    """A byte stream to a target."""

    def send(self, data: bytes) -> None: ...

    def receive(self, length: int) -> bytes:
        """Give exactly ``length`` bytes, or raise Closed or Silence."""

    def close(self) -> None: ...


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the coroutine waits")


class CoreChannel:
    """A connection's core, driven directly. With ``hold``, commands stay in ``running`` until ``finish``."""

    def __init__(
        self,
        access: Access,
        registry: SessionRegistry | None = None,
        limits: Limits | None = None,
        *,
        group_tag: int = 1,
        hold: bool = False,
    ) -> None:
        self.hold = hold
        self.running: list[Task] = []
        self.begun = 0
        self.functions: list[Manage] = []
        self.closed = ""
        self.sent = bytearray()
        self._unhandled = bytearray()
        self.core = Connection(
            access,
            SessionRegistry() if registry is None else registry,
            group_tag,
            "192.0.2.1",
            Sender(bytearray(SCRATCH_BYTES)),
            self._drop,
            0.0,
            limits or Limits(),
        )

    def _drop(self, reason: str) -> None:
        self.closed = reason
        self.core.end(reason)

    def send(self, data: bytes) -> None:
        self._unhandled += data
        while not self.closed:
            buffer = self._unhandled
            size = len(buffer)
            used = self.core.feed(
                buffer, memoryview(bytes(buffer)), 0, size
            )  # a copy: the bytearray must be free to grow
            self._unhandled = buffer[used:]
            if not self.settle() and not used:
                break

    def settle(self) -> bool:
        """Do the portal's part; tell whether there was any."""
        self.core.pump()
        sender = self.core.sender
        some = bool(sender.used or self.core.effects)
        self.sent += sender.raw[: sender.used]
        sender.used = 0
        effects, self.core.effects[:] = tuple(self.core.effects), ()
        for effect in effects:
            match effect:
                case Execute(task) if self.hold:
                    self._begin(task)
                    self.running.append(task)
                case Execute(task):
                    self._begin(task)
                    self.finish(task, run_now(self._nexus().execute(task.lun, task.command())))
                case Manage() if self.hold:
                    self.functions.append(effect)
                case Manage(function, lun, itt):
                    self.core.managed(effect, run_now(self._nexus().manage(function, lun, itt)))
                case Close(reason):
                    self._drop(reason)
        if some:
            self.settle()
        return some

    def _begin(self, task: Task) -> None:
        self.begun += 1
        self.core.begun(task)

    def _nexus(self) -> Any:
        assert self.core.session is not None
        return self.core.session.nexus

    def finish(self, task: Task, answer: Response | None) -> None:
        self.core.completed(task, answer)
        self.settle()

    def tick(self, now_s: float) -> None:
        self.core.tick(now_s)
        self.settle()

    def receive(self, length: int) -> bytes:
        if len(self.sent) < length:
            raise Closed(self.closed) if self.closed else Silence
        data = bytes(self.sent[:length])
        del self.sent[:length]
        return data

    def close(self) -> None:
        self._drop("the peer closed")


class SocketChannel:
    """A TCP connection."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10) -> None:
        self.socket = socket.create_connection(address, timeout_s)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                part = self.socket.recv(length - len(data))
            except ConnectionError as error:
                raise Closed from error
            except TimeoutError as error:
                raise Silence from error
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def close(self) -> None:
        self.socket.close()


@dataclass
class Served:
    """A portal in a thread."""

    portal: Portal
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        return self.portal.endpoint

    def url(self, target: str = TARGET, lun: int = 0) -> str:
        host, port = self.address
        return f"iscsi://{host}:{port}/{target}/{lun}"

    def call(self, function: Callable[[], T]) -> T:
        """Call something in the portal's loop."""

        async def calling() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(calling(), self.loop).result(10)


@contextlib.contextmanager
def serving(access: Access, limits: Limits | None = None, port: int = 0) -> Iterator[Served]:
    """Run a portal on loopback in a thread."""
    ready = threading.Event()
    served: list[Served] = []

    async def main() -> None:
        portal = Portal(access, limits=limits)
        await portal.start("127.0.0.1", port)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        served.append(Served(portal, loop))
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        ready.set()
        await stop.wait()
        await portal.close()

    stops: list[Callable[[], object]] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield served[0]
    finally:
        stops[0]()
        thread.join(10)
        assert not thread.is_alive()
