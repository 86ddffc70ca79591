"""The management (MIC): the typed API behind the shell and every other front end (R14).

    front end → commands.bind → operations.Dispatcher → Management → settings, VBM, storage processor

The methods take values that are read already, and raise UsageError before anything has changed; what
had been begun is undone when a later step fails.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from appliance.control.values import SpState
from appliance.discovery import DiskFinder, no_disks
from appliance.messages import AluState, GsState, StorageProcessorPort, VolumeState
from appliance.mic.alus import Alus
from appliance.mic.commands import pattern_of
from appliance.mic.configuration import Configuration
from appliance.mic.fabrics import Fabrics
from appliance.mic.furnishing import furnish
from appliance.mic.gs import GsCommands
from appliance.mic.hosts import Hosts
from appliance.mic.operations import History
from appliance.mic.pools import Pools
from appliance.mic.settings import SettingsStore
from appliance.mic.state import Clock, ManagementState
from appliance.mic.views import SessionView, SpView, TreeNode
from appliance.mic.volumes import Volumes
from appliance.topology import Topology
from backstores.errors import UsageError

USABLE: Final = frozenset({AluState.OWNED, AluState.LEGACY})


class Management:
    """All that a person can ask of the appliance."""

    def __init__(
        self,
        store: SettingsStore,
        sp: StorageProcessorPort,
        clock: Clock = lambda: datetime.now(UTC),
        disks: DiskFinder = no_disks,
        topology: Topology | None = None,
    ) -> None:
        self._state = ManagementState(store, sp, clock)
        self.started = asyncio.Event()
        self.history: History = History(clock)
        self.alus: Alus = Alus(self._state, disks)
        self.pools: Pools = Pools(self._state)
        self.volumes: Volumes = Volumes(self._state)
        self.hosts: Hosts = Hosts(self._state)
        self.gs: GsCommands = GsCommands(self._state)
        self.fabrics: Fabrics = Fabrics(self._state, topology)
        self.configuration: Configuration = Configuration(self._state, self.alus, self.volumes)

    async def start(self) -> None:
        """Attach what the settings name, bring the volumes on line, and let the hosts in."""
        await self._state.load()
        self.started.set()

    async def furnish(self, topology: Topology) -> None:
        """Take in what a topology names beside storage processors."""
        await furnish(self._state, topology, self.alus, self.hosts)

    async def sessions(self) -> tuple[SessionView, ...]:
        """List who is logged in."""
        return tuple(
            SessionView(host=s.host, initiator=s.initiator, address=s.address, luns=s.luns)
            for s in self._state.sp.sessions()
        )

    async def sps(self) -> tuple[SpView, ...]:
        """Tell how the storage processors are."""
        port = self._state.sp
        return tuple(
            SpView(
                name=sp.name,
                state=sp.state,
                blade=sp.blade,
                master=sp.master,
                epoch=sp.epoch,
                portal=next(iter(sp.host_portals), ""),
                portals=sp.host_portals,
                target=port.target_iqn,
                susid=port.susid,
                gs=port.global_set().state,
                alus=sp.alus,
                volumes=sp.t2_volumes,
                partitions=sp.t1_volumes,
                sessions=len(port.sessions(sp=sp.name)),
                load=round(sp.load, 2),
                step=sp.step,
                detail=sp.detail,
            )
            for sp in port.sps()
        )

    async def nodes(self, path: str) -> TreeNode:
        """Give the tree of all that can be named by a path, from this path down.

        Raises:
            UsageError: nothing is there.
        """
        node = TreeNode(
            "/",
            self._state.sp.target_iqn,
            children=(await self._alus(), self._pools(), await self._volumes(), await self._hosts(), *self._leaves()),
        )
        pattern_of(path)
        for part in filter(None, path.split("/")):
            below = {child.name: child for child in node.children}
            if part not in below:
                there = ", ".join(below) or "nothing"
                raise UsageError(f"there is no {part} in {node.name}; there is {there}")
            node = below[part]
        return node

    async def _alus(self) -> TreeNode:
        rows = await self.alus.rows()
        return _folder(
            "alus",
            [TreeNode(r.name, f"{r.state}, {r.size}, {r.free} free", r.state in USABLE) for r in rows],
        )

    def _pools(self) -> TreeNode:
        return _folder("pools", [TreeNode(p.name, ", ".join(p.alus)) for p in self._state.settings.pools])

    async def _volumes(self) -> TreeNode:
        rows = await self.volumes.rows()
        return _folder(
            "volumes",
            [TreeNode(r.name, f"{r.state}, {r.size}, {r.layout}", r.state == VolumeState.ONLINE) for r in rows],
        )

    async def _hosts(self) -> TreeNode:
        rows = await self.hosts.rows()
        return _folder("hosts", [TreeNode(r.name, f"{r.iqn}, sees {', '.join(r.volumes) or 'nothing'}") for r in rows])

    def _leaves(self) -> tuple[TreeNode, ...]:
        sp = self._state.sp
        return (
            TreeNode("sessions", f"{len(sp.sessions())} logged in"),
            TreeNode("sps", f"{len(sp.sps())}", all(one.state is SpState.AT_WORK for one in sp.sps())),
            TreeNode("fabrics", "between storage processors"),
            TreeNode("faults", "made on purpose"),
            TreeNode("gs", sp.global_set().state, sp.global_set().state != GsState.READ_ONLY),
            TreeNode("operations", "the latest changes"),
        )


def _folder(name: str, nodes: list[TreeNode]) -> TreeNode:
    return TreeNode(name, f"{len(nodes)}" if nodes else "none", children=tuple(nodes))
