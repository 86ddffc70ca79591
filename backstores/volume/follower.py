"""An instance of a volume on a storage processor that does not lead it (D4).

It has the same tree as the lead and reads and writes legs itself; no data goes through the lead. Before a change it
borrows the range (``borrowing``): the lead keeps other writers out, and has made the dirty bits durable (D2). So the
plan is that of the lead without its marks.

It decides nothing that others must know. A leg that fails it reports, and holds itself until the system has made the
tree without it (D3); then the request is planned anew, which is harmless since it writes the same data to the same
blocks. A lead that is lost it reports, too: writes wait for another, reads go on. Whatever waits does so within limits,
and is then told to ask again (D7).

Until it is told that all legs are equal, it reads the first leg in sync alone, as the lead does while it copies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backstores.alu.base import AluDriver
from backstores.block import MUTATING, Busy, MarkDirty, Op, Plan, Request, Run, check, plan
from backstores.device import Submit
from backstores.engine.beside import second_hand
from backstores.engine.engine import Engine
from backstores.engine.executor import StageFailed
from backstores.errors import UsageError
from backstores.objects import AnyObject, LegState, MirrorObject
from backstores.transforms.flat import FlatMap
from backstores.volume import hotpath, loss
from backstores.volume.answers import block_error, failures, final, joined, out_of_reach
from backstores.volume.borrowing import Borrower, Loan
from backstores.volume.gate import HoldLimits
from backstores.volume.instance import Instance
from backstores.volume.leadport import LeadPort
from backstores.wwn import Wwn

LegsLost = Callable[[Mapping[Wwn, set[Wwn]]], None]
"""Hear that legs (by mirror) have failed. The follower is held until it is resumed."""
Legs = frozenset[tuple[Wwn, Wwn]]
NO_REGIONS = hotpath.RegionStates(bytearray(), 0)


class _Stale(Busy):
    """The range was borrowed from another lead, or for a tree with fewer legs."""


class Follower(Instance):
    """A ``backstores.device.BlockDevice`` over a volume's objects, the volume object first."""

    def __init__(
        self,
        objects: Sequence[AnyObject],
        drivers: Mapping[Wwn, AluDriver],
        engine: Engine,
        lead: LeadPort,
        *,
        legs_lost: LegsLost,
        lead_lost: Callable[[], None],
        limits: HoldLimits,
    ) -> None:
        super().__init__(objects, drivers, engine)
        self._borrower = Borrower(lead, lead_lost, limits)
        self._legs_lost = legs_lost
        self._limits = limits
        self._told: set[Wwn] = set()  # legs that have failed, as this tree has them
        self._equal = False
        self.install(objects)

    def install(self, objects: Sequence[AnyObject]) -> None:
        """Go on with these objects. Nobody is at work, or these differ in nothing that matters to who is."""
        self._told.clear()
        self._legs = frozenset(_legs_in_sync(objects))
        self._pinned = {} if self._equal else dict(reversed(list(_legs_in_sync(objects))))
        self._plant(objects)

    def legs_equal(self) -> None:
        """Read all legs from now on. Told while the volume is held everywhere, so that two reads never go back."""
        self._equal = True
        self.install(self.objects)

    def follow(self, lead: LeadPort) -> None:
        """Go on with the same lead by another session."""
        self._borrower.follow(lead)

    def resume(self, objects: Sequence[AnyObject] | None = None, lead: LeadPort | None = None) -> None:
        """Go on after ``hold_all``, or after legs or the lead were lost. What is not given stays as it was.

        Whether another lead finds all legs equal is to be seen.
        """
        self._equal = self._equal and lead is None
        self.install(self.objects if objects is None else objects)
        if lead is not None:
            self._borrower.follow(lead)
        self._go_on()

    async def hold_all(self, limits: HoldLimits) -> None:
        """Let what is at work end, and what comes wait; see ``Instance.hold_all``.

        What is done with is given back at once; a lead that does not answer keeps nobody waiting.
        """
        await super().hold_all(limits)
        self._borrower.give_back_soon()

    async def close(self) -> None:
        """Let what runs end, flush, and give everything back. Requests that come later are refused.

        Raises:
            BlockError: the flush failed.
        """
        if self._door.is_shut:
            return
        try:
            await self.hold_all(self._limits)
            await self._carry_out(Request(Op.FLUSH, 0, self.blocks), owner=True)
        except UsageError:
            return  # somebody else has closed it
        finally:
            self._door.shut()
            await self._borrower.give_back()

    def _hot(self, flat: FlatMap) -> tuple[hotpath.Now, hotpath.Now]:
        """Read at once what can be; a write has to ask."""
        regions = {obj.wwn: NO_REGIONS for obj in self.objects if isinstance(obj, MirrorObject)}
        read, _ = hotpath.bind(flat, self._drivers, regions, (), set(), self.block_bytes, second_hand())
        return read, hotpath.never

    async def _mark_dirty(self, mark: MarkDirty) -> None:
        raise AssertionError("the lead has marked it")

    # Requests

    async def _look(self, request: Request) -> list[Run]:
        return await self._carry_out(request)

    async def _change(self, request: Request) -> list[Run]:
        while request.blocks:
            async with self._borrow(request.lba, request.blocks) as grip:
                try:
                    return await self._change_borrowed(request, grip)
                except _Stale:
                    continue
        return []

    @asynccontextmanager
    async def hold(self, lba: int, blocks: int) -> AsyncIterator[Submit]:
        """Keep all other writers out of a range; what is yielded carries out requests in it."""
        with self._door.visit(lba):
            async with self._borrow(lba, blocks) as grip:
                yield _Held(self, grip)

    @asynccontextmanager
    async def _borrow(self, lba: int, blocks: int) -> AsyncIterator[_Grip]:
        legs = self._legs
        async with self._borrower.borrow(lba, blocks) as loan:
            yield _Grip(loan, legs)

    async def _change_borrowed(self, request: Request, grip: _Grip) -> list[Run]:
        """Carry out what changes blocks in a range that was borrowed. Until all legs have it the range is in doubt."""
        before, grip.loan.in_doubt = grip.loan.in_doubt, True
        try:
            runs = await self._carry_out(request, grip)
        except Busy as busy:
            grip.loan.in_doubt = before or busy.begun
            raise
        grip.loan.in_doubt = before
        return runs

    async def _carry_out(self, request: Request, grip: _Grip | None = None, *, owner: bool = False) -> list[Run]:
        """Plan a request and do it: again if a leg was lost on the way, once there is a tree without it."""
        begun = False
        while True:
            await self._door.begin(request.lba, owner=owner, begun=begun)
            try:
                if grip is not None and not self._holds(grip):
                    raise _Stale("the range has to be borrowed anew", request.lba, begun=begun)
                objects, begun = self.objects, True
                steps = _unmarked(plan(self.tree, request.op, request.lba, request.blocks))
                return joined(await self._executor.run(steps, request, self.block_bytes), request.lba)
            except StageFailed as error:
                failed = error
            finally:
                self._door.end()
            if not (self._door.is_open or owner) and out_of_reach(failed):
                continue
            lost = loss.lost_legs(objects, failures(failed))
            if lost is None or owner:
                raise block_error(request, failed) from failed
            if objects is self.objects:
                self._lose(lost)

    def _holds(self, grip: _Grip) -> bool:
        """Whether a range still is what it was borrowed as: kept by the lead there is, and marked on all legs."""
        return self._borrower.valid(grip.loan) and self._legs <= grip.legs

    def _lose(self, lost: Mapping[Wwn, set[Wwn]]) -> None:
        """Wait for a tree without these legs, and say so, once for each."""
        if self._door.is_open:
            self.read_now = hotpath.never
            self._door.close(self._limits)
        legs = set().union(*lost.values())
        if not legs <= self._told:
            self._told |= legs
            self._legs_lost(lost)


