"""An initiator's serial numbers: CmdSN with its window, and ExpStatSN (RFC 7143, clause 4.2.2)."""

from __future__ import annotations

from backstores.errors import ProtocolError
from backstores.iscsi.serial import after, distance


class PeerError(ProtocolError):
    """A violation by the target, which ends the connection."""


class Serials:
    """``cmd_sn`` is the next command's, ``exp_stat_sn`` the next status's; ``max_cmd_sn`` ends the window."""

    __slots__ = ("cmd_sn", "exp_stat_sn", "max_cmd_sn")

    def __init__(self, cmd_sn: int) -> None:
        self.cmd_sn = cmd_sn
        self.max_cmd_sn = after(cmd_sn, -1)  # no command before the target says so
        self.exp_stat_sn = 0

    @property
    def room(self) -> int:
        """How many commands the target takes now."""
        return max(0, distance(self.cmd_sn, self.max_cmd_sn) + 1)

    def heard(self, exp_cmd_sn: int, max_cmd_sn: int) -> None:
        """Take the window that a PDU tells of; an older one, or one that makes no sense, says nothing (4.2.2.1)."""
        if distance(exp_cmd_sn, max_cmd_sn) >= -1 and distance(self.max_cmd_sn, max_cmd_sn) > 0:
            self.max_cmd_sn = max_cmd_sn

    def status(self, stat_sn: int) -> None:
        """Count a status.

        Raises:
            PeerError: one before it is missing, which nothing brings back at ErrorRecoveryLevel 0.
        """
        if stat_sn != self.exp_stat_sn:
            raise PeerError(f"StatSN {stat_sn} where {self.exp_stat_sn} comes next")
        self.exp_stat_sn = after(stat_sn)
