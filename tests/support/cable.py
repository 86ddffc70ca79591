"""A cable between two ends of TCP that a test can freeze or cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backstores.iscsi.initiator.endpoint import Endpoint

CHUNK_BYTES = 65536


class Cable:
    """Listens on loopback and carries bytes to and from ``far``. Frozen, it carries nothing and closes nothing."""

    def __init__(self, far: Endpoint) -> None:
        self.far = far
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self.carried = 0

    @property
    def near(self) -> Endpoint:
        """Where the initiator plugs in."""
        assert self._server is not None
        return Endpoint(*self._server.sockets[0].getsockname())

    async def plug(self) -> None:
        """Begin to listen, at the same place as before."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self.near.port

    async def unplug(self) -> None:
        """Listen no more, and cut what is there."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def freeze(self) -> None:
        """Carry nothing until ``thaw``."""
        self._whole.clear()

    def thaw(self) -> None:
        """Carry again, and what waited first."""
        self._whole.set()

    def cut(self) -> None:
        """Break all connections; new ones can be made."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _carry(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            far_in, far_out = await asyncio.open_connection(self.far.address, self.far.port)
        except OSError:
            near_out.close()
            return
        self._writers |= {near_out, far_out}
        ways = [asyncio.create_task(self._one_way(*way)) for way in ((near_in, far_out), (far_in, near_out))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)  # one end is gone, and the other goes with it
        for way in ways:
            way.cancel()
        for writer in (near_out, far_out):
            self._writers.discard(writer)
            writer.transport.abort()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _one_way(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            await self._whole.wait()
            self.carried += len(data)
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def cables(endpoints: list[Endpoint]) -> AsyncIterator[list[Cable]]:
    """Put a cable in front of each endpoint while the context lasts."""
    made = [Cable(endpoint) for endpoint in endpoints]
    for cable in made:
        await cable.plug()
    try:
        yield made
    finally:
        for cable in made:
            await cable.unplug()
