"""An appliance with the real management and API server over a fake storage processor.

``python -m tests.support.management STATE`` runs one in the foreground until it is told to stop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.messages import StorageProcessorPort
from appliance.mic.management import Management
from appliance.mic.operations import Dispatcher
from appliance.mic.server import ApiServer
from appliance.mic.settings import SettingsStore
from appliance.mic.store import open_store
from tests.support.fake_sp import FakeSp, MemoryStore


async def serve(
    state: Path, store: SettingsStore, sp: StorageProcessorPort, ready: asyncio.Event, stop: asyncio.Event
) -> None:
    """Serve until ``stop``."""
    management = Management(store, sp)
    await management.start()
    server = ApiServer(Dispatcher(management), state)
    await server.start()
    ready.set()
    await stop.wait()
    await server.close()


@contextmanager
def running(state: Path, store: SettingsStore | None = None, sp: FakeSp | None = None) -> Iterator[FakeSp]:
    """Run an appliance in a thread of this process while the context lasts."""
    sp = sp or FakeSp()
    started, loops = threading.Event(), []
    stop = asyncio.Event()

    async def body() -> None:
        loops.append(asyncio.get_running_loop())
        ready = asyncio.Event()
        task = asyncio.create_task(serve(state, store or MemoryStore(), sp, ready, stop))
        await ready.wait()
        started.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(body(),))
    thread.start()
    assert started.wait(20)
    try:
        yield sp
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(20)


async def _main(state: Path) -> None:
    loop, ready, stop = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    task = asyncio.create_task(serve(state, open_store(state), FakeSp(), ready, stop))
    await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
