"""What the processes of a system run: the VCM, the MIC, and each storage processor.

Each is one event loop. A core or the management decides, the bus carries, and what has to be done is done by the hands
of ``appliance.processor``; here they are put together, and taken apart when the supervisor says so.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

from appliance.bus.hub import ZmqHub
from appliance.bus.link import ZmqLink
from appliance.control.codec import FROM_MIC, FROM_SP, MOST_BYTES, TO_MIC, TO_SP, TO_VCM, VERSION, Codec
from appliance.control.orders import ToSp
from appliance.control.reports import FromSp, LegsLost, VolumeIs
from appliance.control.requests import FromMic, ToMic
from appliance.discovery import find_disks
from appliance.mic.management import Management
from appliance.mic.operations import Dispatcher
from appliance.mic.server import ApiServer
from appliance.mic.store import open_store
from appliance.mic.system_port import SystemPort
from appliance.namespaces import enter
from appliance.portals import Groups
from appliance.processes.system import MIC, VCM, Settings, Works
from appliance.processes.vcm import Vcm
from appliance.processes.words import Child, Hold, Ready, Release
from appliance.processor.cables import Cables, Listener, LoopbackHands, LoseAlus
from appliance.processor.hands import AllHands, Place
from appliance.processor.process import Processor
from appliance.recognition import ask_blkid
from appliance.topology import Sp, Topology
from appliance.vcm.core import CoherencyManager
from appliance.vcm.vocabulary import Site
from appliance.volumes import CLEAN_INTERVAL_S
from appliance.vsm import Identity, Vsm
from backstores.engine.engine import Engine
from backstores.engine.polling import PollingSelector

log = logging.getLogger(__name__)

SECRET_BYTES: Final = 24

AT_WORK_S: Final = 20.0
"""How long the management waits for storage processors at the start; who comes later comes late."""


def works() -> Works:
    """Give what the processes run, by their kinds."""
    return Works(vcm=run_vcm, mic=run_mic, sp=run_sp)


def run_vcm(settings: Settings, child: Child) -> None:
    """Be the VCM."""
    _loop(lambda ended: _vcm(settings, child, ended))


def run_mic(settings: Settings, child: Child) -> None:
    """Be the MIC."""
    _loop(lambda ended: _mic(settings, child, ended))


def run_sp(settings: Settings, child: Child) -> None:
    """Be a storage processor."""
    sp = settings.topology.sp(child.name)
    assert sp is not None, "the supervisor forks what the topology names"
    if settings.plan.prefix:
        enter(settings.plan.namespace(sp.name))
    _loop(lambda ended: _sp(settings, child, sp, ended))


def _loop(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    async def until_ended() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await work(ended)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PollingSelector())) as runner:
        runner.run(until_ended())


async def _until(ended: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Wait for the end, or for one of the tasks, which only ends when something is wrong."""
    waiting = asyncio.create_task(_wait(ended))
    try:
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        waiting.cancel()


async def _wait(ended: asyncio.Event) -> None:
    await ended.wait()


