"""``tiergate serve`` of a system whose processes do nothing but find each other on the bus.

python -m tests.support.standin_system OPTIONS
"""

from __future__ import annotations

import asyncio
import signal
import sys

from appliance.bus.hub import ZmqHub
from appliance.bus.link import ZmqLink
from appliance.bus.ports import HUB, Gone, Heard, Joined
from appliance.processes.system import MIC, Settings, Works, main
from appliance.processes.words import Child, Ready
from tests.support.bus import MOST_BYTES, WORDS


def work_vcm(settings: Settings, child: Child) -> None:
    """Tell the MIC who is there."""

    async def run() -> None:
        hub = ZmqHub(WORDS, lambda _: WORDS, version=1, most_bytes=MOST_BYTES, incarnation=child.incarnation)
        await hub.start(settings.plan.bus(), settings.key(HUB).keys, settings.keys.who_has)
        there: set[str] = set()
        async for event in hub:
            if isinstance(event, Joined):
                there.add(event.peer)
            elif isinstance(event, Gone):
                there.discard(event.peer)
            hub.send(MIC, " ".join(sorted(there)))

    _until_ended(run())


def work_mic(settings: Settings, child: Child) -> None:
    """Say so when all are there."""
    wanted = " ".join(sorted([MIC, *(sp.name for sp in settings.topology.sps)]))

    async def run() -> None:
        link = ZmqLink(WORDS, WORDS, version=1, most_bytes=MOST_BYTES, incarnation=child.incarnation)
        await link.connect(settings.plan.bus(), settings.key(MIC).keys, settings.key(MIC).vcm_key)
        async for event in link:
            if event == Heard(HUB, wanted):
                child.say(Ready(wanted))

    _until_ended(run())


def work_sp(settings: Settings, child: Child) -> None:
    """Be there."""
    sp = settings.topology.sp(child.name)
    assert sp is not None

    async def run() -> None:
        link = ZmqLink(WORDS, WORDS, version=1, most_bytes=MOST_BYTES, incarnation=child.incarnation)
        await link.connect(settings.plan.bus_of(sp), settings.key(sp.name).keys, settings.key(sp.name).vcm_key)
        async for _ in link:
            pass

    _until_ended(run())


def _until_ended(work: object) -> None:
    async def run() -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Works(work_vcm, work_mic, work_sp)))
