"""``tiergate serve`` with a topology: a system of several storage processors, in the foreground."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from appliance.allocator import keep_freed_memory
from appliance.fabric.addresses import Plan
from appliance.front_end import Choice
from appliance.identity import Identity, settled
from appliance.mic.protocol import default_state
from appliance.naming import parse_susid, parse_target_name
from appliance.notify import ALIVE, READY, STOPPING, Notifier
from appliance.processes.keys import KeyFile, KeyRing, ensure_keys
from appliance.processes.roster import Post
from appliance.processes.supervisor import Pulse, Role, Supervisor
from appliance.processes.words import Child
from appliance.topology import Topology
from appliance.topologyfile import generate, read_topology
from backstores.errors import TiergateError, UsageError

log = logging.getLogger("tiergate")

SELECTING: Final = ("--topology", "--sps", "--namespaces")
"""Options that only a system has: ``tiergate serve`` with one of them is one."""

VCM: Final = "vcm"
MIC: Final = "mic"
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
PREFIX_DIGITS: Final = 6  # of the digest that tells the namespaces of one appliance from those of another


@dataclass(frozen=True, slots=True)
class Settings:
    """What every process of a system knows from its start."""

    state: Path
    plan: Plan
    keys: KeyRing
    database: str | None
    identity: Identity
    frontend: Choice

    @property
    def topology(self) -> Topology:
        """What the system is made of."""
        return self.plan.topology

    def key(self, name: str) -> KeyFile:
        """The key of a process."""
        return self.keys.files[name]


Work = Callable[[Settings, Child], None]


@dataclass(frozen=True, slots=True)
class Works:
    """What the processes run, by their kinds. ``appliance.processes.roles`` has the real ones."""

    vcm: Work
    mic: Work
    sp: Work


@dataclass(frozen=True, slots=True)
class Options:
    """What stands on the command line."""

    state: Path
    topology: Topology
    namespaces: bool
    database: str | None
    iqn: str | None
    susid: str | None
    frontend: Choice
    verbose: bool


def is_system(argv: Sequence[str]) -> bool:
    """Say whether a command line of ``tiergate serve`` means a system of several SPs."""
    return any(word.partition("=")[0] in SELECTING for word in argv)


def main(argv: Sequence[str], works: Works) -> int:
    """Run until a signal ends it, and give the exit status."""
    options = parse(argv)
    return in_foreground(lambda: serve(options, works), options.verbose)


def in_foreground(work: Callable[[], int], verbose: bool) -> int:
    """Log to the error stream, and give the work's exit status; an error is one line."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    keep_freed_memory()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # every session and every ALU takes one
    try:
        return work()
    except TiergateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; argparse ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="tiergate serve", description="Run a system of several storage processors in the foreground."
    )
    parser.add_argument("--state", type=Path, default=None, help="folder of settings and socket (TIERGATE_STATE)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--topology", type=Path, metavar="FILE", help="what the system is made of: examples/fig10.yaml")
    what.add_argument("--sps", type=int, metavar="N", help="a system of so many SPs, each on every fabric")
    parser.add_argument(
        "--namespaces",
        action="store_true",
        help="each SP in a network namespace of its own, each fabric a bridge; takes root. Without it: on loopback",
    )
    parser.add_argument(
        "--port", type=int, help="port of all portals, in place of the topology's; the bus has the next"
    )
    parser.add_argument(
        "--frontend",
        choices=[str(choice) for choice in Choice],
        default=str(Choice.AUTO),
        help="hosts reach volumes by the kernel's LIO, or by the portal in each SP; auto takes LIO where it can",
    )
    parser.add_argument("--database", metavar="URL", default=os.environ.get("TIERGATE_DATABASE"))
    parser.add_argument("--iqn", help="name of the target node; kept once it is set")
    parser.add_argument("--susid", help="be the appliance of this SUSID, after its settings were lost")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    found = parser.parse_args(list(argv))
    if found.topology is None and found.sps is None:
        parser.error("--namespaces needs --topology FILE or --sps N")
    state = (default_state(os.environ, os.geteuid()) if found.state is None else found.state).absolute()
    try:
        topology = generate(found.sps) if found.topology is None else topology_at(found.topology, state)
        if found.port is not None:
            topology = with_port(topology, found.port)
        iqn = None if found.iqn is None else parse_target_name(found.iqn)
        susid = None if found.susid is None else parse_susid(found.susid)
    except UsageError as error:
        parser.error(str(error))
    frontend = Choice(found.frontend)
    return Options(state, topology, found.namespaces, found.database, iqn, susid, frontend, found.verbose)