async def _stopped(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# The VCM


async def _vcm(settings: Settings, child: Child, ended: asyncio.Event) -> None:
    def outgoing(peer: str) -> Codec[Any]:  # each understands one of the two
        return TO_MIC if peer == MIC else TO_SP

    hub: ZmqHub[ToSp | ToMic, FromSp | FromMic] = ZmqHub(
        TO_VCM, outgoing, version=VERSION, most_bytes=MOST_BYTES, incarnation=child.incarnation
    )
    core = CoherencyManager(site_of(settings.topology), child.incarnation, lambda: secrets.token_urlsafe(SECRET_BYTES))
    await hub.start(settings.plan.bus(), settings.key(VCM).keys, settings.keys.who_has)
    task = asyncio.create_task(Vcm(core, hub, child).run())
    child.say(Ready())
    try:
        await _until(ended, task)
    finally:
        await _stopped(task)
        await hub.close()


def site_of(topology: Topology) -> Site:
    """Say what of a topology concerns the VCM."""
    return Site(
        sps=tuple(sp.name for sp in topology.sps),
        reach={alu.path: alu.sps for alu in topology.alus},
        faces={host.name: tuple(dict.fromkeys(port.sp for port in host.ports)) for host in topology.hosts},
    )


# A storage processor


async def _sp(settings: Settings, child: Child, sp: Sp, ended: asyncio.Event) -> None:
    link: ZmqLink[FromSp, ToSp] = ZmqLink(
        FROM_SP, TO_SP, version=VERSION, most_bytes=MOST_BYTES, incarnation=child.incarnation
    )
    place = place_of(settings, sp)
    identity = Identity(
        sp.name,
        child.incarnation,
        sp.blade,
        tuple(portal.numeric for portal in place.internal),
        tuple(portal.numeric for portals in place.hosts.values() for portal in portals),
    )
    async with Engine() as engine:
        processor: Processor | None = None

        def report(what: LegsLost | VolumeIs) -> None:
            assert processor is not None
            processor.report(what)

        def make_cables(internal: Listener, hosts: Listener, lose_alus: LoseAlus) -> Cables:
            # where there are real cables, the MIC pulls them: it is at their other ends
            plan = settings.plan
            doors = None if plan.prefix else LoopbackHands(plan, sp, internal, hosts, link.cut)
            return Cables(settings.topology, doors, sp.name, lose_alus)

        hands = AllHands(engine, place, report, ask_blkid, make_cables)
        await hands.start()
        key = settings.key(sp.name)
        await link.connect(settings.plan.bus_of(sp), key.keys, key.vcm_key)
        processor = Processor(Vsm(identity), link, hands)
        tasks = (asyncio.create_task(processor.run()), asyncio.create_task(_tend(hands)))
        child.say(Ready(", ".join(identity.host_portals)))
        try:
            await _until(ended, *tasks)
        finally:
            await _stopped(*tasks)
            await hands.close()
            await link.close()


async def _tend(hands: AllHands) -> None:
    while True:
        await asyncio.sleep(CLEAN_INTERVAL_S)
        await hands.tend()


def place_of(settings: Settings, sp: Sp) -> Place:
    """Say where a storage processor is in the system."""
    plan, groups = settings.plan, host_groups(settings)
    return Place(
        sp.name,
        settings.identity.susid,
        settings.identity.iqn,
        plan.internal(sp),
        {sp.number: groups.get(sp.number, ())},
        {tag: portals for tag, portals in groups.items() if tag != sp.number},
    )


def host_groups(settings: Settings) -> Groups:
    """Number the target portal groups: each storage processor is one, with a portal at each of its ports."""
    topology = settings.topology
    return {sp.number: [settings.plan.port(port) for port in topology.ports_of(sp.name)] for sp in topology.sps}


# The MIC


async def _mic(settings: Settings, child: Child, ended: asyncio.Event) -> None:
    store = await asyncio.to_thread(open_store, settings.state, settings.database)
    link: ZmqLink[FromMic, ToMic] = ZmqLink(
        FROM_MIC, TO_MIC, version=VERSION, most_bytes=MOST_BYTES, incarnation=child.incarnation
    )
    portals = [portal.numeric for group in host_groups(settings).values() for portal in group]

    def stop(sp: str, stopped: bool) -> None:
        child.say(Hold(sp) if stopped else Release(sp))

    who = settings.identity
    port = SystemPort(link, child.incarnation, who.susid, who.iqn, portals, stop, _cables(settings))
    management = Management(store, port, disks=find_disks, topology=settings.topology)
    server = ApiServer(Dispatcher(management), settings.state)
    await server.start()  # takes the lock of the state folder: from here on it is ours to change
    try:
        key = settings.key(MIC)
        await link.connect(settings.plan.bus(), key.keys, key.vcm_key)
        tasks = (asyncio.create_task(port.run()), asyncio.create_task(_start(settings, management, port, child)))
        try:
            await _until(ended, tasks[0])
        finally:
            port.stop()
            await _stopped(*tasks)
    finally:
        await server.close()
        await link.close()
        store.close()


def _cables(settings: Settings) -> Cables | None:
    """Give what pulls cables, where there are some."""
    if not settings.plan.prefix:
        return None
    from appliance.fabric.cables import NamespaceHands  # not needed on loopback

    return Cables(settings.topology, NamespaceHands(settings.plan))


async def _start(settings: Settings, management: Management, port: SystemPort, child: Child) -> None:
    """Bring on line what the settings and the topology name, once the storage processors are there."""
    try:
        async with asyncio.timeout(AT_WORK_S):
            await port.all_at_work()
    except TimeoutError:
        late = [sp.name for sp in port.sps() if sp.state != "at work"]
        log.error("going on without storage processors that have not come: %s", ", ".join(late) or "all")
    await management.start()
    await management.furnish(settings.topology)
    child.say(Ready(f"portal {', '.join(port.portals)}, management {settings.state / 'tiergate.sock'}"))
