"""What a topology names beside storage processors: ALUs and hosts, which become settings like any others."""

from __future__ import annotations

import logging

from appliance.messages import HostDefinition
from appliance.mic.alus import Alus
from appliance.mic.hosts import Hosts
from appliance.mic.state import ManagementState
from appliance.topology import Topology
from backstores.errors import TiergateError

log = logging.getLogger(__name__)


async def furnish(state: ManagementState, topology: Topology, alus: Alus, hosts: Hosts) -> None:
    """Attach the ALUs that a topology names, and create its hosts, unless they are settings already.

    What can't be done is told, and keeps nothing else from being done (C3).
    """
    known = {alu.name for alu in state.settings.alus}
    for alu in topology.alus:
        if alu.name not in known:
            try:
                outcome = await alus.attach(alu.path, alu.size_bytes, alu.name)
                log.info("%s", "; ".join([outcome.message, *outcome.notes]))
            except TiergateError as error:
                log.error("alu %s of the topology: %s", alu.name, error)
    there = {host.name for host in state.settings.hosts}
    for host in topology.hosts:
        if host.name not in there:
            try:
                await hosts.put(HostDefinition(name=host.name, iqn=host.iqn))
            except TiergateError as error:
                log.error("host %s of the topology: %s", host.name, error)
