"""Puts LIO's front end together for a storage processor."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Final

from appliance.exposures import FindUnit
from appliance.lio.configfs import Configfs
from appliance.lio.front_end import Lio
from appliance.lio.handlers import Handlers
from appliance.lio.tree import Group, Site
from appliance.portals import Groups, PortalAddress
from backstores.tcmu.announcements import Announcement
from backstores.tcmu.netlink import Listener

log = logging.getLogger(__name__)

MARK_BYTES: Final = 4


def make_lio(susid: str, target_iqn: str, groups: Groups, find_unit: FindUnit) -> Lio:
    """Make the front end; nothing is touched before it is started."""
    site = Site(mark_of(susid), target_iqn, tuple(_group(tag, portals) for tag, portals in groups.items()))
    handlers = Handlers(target_iqn, tuple(groups))
    return Lio(site, find_unit, handlers.open, lambda: Listener(_heard), Configfs())


def _group(tag: int, portals: Sequence[PortalAddress]) -> Group:
    return Group(tag, tuple(portal.numeric for portal in portals), portals[0].namespace)


def _heard(announcement: Announcement) -> None:
    """Note what the kernel says: it tells us of our own changes, for we are who makes them."""
    log.debug("the kernel says: %s", announcement)


def mark_of(susid: str) -> str:
    """Give the mark by which this appliance knows its things in configfs, fit for any name whatever the SUSID."""
    return hashlib.blake2b(susid.encode(), digest_size=MARK_BYTES).hexdigest()
