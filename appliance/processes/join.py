"""``tiergate sp --join``: a storage processor on another machine than its VCM.

It has the key file that the VCM's machine made for it, and a copy of the topology, in which it is ``elsewhere``. If it
ends, it is forked again, as those beside the VCM are.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from appliance.fabric.addresses import Plan
from appliance.front_end import Choice
from appliance.identity import Identity
from appliance.mic.protocol import default_state
from appliance.portals import parse_portal
from appliance.processes.keys import KeyRing, read_key
from appliance.processes.roster import Post
from appliance.processes.supervisor import Role, Supervisor
from appliance.processes.system import Settings, Work, in_foreground, topology_at, with_port
from appliance.topology import Topology
from backstores.errors import UsageError

log = logging.getLogger("tiergate")


@dataclass(frozen=True, slots=True)
class Options:
    """What stands on the command line. ``vcm``: where it listens, on each internal fabric."""

    state: Path
    vcm: tuple[str, ...]
    key: Path
    topology: Topology
    verbose: bool


def main(argv: Sequence[str]) -> int:
    """Run until a signal ends it, and give the exit status."""
    options = parse(argv)
    from appliance.processes.roles import works  # all that the process imports, before it is forked

    return in_foreground(lambda: join(options, works().sp), options.verbose)


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; argparse ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="tiergate sp", description="Run one storage processor of a system whose VCM is on another machine."
    )
    parser.add_argument("--join", required=True, metavar="HOST[,HOST]", help="the VCM, on each internal fabric")
    parser.add_argument("--key", required=True, type=Path, metavar="FILE", help="the file that was made there for it")
    parser.add_argument("--topology", required=True, type=Path, metavar="FILE", help="a copy of the system's")
    parser.add_argument("--port", type=int, help="as the VCM was told")
    parser.add_argument("--state", type=Path, default=None, help="folder that paths of ALUs begin at (TIERGATE_STATE)")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    found = parser.parse_args(list(argv))
    state = (default_state(os.environ, os.geteuid()) if found.state is None else found.state).absolute()
    try:
        topology = topology_at(found.topology, state)
        if found.port is not None:
            topology = with_port(topology, found.port)
        vcm = tuple(_endpoint(text, topology.bus_port) for text in found.join.split(","))
    except UsageError as error:
        parser.error(str(error))
    return Options(state, vcm, found.key, topology, found.verbose)


def _endpoint(text: str, port: int) -> str:
    """Read where a VCM is, with or without a port."""
    alone = text.count(":") == 0 or text.endswith("]")
    return parse_portal(f"{text}:{port}" if alone else text).numeric


def join(options: Options, work: Work) -> int:
    """Be a storage processor until SIGINT or SIGTERM, and give the exit status.

    Raises:
        TiergateError: the key can't be used, or is not that of a storage processor that joins.
    """
    key = read_key(options.key)
    sp = options.topology.sp(key.name)
    if sp is None or not sp.elsewhere:
        there = ", ".join(each.name for each in options.topology.sps if each.elsewhere)
        raise UsageError(
            f"key file {options.key} is that of {key.name}, which does not join from elsewhere; the topology has"
            f" {there or 'none that does'}"
        )
    plan = Plan(options.topology, joined=options.vcm)
    who = Identity(key.susid, key.iqn)
    settings = Settings(options.state, plan, KeyRing({key.name: key}), None, who, Choice.EMBEDDED)

    def tell_ready(name: str, text: str) -> None:
        print(f"ready: {name} {text}", flush=True)

    return Supervisor([Role(Post(sp.name, vital=True), partial(work, settings))], tell_ready).run()