def topology_at(path: Path, state: Path) -> Topology:
    """Read a topology from its file.

    Raises:
        UsageError: it can't be read, or is none.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"topology {path} can't be read: {reason}") from error
    try:
        return read_topology(text, state)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def with_port(topology: Topology, port: int) -> Topology:
    """Have all portals listen on another port, and the bus on the next.

    Raises:
        UsageError: it is none.
    """
    if not 1 <= port < 65535:
        raise UsageError(f"port {port} is not between 1 and 65534")
    ports = tuple(replace(each, port=each.port if each.address else port) for each in topology.ports)
    return replace(topology, port=port, bus_port=port + 1, ports=ports)


def serve(options: Options, works: Works) -> int:
    """Serve until SIGINT or SIGTERM, and give the exit status.

    Raises:
        TiergateError: the system could not be started.
    """
    settings = settle(options)
    manager = Notifier(os.environ)

    at_work: set[str] = set()

    def tell_ready(name: str, text: str) -> None:
        log.info("%s is ready%s", name, f": {text}" if text else "")
        again = name in at_work
        at_work.add(name)
        if name == MIC and not again:
            print(f"ready: {text}", flush=True)
            manager.say(READY)

    pulse = None if manager.interval_s is None else Pulse(manager.interval_s, partial(manager.say, ALIVE))
    try:
        with cabled(settings.plan):
            return Supervisor(roles(settings, works), tell_ready, pulse).run()
    finally:
        manager.say(STOPPING)


@contextmanager
def cabled(plan: Plan) -> Iterator[None]:
    """Have the fabrics be there, when they are namespaces.

    Raises:
        UsageError: they can't be made.
    """
    if not plan.prefix:
        yield
        return
    from appliance.fabric import cables  # which an appliance on loopback never needs

    cables.build(plan)
    try:
        yield
    finally:
        cables.remove(plan)


def settle(options: Options) -> Settings:
    """Make what all processes need: the state folder, the keys, and the plan of addresses.

    Raises:
        TiergateError: the folder or a key can't be used.
    """
    try:
        options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"state folder {options.state} can't be used: {error.strerror}") from error
    plan = Plan(options.topology, prefix_of(options.state) if options.namespaces else "")
    who = settled(options.state, options.database, options.susid, options.iqn)
    keys = ensure_keys(options.state, [MIC, *(sp.name for sp in options.topology.sps)], who)
    return Settings(options.state, plan, keys, options.database, who, options.frontend)


def prefix_of(state: Path) -> str:
    """Give what the names of this appliance's namespaces and links begin with: the same at each start."""
    return "tg" + hashlib.sha256(os.fsencode(state)).hexdigest()[:PREFIX_DIGITS]


def roles(settings: Settings, works: Works) -> list[Role]:
    """List the processes; SPs end first, so that they stop their volumes while VCM and MIC are there."""
    return [
        Role(Post(VCM, stage=1), partial(works.vcm, settings), watches=True),
        Role(Post(MIC, stage=0, vital=True), partial(works.mic, settings), watches=True),
        *(
            Role(Post(sp.name, stage=2), partial(works.sp, settings))
            for sp in settings.topology.sps
            if not sp.elsewhere
        ),
    ]
