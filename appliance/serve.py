"""``tiergate serve``: one storage processor with its management, in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.allocator import keep_freed_memory
from appliance.demo import make_demo
from appliance.discovery import find_disks
from appliance.front_end import Choice, choose
from appliance.identity import identity, keep
from appliance.lio.machine import prepare
from appliance.mic.commands import bind
from appliance.mic.management import Management
from appliance.mic.operations import Dispatcher
from appliance.mic.protocol import default_state
from appliance.mic.server import ApiServer
from appliance.mic.store import Store, open_store
from appliance.mic.views import untold
from appliance.naming import parse_susid, parse_target_name
from appliance.notify import READY, STOPPING, Notifier
from appliance.portals import PortalAddress, parse_portals
from appliance.processes.system import is_system
from appliance.sp import StorageProcessor
from backstores.engine.engine import Engine
from backstores.engine.polling import PollingSelector
from backstores.errors import TiergateError, UsageError

log = logging.getLogger("tiergate")

DEFAULT_PORTAL = "0.0.0.0:3260"


@dataclass(frozen=True, slots=True)
class Options:
    """What stands on the command line."""

    state: Path
    portals: tuple[PortalAddress, ...]
    database: str | None
    iqn: str | None
    susid: str | None
    frontend: Choice
    demo: bool
    scan: bool
    verbose: bool


def main(argv: Sequence[str]) -> int:
    """Run until a signal ends it, and give the exit status. A system of several storage processors has its own."""
    if is_system(argv):
        from appliance.processes import roles, system  # all that its processes import, before the first is forked

        return system.main(argv, roles.works())
    options = parse(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PollingSelector())) as runner:
            runner.run(serve(options))
    except TiergateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; argparse ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="tiergate serve", description="Run the appliance in the foreground.")
    parser.add_argument("--state", type=Path, default=None, help="folder of settings and socket (TIERGATE_STATE)")
    parser.add_argument(
        "--portal",
        action="append",
        metavar="[NAMESPACE/]ADDRESS:PORT",
        help=f"where hosts log in, default {DEFAULT_PORTAL}; may be given again, and lie in a network namespace",
    )
    parser.add_argument(
        "--frontend",
        choices=[str(choice) for choice in Choice],
        default=str(Choice.AUTO),
        help="hosts reach volumes by the kernel's LIO, or by the portal in this process; auto (the default) takes LIO"
        " where it can",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        default=os.environ.get("TIERGATE_DATABASE"),  # a password on the command line would show in a process list
        help="keep the settings elsewhere, such as postgresql+psycopg://… (TIERGATE_DATABASE)",
    )
    parser.add_argument("--iqn", help="name of the target node; kept once it is set")
    parser.add_argument(
        "--susid", help="be the appliance of this SUSID, after its settings were lost; `alus NAME info` shows an ALU's"
    )
    parser.add_argument("--demo", action="store_true", help="make a demonstration volume on files in the state folder")
    parser.add_argument("--scan", action="store_true", help="look for disks that nobody uses; list them, to be claimed")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    found = parser.parse_args(list(argv))
    try:
        portals = parse_portals(found.portal or [DEFAULT_PORTAL])
        iqn = None if found.iqn is None else parse_target_name(found.iqn)
        susid = None if found.susid is None else parse_susid(found.susid)
    except UsageError as error:
        parser.error(str(error))
    state = (default_state(os.environ, os.geteuid()) if found.state is None else found.state).absolute()
    frontend = Choice(found.frontend)
    return Options(state, portals, found.database, iqn, susid, frontend, found.demo, found.scan, found.verbose)


async def serve(options: Options) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        TiergateError: the appliance could not be started.
    """
    _allow_many_files()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await asyncio.to_thread(open_store, options.state, options.database)
    except OSError as error:
        raise UsageError(f"state folder {options.state} can't be used: {error.strerror}") from error
    try:
        async with Engine() as engine:
            await _serve(options, store, engine, ended)
    finally:
        store.close()


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: every session and every ALU takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(options: Options, store: Store, engine: Engine, ended: asyncio.Event) -> None:
    who = identity(store, options.state, options.susid, options.iqn)
    front_end = await choose(options.frontend, prepare)
    log.info("front end: %s (%s)", front_end.name, front_end.why)
    sp = StorageProcessor(engine, store, who.susid, who.iqn, options.portals, lio=front_end.lio)
    management = Management(store, sp, disks=find_disks)
    dispatcher = Dispatcher(management)
    manager = Notifier(os.environ)
    server = ApiServer(dispatcher, options.state)
    await server.start()  # takes the lock of the state folder: from here on it is ours to change
    try:
        await asyncio.to_thread(keep, who, store)
        if await _started(options, management, dispatcher, sp, ended):
            log.info("uncached I/O by %s; target %s", engine.backend, who.iqn)
            print(f"ready: portal {', '.join(sp.portals)}, management {options.state / 'tiergate.sock'}", flush=True)
            manager.say(READY)
            async with manager.watched():
                await ended.wait()
        log.info("stopping")
        manager.say(STOPPING)
    finally:
        await server.close()
        await sp.close()


async def _started(
    options: Options, management: Management, dispatcher: Dispatcher, sp: StorageProcessor, ended: asyncio.Event
) -> bool:
    """Start step by step; a signal that comes meanwhile takes effect after the step that runs."""
    await management.start()
    if not ended.is_set():
        await sp.open_portal()
    if options.scan and not ended.is_set():
        await _scan(dispatcher)
    if options.demo and not ended.is_set():
        await make_demo(management, options.state)
    return not ended.is_set()


async def _scan(dispatcher: Dispatcher) -> None:
    """Look for disks when hosts are let in already: one that is slow to answer holds up no volume (C3)."""
    try:
        await dispatcher.run(bind("/alus", "scan", {}), untold)
    except TiergateError as error:
        log.error("the scan for disks failed: %s", error)
