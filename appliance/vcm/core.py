"""The VCM's decision core: an input in, effects out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from appliance.control.reports import AluIs, Beat, Committed, Done, FromSp, LegsLost, Refused, SessionsAre, VolumeIs
from appliance.control.requests import (
    AluChanged,
    AluGone,
    Ask,
    Delta,
    FromMic,
    GsChanged,
    Look,
    SessionsChanged,
    SpChanged,
    VolumeChanged,
    VolumeGone,
)
from appliance.control.values import Role, SpState, SpStatus
from appliance.messages import GsState, GsStatus, SessionStatus
from appliance.vcm.alus import Alu, Alus
from appliance.vcm.courier import Courier
from appliance.vcm.location import Location
from appliance.vcm.mastership import Mastership, MasterState
from appliance.vcm.peers import Notices, Peer, Peers
from appliance.vcm.picture import Picture
from appliance.vcm.requests import Requests
from appliance.vcm.secrets import Secrets
from appliance.vcm.vocabulary import Effect, Input, MicSaid, Site, SpDied, SpSaid, Tick
from appliance.vcm.volume import Phase, Volume
from appliance.vcm.volumes import Volumes

PATIENCE_S: Final = 1.5
"""How long a VCM that starts waits for storage processors that it expects: one may be the MVSP already."""


class CoherencyManager:
    """The VCM. ``incarnation`` is higher than that of each earlier one; ``make_secret`` gives what nobody can guess."""

    def __init__(self, site: Site, incarnation: int, make_secret: Callable[[], str]) -> None:
        self.courier = Courier(incarnation)
        self._started_s: float | None = None
        self._gs = GsStatus(state=GsState.NONE)
        self._sessions: dict[str, tuple[SessionStatus, ...]] = {}
        secrets = Secrets(make_secret)
        notices = Notices(self._sp_changed, self._joined, self._silent, self._back, self._gone)
        self.picture = Picture(self.courier, self._everything)
        self.peers = Peers(self.courier, site, notices)
        self.alus = Alus(
            self.courier, site, self.peers, opened=self._opened, lost=self._lost, changed=self._alu_changed
        )
        self.mastership = Mastership(
            self.courier,
            self.peers,
            self.alus,
            secrets,
            on_image=lambda part: self.volumes.image(part),
            on_gs=self._gs_is,
            on_change=self._master_changed,
        )
        self.location = Location(site, self.peers)
        self.volumes = Volumes(
            self.courier,
            self.peers,
            self.alus,
            self.mastership,
            secrets,
            self.location,
            changed=self._volume_changed,
            gone=self._volume_gone,
            on_committed=self._committed,
        )
        self.requests = Requests(self.courier, self.picture, self.peers, self.alus, self.mastership, self.volumes)

    def step(self, event: Input, now_s: float | None = None) -> list[Effect]:
        """Take what came in; give what is to be done, in this order. ``now_s``: if it is later than the last tick."""
        if now_s is not None:
            self.courier.now_s = now_s
        match event:
            case SpSaid(message):
                self._heard(message)
            case MicSaid(message):
                self._asked(message)
            case SpDied(sp, incarnation):
                self.peers.died(sp, incarnation)
            case Tick(now_s):
                self._tick(now_s)
        if self._patient():
            self.mastership.find()
        self.volumes.work()
        self.picture.flush()
        effects, self.courier.effects = self.courier.effects, []
        return effects

    def _tick(self, now_s: float) -> None:
        if self._started_s is None:
            self._started_s = now_s
        self.courier.tick(now_s)
        self.peers.tick(now_s)
        self.alus.tick(now_s)
        self.mastership.tick(now_s)
        self.volumes.tick(now_s)
        self.requests.tick(now_s)

    def _patient(self) -> bool:
        """Whether enough is known to say who is the MVSP."""
        if self._started_s is None or self.mastership.state is not MasterState.VACANT:
            return False
        waited = self.courier.now_s - self._started_s >= PATIENCE_S
        return waited or all(peer.state not in (SpState.EXPECTED, SpState.STARTING) for peer in self.peers)

    # What is heard

    def _heard(self, message: FromSp) -> None:
        if not self.peers.said(message):
            return
        match message.body:
            case Beat(epoch=epoch):
                self.mastership.seen(message.sp, epoch)
            case Done() | Refused() as answer:
                self.courier.answered(message.sp, answer)
            case LegsLost() as report:
                self.volumes.legs_lost(message.sp, report)
            case VolumeIs() as report:
                self.volumes.is_so(message.sp, report)
            case AluIs(alu=alu):
                self.alus.is_open(message.sp, alu)
            case SessionsAre(sessions=sessions):
                self._sessions_are(message.sp, sessions)

    def _asked(self, message: FromMic) -> None:
        if not self.picture.meet(message.incarnation):
            return
        match message.body:
            case Ask() as ask:
                self.requests.ask(message.incarnation, ask)
            case Look():
                self.picture.show_all()

    # Storage processors

    def _joined(self, peer: Peer) -> None:
        self.mastership.seen(peer.name, peer.epoch)
        self.alus.joined(peer)
        self.volumes.joined(peer)

    def _silent(self, peer: Peer) -> None:
        self.mastership.forget(peer.name)

    def _back(self, peer: Peer) -> None:
        self.alus.back(peer)
        for alu in self.alus:
            if alu.opener == peer.name:
                self.mastership.admit(alu)
        self.volumes.look_at_those_of(peer)

    def _gone(self, peer: Peer) -> None:
        self.mastership.forget(peer.name)
        self._sessions_are(peer.name, ())
        self.alus.gone(peer)
        self.volumes.forget(peer)

    def _opened(self, alu: Alu) -> None:
        self.mastership.admit(alu)
        if alu.status is not None and alu.status.wwn is not None:
            self.volumes.alu_moved(alu.status.wwn)

    def _lost(self, alu: Alu) -> None:
        if alu.status is not None and alu.status.wwn is not None:
            self.volumes.alu_moved(alu.status.wwn)

    def _master_changed(self) -> None:
        if self.mastership.ready:
            self.volumes.master_is_ready()
        for peer in self.peers:
            self._sp_changed(peer)

    def _committed(self, result: Committed) -> None:
        for status in result.alus:
            alu = self.alus.get(status.path)
            if alu is not None and alu.opener is not None:
                self.alus.is_open(alu.opener, status)
        if result.gs is not None:
            self._gs_is(result.gs)

    # The picture

    def _gs_is(self, gs: GsStatus) -> None:
        if gs != self._gs:
            self._gs = gs
            self.picture.changed("gs", "", lambda: GsChanged(gs=self._gs))

    def _sessions_are(self, sp: str, sessions: tuple[SessionStatus, ...]) -> None:
        if sessions != self._sessions.get(sp, ()):
            self._sessions[sp] = sessions
            self.picture.changed("sessions", sp, lambda: SessionsChanged(sp=sp, sessions=self._sessions[sp]))

    def _sp_changed(self, peer: Peer) -> None:
        self.picture.changed("sp", peer.name, lambda: SpChanged(sp=self.sp_status(peer)))

    def _alu_changed(self, alu: Alu) -> None:
        self.picture.changed("alu", alu.path, lambda: self._draw_alu(alu))

    def _volume_changed(self, volume: Volume) -> None:
        self.picture.changed("volume", volume.wwn, lambda: self._draw_volume(volume))
        if volume.phase is Phase.ON_LINE:
            for sp in (*volume.t1, *volume.t2):
                self._sp_changed(self.peers[sp])  # how many volumes it has

    def _volume_gone(self, volume: Volume) -> None:
        self.picture.changed("volume", volume.wwn, lambda: VolumeGone(volume=volume.wwn))

    def _draw_alu(self, alu: Alu) -> Delta | None:
        if self.alus.get(alu.path) is not alu:
            return AluGone(path=alu.path)
        return None if alu.status is None or alu.opener is None else AluChanged(alu=alu.status, sp=alu.opener)

    def _draw_volume(self, volume: Volume) -> Delta | None:
        status = volume.status()
        if status is None:
            return None
        lead = next((sp for sp, runs in volume.t2.items() if runs.role is Role.LEAD), "")
        shows = {sp: self.volumes.location.show(volume.wwn, sp, volume.t2) for sp in volume.t2}
        serving = tuple(sorted(sp for sp, show in shows.items() if show is not None and show.exposures))
        return VolumeChanged(volume=status, sps=serving, lead=lead)  # who leads it may show it to nobody

    def sp_status(self, peer: Peer) -> SpStatus:
        """Describe a storage processor for people."""
        return SpStatus(
            name=peer.name,
            blade=peer.hello.blade if peer.hello else "",
            state=peer.state,
            step=peer.step,
            master=peer.name == self.mastership.master,
            epoch=peer.epoch,
            load=peer.load,
            alus=self.alus.count(peer.name),
            t1_volumes=self.volumes.first_tiers[peer.name],
            t2_volumes=self.volumes.second_tiers[peer.name],
            host_portals=peer.host_portals,
        )

    def _everything(self) -> Iterator[Delta]:
        for peer in self.peers:
            yield SpChanged(sp=self.sp_status(peer))
        yield GsChanged(gs=self._gs)
        for alu in self.alus:
            if (delta := self._draw_alu(alu)) is not None:
                yield delta
        for volume in self.volumes:
            if (delta := self._draw_volume(volume)) is not None:
                yield delta
        for sp, sessions in self._sessions.items():
            yield SessionsChanged(sp=sp, sessions=sessions)