@dataclass(frozen=True, slots=True)
class _Grip:
    """A range that was borrowed, and the legs in sync then: on all of them it is marked."""

    loan: Loan
    legs: Legs


class _Held:
    """Requests of one that holds a range."""

    def __init__(self, follower: Follower, grip: _Grip) -> None:
        self._follower = follower
        self._grip = grip

    async def submit(self, request: Request) -> list[Run]:
        """Carry a request out without borrowing the range again."""
        check(request, self._follower.blocks, self._follower.block_bytes)
        if request.op not in MUTATING:
            return await self._follower._carry_out(request)
        try:
            return await self._follower._change_borrowed(request, self._grip)
        except Busy as busy:
            raise final(busy) from None


def _legs_in_sync(objects: Sequence[AnyObject]) -> Iterator[tuple[Wwn, Wwn]]:
    """Yield the legs that hold everything, with their mirrors."""
    for obj in objects:
        if isinstance(obj, MirrorObject):
            yield from ((obj.wwn, leg.child) for leg in obj.legs if leg.state is LegState.IN_SYNC)


def _unmarked(steps: Plan) -> Plan:
    """Leave out what the lead has done."""
    stages: Plan = [[step for step in stage if not isinstance(step, MarkDirty)] for stage in steps]
    return [stage for stage in stages if stage]
