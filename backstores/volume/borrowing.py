"""The ranges that a follower has from the lead (D4).

Ranges are given back lazily: with the next HOLD, or ``RETURN_WITHIN_S`` later, for others may wait for them; at once
where it is ourselves who wait. A range is *settled* unless a change was begun in it and not carried through.

A port that is lost may have granted what we have not heard of. So each attempt has a number of its own, and every
number is given back in the end, by whatever port there is then. A lead that never knew it passes it over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from backstores.block import BlockError
from backstores.scsi.lead import MOST_RETURNS, Return, Wanted
from backstores.volume.door import Door
from backstores.volume.gate import HoldLimits
from backstores.volume.leadport import LeadLost, LeadPort

log = logging.getLogger(__name__)

RETURN_WITHIN_S: Final = 0.002
SERIAL_BITS: Final = 62
"""Of the number that a follower begins with: none that it had before it was started anew comes back."""


@dataclass(slots=True)
class Loan:
    """A range that the lead has given. ``in_doubt``: a change was begun in it, and not carried through."""

    lead: LeadPort
    serial: int
    in_doubt: bool = False


class Borrower:
    """Asks the lead for ranges, and gives them back."""

    def __init__(self, lead: LeadPort, lost: Callable[[], None], limits: HoldLimits) -> None:
        self._lead = lead
        self._lost = lost
        self._limits = limits
        self._leading = Door()  # closed while there is no lead
        self._serials = itertools.count(secrets.randbits(SERIAL_BITS))
        self._waiting: dict[int, tuple[int, int]] = {}
        self._unsent: list[Return] = []
        self._timer: asyncio.Handle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def valid(self, loan: Loan) -> bool:
        """Whether the lead that has given a range is the one there is."""
        return loan.lead is self._lead and self._leading.is_open

    def follow(self, lead: LeadPort) -> None:
        """Go on with another lead, or the same one by another session."""
        self._lead = lead
        self._leading.resume()
        self.give_back_soon()

    @asynccontextmanager
    async def borrow(self, lba: int, blocks: int) -> AsyncIterator[Loan]:
        """Have a range for as long as the context lasts.

        Raises:
            Busy: there is no lead, and we have waited for too long; or the lead says so.
            BlockError: the lead refuses.
        """
        with self._leading.visit(lba):
            loan = await self._granted(lba, blocks)
        try:
            yield loan
        finally:
            self._return(Return(loan.serial, not loan.in_doubt), lba, blocks)

    async def give_back(self) -> None:
        """Tell the lead of everything that it has back, as far as it can be told."""
        while self._unsent and self._leading.is_open:
            lead, returns = self._lead, self._take_unsent()
            try:
                await lead.free(returns)
            except LeadLost as error:
                self._unsent += returns
                self._lose(lead, error)
            except asyncio.CancelledError:
                self._unsent += returns
                raise

    def give_back_soon(self) -> None:
        """Tell the lead, without a wait for others to be told of with it."""
        asyncio.get_running_loop().call_soon(self._send)

    async def _granted(self, lba: int, blocks: int) -> Loan:
        while True:
            await self._leading.begin(lba)
            self._leading.end()
            loan = Loan(self._lead, next(self._serials))
            self._waiting[loan.serial] = (lba, blocks)
            returns = self._take_unsent()
            try:
                await loan.lead.hold(Wanted(loan.serial, lba, blocks), returns)
                return loan
            except LeadLost as error:
                self._unsent += [*returns, Return(loan.serial, True)]
                self._lose(loan.lead, error)
            except BlockError:
                self._return(Return(loan.serial, True), lba, blocks)  # it may have been granted and then aborted
                raise
            except asyncio.CancelledError:
                self._unsent += returns
                self._return(Return(loan.serial, True), lba, blocks)
                raise
            finally:
                del self._waiting[loan.serial]

    def _lose(self, lead: LeadPort, error: LeadLost) -> None:
        if lead is self._lead and self._leading.is_open:
            log.error("%s", error)
            self._leading.close(self._limits)
            self._lost()

    def _return(self, returned: Return, lba: int, blocks: int) -> None:
        self._unsent.append(returned)
        if any(at < lba + blocks and lba < at + n for at, n in self._waiting.values()):
            self.give_back_soon()  # it is we ourselves who wait for it
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETURN_WITHIN_S, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unsent:
            task = asyncio.ensure_future(self.give_back())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def _take_unsent(self) -> list[Return]:
        taken, self._unsent = self._unsent[:MOST_RETURNS], self._unsent[MOST_RETURNS:]
        return taken
