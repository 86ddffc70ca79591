"""The way to the lead of a volume: by a session to its lead unit, or in tests by a call."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final, Protocol

from backstores.block import Busy, WriteFailed
from backstores.errors import TiergateError
from backstores.iscsi.initiator.outcome import CommandFailed
from backstores.scsi.lead import Free, Hold, Return, Wanted, free_parameters, hold_parameters

LOST: Final = frozenset({errno.ENOTCONN, errno.ENODEV, errno.EOPNOTSUPP})
"""No answer; or the lead unit is not there any more."""


class LeadLost(TiergateError):
    """The lead does not answer any more, at least not by this way."""


class LeadPort(Protocol):
    """One nexus to a lead. Once it is lost it stays so; the same lead by another session is another port."""

    async def hold(self, wanted: Wanted, returns: Sequence[Return]) -> None:
        """Give holdings back, and wait for a range.

        Raises:
            LeadLost: nobody knows whether it was granted.
            BlockError: it was refused; what was given back was taken.
        """

    async def free(self, returns: Sequence[Return]) -> None:
        """Give holdings back. Doing so twice does no harm.

        Raises:
            LeadLost: nobody knows whether they were taken.
        """


class Target(Protocol):
    """The target with the lead unit; ``backstores.iscsi.initiator.target`` has one."""

    async def execute(
        self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"", *, repeatable: bool = True
    ) -> object:
        """Run one command; raises CommandFailed."""


class RemoteLead:
    """A ``LeadPort`` by the vendor specific commands of a lead unit."""

    def __init__(self, target: Target, lun: int) -> None:
        self._target = target
        self._lun = lun

    async def hold(self, wanted: Wanted, returns: Sequence[Return]) -> None:
        parameters = hold_parameters(wanted, returns)
        try:
            await self._send(Hold.build(parameter_bytes=len(parameters)), parameters)
        except CommandFailed as error:
            if error.errno in LOST:
                raise LeadLost(f"the lead does not answer: {error}") from error
            if error.errno == errno.EBUSY:
                raise Busy(f"the lead is held, or has given too many ranges: {error}", wanted.lba) from error
            raise WriteFailed(f"the lead does not grant the range: {error}", wanted.lba) from error

    async def free(self, returns: Sequence[Return]) -> None:
        parameters = free_parameters(returns)
        try:
            await self._send(Free.build(parameter_bytes=len(parameters)), parameters)
        except CommandFailed as error:
            raise LeadLost(f"the lead does not take ranges back: {error}") from error

    async def _send(self, cdb: bytes, parameters: bytes) -> None:
        # Repeated by another path, a HOLD could be granted twice.
        await self._target.execute(self._lun, cdb, data_out=parameters, repeatable=False)
