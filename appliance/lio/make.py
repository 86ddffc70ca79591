"""Puts LIO's front end together for a storage processor."""

from __future__ import annotations

import hashlib

from appliance.exposures import FindUnit
from appliance.lio.configfs import Configfs
from appliance.lio.front_end import Lio
from appliance.lio.handlers import Handlers
from appliance.lio.tree import Site

MARK_BYTES = 4


def make_lio(susid: str, target_iqn: str, group_tag: int, portal: str, find_unit: FindUnit) -> Lio:
    """Make the front end; nothing is touched before it is started."""
    site = Site(mark_of(susid), target_iqn, group_tag, (portal,))
    return Lio(site, find_unit, Handlers(target_iqn, group_tag).open, Configfs())


def mark_of(susid: str) -> str:
    """Give the mark by which this appliance knows its things in configfs, fit for any name whatever the SUSID."""
    return hashlib.blake2b(susid.encode(), digest_size=MARK_BYTES).hexdigest()
