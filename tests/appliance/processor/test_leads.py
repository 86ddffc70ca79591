"""Whom a lead still has to reckon with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from appliance.control.orders import MakeT2
from appliance.control.values import Grant, Role
from appliance.processor.internal import InternalTarget
from appliance.processor.leads import Leads
from appliance.processor.names import tier_initiator
from appliance.processor.remotes import Remotes
from backstores.volume.lead import Lead
from backstores.wwn import new_object_wwn

IQN = "iqn.2026-01.org.tiergate:many"
VOLUME = new_object_wwn()


def made(followers: Sequence[str]) -> MakeT2:
    grants = tuple(Grant(sp, "a secret that is long enough") for sp in followers)
    return MakeT2(volume=VOLUME, generation=1, likeness="", role=Role.LEAD, objects=(), followers=grants)


def test_a_follower_that_was_let_in_again_at_once_was_shut_out_before() -> None:
    """D4: what it had is given free, though whoever waits for that wakes up when it is back already."""

    async def scenario() -> None:
        leads = Leads(IQN, InternalTarget(f"{IQN}.sp1.t1", ()), Remotes(IQN, lambda access: ""))
        lead = cast(Lead, object())  # nobody logs in: its unit is only listed
        leads.grant(made(["sp2", "sp3"]), lead)
        waiting = asyncio.create_task(leads.fenced(VOLUME, tier_initiator(IQN, "sp2")))
        other = asyncio.create_task(leads.fenced(VOLUME, tier_initiator(IQN, "sp3")))
        await asyncio.sleep(0)
        leads.grant(made(["sp3"]), lead)
        leads.grant(made(["sp2", "sp3"]), lead)
        async with asyncio.timeout(10):
            await waiting
        assert not other.done()
        leads.withdraw(VOLUME)
        await other

    asyncio.run(scenario())
