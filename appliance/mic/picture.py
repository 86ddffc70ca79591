"""What the MIC knows of the system: the picture that the VCM keeps for it, delta by delta.

Each message of a VCM has a serial number. Where one is missing, or the VCM is another, the picture is asked for from
the beginning; until its end has come, people see the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.control.requests import (
    AluChanged,
    AluGone,
    Delta,
    GsChanged,
    SessionsChanged,
    SpChanged,
    VolumeChanged,
    VolumeGone,
)
from appliance.control.values import SpStatus
from appliance.messages import AluStatus, GsState, GsStatus, SessionStatus
from backstores.wwn import Wwn


@dataclass(slots=True)
class Picture:
    """The system, as it was told last."""

    alus: dict[str, AluChanged] = field(default_factory=dict)
    volumes: dict[Wwn, VolumeChanged] = field(default_factory=dict)
    sps: dict[str, SpStatus] = field(default_factory=dict)
    sessions: dict[str, tuple[SessionStatus, ...]] = field(default_factory=dict)
    gs: GsStatus = field(default_factory=lambda: GsStatus(state=GsState.NONE))

    def apply(self, delta: Delta) -> None:
        """Take a change in."""
        match delta:
            case AluChanged():
                self.alus[delta.alu.path] = delta
            case AluGone():
                self.alus.pop(delta.path, None)
            case VolumeChanged():
                self.volumes[delta.volume.wwn] = delta
            case VolumeGone():
                self.volumes.pop(delta.volume, None)
            case SpChanged():
                self.sps[delta.sp.name] = delta.sp
            case SessionsChanged():
                self.sessions[delta.sp] = delta.sessions
            case GsChanged():
                self.gs = delta.gs

    def alu(self, path: str) -> AluStatus | None:
        """Find an ALU by its path."""
        found = self.alus.get(path)
        return None if found is None else found.alu
