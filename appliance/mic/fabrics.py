"""Fabrics and faults: what the system is connected by, and the parts of it that were failed on purpose (R19)."""

from __future__ import annotations

from appliance.fabric.faults import check_part
from appliance.mic.state import ManagementState
from appliance.mic.views import FabricView, FaultView, Outcome
from appliance.topology import Topology
from backstores.errors import UsageError


class Fabrics:
    """The commands of /fabrics and /faults."""

    def __init__(self, state: ManagementState, topology: Topology | None) -> None:
        self._state = state
        self._topology = topology
        self._failed: dict[str, str] = {}  # part: since when

    async def fabrics(self) -> tuple[FabricView, ...]:
        """List the fabrics; an appliance of one storage processor has none."""
        if self._topology is None:
            return ()
        return tuple(
            FabricView(
                name=fabric.name,
                kind=fabric.kind,
                sps=tuple(sp.name for sp in self._topology.sps if fabric.name in sp.fabrics),
                failed=tuple(part for part in self._failed if _is_of(part, fabric.name)),
            )
            for fabric in self._topology.fabrics
        )

    async def faults(self) -> tuple[FaultView, ...]:
        """List the parts that were failed on purpose, and are."""
        return tuple(FaultView(part=part, since=since) for part, since in self._failed.items())

    async def inject(self, part: str) -> Outcome:
        """Fail a part of the system: a link, a fabric, a port, a storage processor, a blade, the way to an ALU."""
        if self._topology is not None:
            check_part(part, self._topology)
        if part in self._failed:
            return Outcome(f"{part} has failed already", changed=False)
        await self._state.sp.fault(part, failed=True)
        self._failed[part] = self._state.clock().isoformat(timespec="seconds")
        return Outcome(f"{part} has failed")

    async def restore(self, part: str) -> Outcome:
        """Restore a part that was failed on purpose."""
        if part not in self._failed:
            there = ", ".join(self._failed) or "nothing"
            raise UsageError(f"{part} was not failed on purpose; what was: {there}")
        await self._state.sp.fault(part, failed=False)
        del self._failed[part]
        return Outcome(f"{part} is restored")


def _is_of(part: str, fabric: str) -> bool:
    """Whether a part is a fabric, a link to it, or a port at it."""
    kind, _, name = part.partition(":")
    return kind in ("fabric", "link", "port") and name.rpartition("/")[2] == fabric
