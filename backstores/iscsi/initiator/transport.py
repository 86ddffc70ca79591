"""The I/O side of one connection of the initiator: a socket, watched by the event loop.

It watches the socket itself, where the target's side uses a ``BufferedProtocol``: one ``readv`` so fills the rest
of a Data-In where it belongs *and* the receive buffer with what follows, and one ``writev`` sends a batch with
the data of large writes in it, uncopied.

It goes on reading while it can't send. A target that can't send stops reading; if both did, neither would go on.

A connection that is given up is reset (SO_LINGER 0). Otherwise the kernel would go on for minutes to deliver what
it had been given, and a write that was sent again by another path could overtake itself and newer ones.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from backstores.iscsi.initiator.connection import Connection, State
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.transport import ReceiveBuffer
from backstores.scsi.model import Status
from backstores.wire import Buffer

VIEWS_LIMIT: Final = 1024  # IOV_MAX of Linux
GOOD: Final = int(Status.GOOD)
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, at once


class Transport:
    """Feeds a core with what comes in, and carries out what it wants.

    ``changed`` is called when the core has moved on, before tasks hear that they have ended. A task that has not ended
    well is first shown to ``takes_back``, which may have it run once more.
    """

    def __init__(
        self,
        sock: socket.socket,
        core: Connection,
        buffer: ReceiveBuffer,
        tick_s: float,
        changed: Callable[[], None],
        takes_back: Callable[[Task], bool],
    ) -> None:
        self.kept = b""  # unhandled bytes while the receive buffer is another's
        self.core = core
        self._socket = sock
        self._fd = sock.fileno()
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self._changed = changed
        self._takes_back = takes_back
        self._unsent: deque[Buffer] = deque()
        self._flush_soon = False
        self._open = True
        self._loop.add_reader(self._fd, self._readable)
        self._timer = self._loop.call_later(tick_s, self._tick)
        self.flush()

    # Sending

    def flush_soon(self) -> None:
        """Send what stands in the outbox when this turn of the event loop is over: others may add to it."""
        if not self._flush_soon:
            self._flush_soon = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what stands in the outbox now."""
        self._flush_soon = False
        if self.core.outbox and self._open:
            blocked = bool(self._unsent)
            self._unsent.extend(self.core.outbox.take())
            if not blocked:
                self._send()
                if self._unsent:
                    self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        self._send()
        if not self._unsent and self._open:
            self._loop.remove_writer(self._fd)

    def _send(self) -> None:
        unsent = self._unsent
        while unsent:
            parts = [unsent[n] for n in range(min(len(unsent), VIEWS_LIMIT))]
            try:
                count = os.writev(self._fd, parts)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.end(f"can't send: {os.strerror(error.errno or 0)}")
                return
            self._sent(count)
        self.core.drained()

    def _sent(self, count: int) -> None:
        """Take what was sent off the front."""
        unsent = self._unsent
        while count:
            part = unsent.popleft()
            if count < len(part):
                unsent.appendleft(memoryview(part)[count:])
            count -= min(count, len(part))

    # Receiving

    def _readable(self) -> None:
        core, buffer = self.core, self._buffer
        buffer.claim(self)
        room = buffer.room()
        direct = core.direct
        try:
            count = os.readv(self._fd, (room,) if direct is None else (direct, room))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.end(f"can't receive: {os.strerror(error.errno or 0)}")
            return
        if not count:
            self.end("the target has closed the connection")
            return
        if direct is not None:
            straight = min(count, len(direct))
            core.received(straight)
            count -= straight
        buffer.end += count
        buffer.start = core.feed(buffer.raw, buffer.view, buffer.start, buffer.end)
        self.settle()

    # What follows

    def settle(self) -> None:
        """Carry out what the core has come to: a connection that is over is closed before anybody hears of it."""
        core = self.core
        if core.state is State.CLOSED:
            self._close()
        self._changed()
        ended = core.tasks.ended
        while ended:
            task = ended.popleft()
            if task.status == GOOD or not self._takes_back(task):
                task.done(task)
        self.flush()

    def end(self, reason: str) -> None:
        """Give the connection up."""
        self.core.end(reason)
        self.settle()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._tick_s, self._tick)
        self.core.tick(self._loop.time())
        self.settle()

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._unsent.clear()
        self._buffer.release(self)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
