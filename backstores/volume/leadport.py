"""The way to the lead of a volume: by a session to its lead unit, or in tests by a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from backstores.block import BlockError, Busy, WriteFailed
from backstores.errors import TiergateError
from backstores.scsi.lead import Free, Hold, Return, Wanted, free_parameters, hold_parameters
from backstores.scsi.model import Response, Status
from backstores.scsi.sense import codes_of


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


Send = Callable[[bytes, bytes], Awaitable[Response]]
"""Send a CDB with its data to the lead unit: by one session, once. A ``TiergateError`` means that it is lost."""


class RemoteLead:
    """A ``LeadPort`` by the vendor specific commands of a lead unit."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def hold(self, wanted: Wanted, returns: Sequence[Return]) -> None:
        parameters = hold_parameters(wanted, returns)
        answer = await self._sent(Hold.build(parameter_bytes=len(parameters)), parameters)
        if answer.status is not Status.GOOD:
            raise _refusal(answer, wanted.lba)

    async def free(self, returns: Sequence[Return]) -> None:
        parameters = free_parameters(returns)
        answer = await self._sent(Free.build(parameter_bytes=len(parameters)), parameters)
        if answer.status is not Status.GOOD:
            raise LeadLost(f"the lead does not take ranges back: {_described(answer)}")

    async def _sent(self, cdb: bytes, parameters: bytes) -> Response:
        try:
            return await self._send(cdb, parameters)
        except TiergateError as error:
            raise LeadLost(f"the lead does not answer: {error}") from error


def _refusal(answer: Response, lba: int) -> BlockError:
    if answer.status in (Status.BUSY, Status.TASK_SET_FULL):
        return Busy("the lead is held, or has too many ranges to give", lba)
    return WriteFailed(f"the lead does not grant the range: {_described(answer)}", lba)


def _described(answer: Response) -> str:
    key, asc, ascq = codes_of(answer.sense)
    return f"{answer.status.name.lower()}, sense {key:x}/{asc:02x}/{ascq:02x}"
