"""What LIO can't express, told before anything is touched.

The embedded portal asks us at each login who an initiator is. LIO has to be told beforehand: it knows
initiators by their full names, and everybody else only as one, who sees all that the portal group has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from appliance.exposures import WILDCARDS
from appliance.lio.tree import OPEN
from appliance.messages import Exposure, HostDefinition

EMBEDDED: Final = "or serve with --frontend embedded"
UNSET: Final = "NULL"
"""What a CHAP setting in configfs must not begin with: to the kernel it says that there is none."""


def refusals(hosts: Sequence[HostDefinition], exposures: Collection[Exposure]) -> dict[str, str]:
    """Say of each host that can't be served why, and what to do."""
    found: dict[str, str] = {}
    for host in hosts:
        reason = next(_reasons(host, exposures), None)
        if reason is not None:
            found[host.name] = f"host {host.name} can't be served by LIO: {reason}"
    return found


def _reasons(host: HostDefinition, exposures: Collection[Exposure]) -> Iterator[str]:
    if host.iqn != OPEN and WILDCARDS & set(host.iqn):
        yield f"it knows no patterns such as {host.iqn}; make a host for each initiator name, {EMBEDDED}"
    for what, text in (("chap-user", host.chap_user), ("mutual-user", host.mutual_user)):
        if text.startswith(UNSET):
            yield f"{what} {text} begins with {UNSET}, which means none to it; choose another"
    if host.chap_secret.startswith(UNSET) or host.mutual_secret.startswith(UNSET):
        yield f"a secret of it begins with {UNSET}, which means none to LIO; choose another"
    if host.iqn == OPEN:
        yield from _reasons_against_open(host, exposures)


def _reasons_against_open(host: HostDefinition, exposures: Collection[Exposure]) -> Iterator[str]:
    """Look for what an initiator without an ACL would see beyond the open host's volumes (R15)."""
    own = [row.volume for row in exposures if row.host == host.name]
    if not own:
        return  # nobody is let in by it
    if len(set(own)) < len(own):
        yield f"it is open, and sees a volume under two LUNs; unexpose one of them, {EMBEDDED}"
    others = sorted({row.host for row in exposures if row.volume not in own})
    if others:
        yield (
            f"any initiator would see what only host {', '.join(others)} is to see; "
            f"expose it to {host.name} first, or unexpose it, {EMBEDDED}"
        )
