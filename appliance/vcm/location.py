"""The volume location structure, as the VCM needs it: which hosts see which volumes, through whom (step 524)."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.control.values import Show
from appliance.messages import Exposure
from appliance.vcm.peers import Peers
from appliance.vcm.vocabulary import Site
from backstores.wwn import Wwn

FACING: Final = 2
"""How many storage processors serve a volume to a host that the topology does not place."""

HIDDEN: Final = Show()


@dataclass(slots=True)
class Location:
    """Who sees what. ``known``: the MIC has told all of it; until then what runs is left as it is."""

    site: Site
    peers: Peers
    known: bool = False
    _shows: dict[Wwn, Show] = field(default_factory=dict)

    def put(self, volume: Wwn, show: Show) -> None:
        """Take over which hosts see a volume, which need not be known yet."""
        self._shows[volume] = show

    def forget(self, volume: Wwn) -> None:
        """A volume is no more."""
        self._shows.pop(volume, None)

    def facing(self, volume: Wwn, serving: Collection[str]) -> list[str]:
        """List the storage processors that are to serve a volume to its hosts; ``serving`` are those that do."""
        if not self.known:
            return list(serving)
        show = self._shows.get(volume, HIDDEN)
        names = dict.fromkeys(sp for exposure in show.exposures for sp in self._of(volume, exposure, serving))
        return [sp for sp in names if self.peers.at_work(sp) or sp in serving]

    def named(self, volume: Wwn, serving: Collection[str]) -> set[str]:
        """Name all storage processors that should serve a volume to hosts, there or not."""
        show = self._shows.get(volume, HIDDEN)
        return {sp for exposure in show.exposures for sp in self._of(volume, exposure, serving)}

    def show(self, volume: Wwn, sp: str, serving: Collection[str]) -> Show | None:
        """Say which hosts see a volume through a storage processor; None while that is not known."""
        if not self.known:
            return None
        show = self._shows.get(volume, HIDDEN)
        exposures = tuple(one for one in show.exposures if sp in self._of(volume, one, serving))
        names = {exposure.host for exposure in exposures}
        return Show(tuple(host for host in show.hosts if host.name in names), exposures)

    def _of(self, volume: Wwn, exposure: Exposure, serving: Collection[str]) -> Sequence[str]:
        """Say through whom a host sees a volume: as a person wants, or the topology, or any two."""
        if exposure.sps:
            return exposure.sps
        if exposure.host in self.site.faces:
            return self.site.faces[exposure.host]
        names = [peer.name for peer in self.peers if peer.host_portals and self.peers.counts(peer.name)]
        names.sort(key=lambda name: (name not in serving, zlib.crc32(f"{name} {volume}".encode())))
        return names[:FACING]
