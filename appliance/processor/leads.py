"""Who orders the writers of a volume that several storage processors serve: the way to the lead, and to followers (D4).

A lead is shown to its followers as a unit of the internal target, and they find it there by a name that derives from
the volume's. Whether a follower that has fallen silent can still reach a leg, the lead can't know. The VCM does: it has
the storage processors with the legs let the follower in no more, and then tells the lead who is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from appliance.control.orders import MakeT2
from appliance.processor.internal import InternalTarget
from appliance.processor.names import tier_initiator
from appliance.processor.remotes import Remotes
from backstores.errors import UsageError
from backstores.scsi.lead import LeadUnit, lead_wwn
from backstores.volume.lead import Lead
from backstores.volume.leadport import RemoteLead
from backstores.wwn import Wwn


class Leads:
    """The leads of one storage processor, and its ways to those of others."""

    def __init__(self, iqn: str, target: InternalTarget, remotes: Remotes) -> None:
        self._iqn = iqn
        self._target = target
        self._remotes = remotes
        self._followers: defaultdict[Wwn, set[str]] = defaultdict(set)  # by volume: initiator names
        self._fenced: Counter[tuple[Wwn, str]] = Counter()  # how often one of them was let in no more
        self._changed = asyncio.Event()

    def grant(self, made: MakeT2, lead: Lead) -> None:
        """Let these followers in, and no others."""
        wwn = lead_wwn(made.volume)
        names = {tier_initiator(self._iqn, grant.sp): grant.secret for grant in made.followers}
        self._target.withdraw({wwn}, but=names)
        for initiator, secret in names.items():
            self._target.grant(initiator, secret, {wwn: lambda: LeadUnit(made.volume, lead)})
        self._follow(made.volume, set(names))

    def withdraw(self, volume: Wwn) -> None:
        """Lead a volume no more."""
        self._target.withdraw({lead_wwn(volume)})
        self._follow(volume, set())

    def _follow(self, volume: Wwn, names: set[str]) -> None:
        self._fenced.update((volume, name) for name in self._followers[volume] - names)
        self._followers[volume] = names
        self._changed.set()

    async def fenced(self, volume: Wwn, follower: str) -> None:
        """Wait until the VCM has seen to it that a follower can write to no leg any more."""
        before = self._fenced[volume, follower]
        while follower in self._followers[volume] and self._fenced[volume, follower] == before:
            self._changed.clear()
            await self._changed.wait()

    async def port(self, made: MakeT2) -> RemoteLead:
        """Find the lead of a volume that is followed here.

        Raises:
            TiergateError: it is not there.
        """
        if made.lead is None:
            raise UsageError(f"volume {made.volume} is to be followed, and nobody leads it")
        wwn = lead_wwn(made.volume)
        await self._remotes.discover(made.lead, {wwn})
        if not self._remotes.is_up(made.lead.sp):
            raise UsageError(f"no path leads to storage processor {made.lead.sp}")
        target, lun = self._remotes.target(made.lead.sp), self._remotes.lun(made.lead.sp, wwn)
        target.expect(lun, wwn)
        return RemoteLead(target, lun)

    def hurry(self, made: MakeT2, on: bool) -> None:
        """Have what is said to a lead fail at once while there is no way to it, or wait for one again."""
        assert made.lead is not None
        self._remotes.hurry(made.lead.sp, lead_wwn(made.volume), on)

    def forget(self, made: MakeT2) -> None:
        """Expect nothing of the lead that was followed before."""
        assert made.lead is not None
        self._remotes.forget(made.lead.sp, lead_wwn(made.volume))
