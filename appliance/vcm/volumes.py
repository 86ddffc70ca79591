"""All volumes: brought to where they should be, stage by stage, each by itself (C3).

A volume is looked at whenever something about it may have changed. If nothing is under way for it, its placement is
worked out anew and the next stage is ordered. What is refused is tried again later, and when anything changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from appliance.control.orders import FailLegs, VolumeOrder
from appliance.control.reports import Committed, Done, ImagePart, LegsLost, Refused, VolumeIs
from appliance.control.values import Access, Grant, InstanceState, Show, VolumeImage
from appliance.vcm.alus import Alus
from appliance.vcm.courier import Answer, Courier
from appliance.vcm.location import Location
from appliance.vcm.mastership import Make, Mastership
from appliance.vcm.peers import Peer, Peers
from appliance.vcm.placement import Plant, Unplaced, place
from appliance.vcm.secrets import Secrets
from appliance.vcm.stages import BEFORE_CHANGE, Step, View, next_stage
from appliance.vcm.volume import Change, Pause, PauseEvent, Phase, Volume, VolumeEvent
from backstores.objects import PartitionObject
from backstores.wwn import Wwn, short

RETRY_S: Final = 5.0
RETRY_HELD_S: Final = 1.0
"""How long until what was refused is tried again; sooner if hosts wait for it."""

SETTLED: Final = frozenset({Phase.KNOWN, Phase.ON_LINE, Phase.FAILED})
"""From these a new generation begins."""

EVENTS: Final = {Step.HOLD_FOLLOWERS: VolumeEvent.HOLD, Step.HOLD_OTHERS: VolumeEvent.HOLD}


@dataclass(slots=True)
class Volumes:
    """All volumes. ``changed`` is told of each that may look different to people, ``gone`` of one that is no more."""

    courier: Courier
    peers: Peers
    alus: Alus
    mastership: Mastership
    secrets: Secrets
    location: Location
    changed: Callable[[Volume], None]
    gone: Callable[[Volume], None]
    on_committed: Callable[[Committed], None]
    first_tiers: Counter[str] = field(default_factory=Counter)  # of how many volumes, by storage processor
    second_tiers: Counter[str] = field(default_factory=Counter)
    _all: dict[Wwn, Volume] = field(default_factory=dict)
    _dirty: dict[Wwn, None] = field(default_factory=dict)
    _failed: dict[Wwn, None] = field(default_factory=dict)
    _on_alu: dict[Wwn, set[Wwn]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Volume]:
        return iter(self._all.values())

    def get(self, wwn: Wwn) -> Volume | None:
        """Give a volume."""
        return self._all.get(wwn)

    def know(self, wwn: Wwn) -> Volume:
        """Give a volume, a new one if it is not known yet."""
        if wwn not in self._all:
            self._all[wwn] = Volume(wwn)
        return self._all[wwn]

    def using(self, alu: Wwn) -> list[Volume]:
        """List the volumes that have a partition on an ALU."""
        return [self._all[wwn] for wwn in sorted(self._on_alu.get(alu, ())) if wwn in self._all]

    # What has changed

    def look_at(self, volume: Volume) -> None:
        """Look at a volume before this step ends."""
        self._dirty[volume.wwn] = None

    def alu_moved(self, alu: Wwn) -> None:
        """Look at what lies on an ALU that another storage processor has open now, or none."""
        for volume in self.using(alu):
            self.try_again(volume)

    def try_again(self, volume: Volume) -> None:
        """Look at a volume, though it was refused something not long ago."""
        volume.failure = ""
        self._failed.pop(volume.wwn, None)
        self.look_at(volume)

    def joined(self, peer: Peer) -> None:
        """Take over what a storage processor runs; volumes may want it that could do without so far."""
        for first in peer.t1:
            self.know(first.volume).runs(peer.name, first)
            self.first_tiers[peer.name] += 1
            for name in first.shown_to:
                self.peers.expect(name)
        for second in peer.t2:
            self.know(second.volume).runs(peer.name, second)
            self.second_tiers[peer.name] += 1
        self.look_at_those_of(peer)

    def look_at_all(self) -> None:
        """Look at every volume: it is known now who sees which."""
        for volume in self._all.values():
            self.try_again(volume)

    def look_at_those_of(self, peer: Peer) -> None:
        """Look at what a storage processor that came or went may matter to: in a large system that is little."""
        for volume in self._all.values():
            serves = peer.name in volume.t1 or peer.name in volume.t2
            if serves or volume.phase is not Phase.ON_LINE or peer.name in self.location.named(volume.wwn, volume.t2):
                self.try_again(volume)

    def master_is_ready(self) -> None:
        """Look at what needs the MVSP."""
        for volume in self._all.values():
            if volume.change is not None or volume.image is None or volume.failure:
                self.try_again(volume)

    def forget(self, peer: Peer) -> None:
        """Take note that nothing runs at a storage processor any more."""
        for volume in self._all.values():
            if peer.name in volume.t1 or peer.name in volume.t2:
                volume.forget(peer.name)
                self.changed(volume)
                self.try_again(volume)
        self.first_tiers[peer.name] = self.second_tiers[peer.name] = 0
        self.look_at_those_of(peer)

    def image(self, part: ImagePart) -> None:
        """Take over a part of the system image."""
        for image in part.volumes:
            self.take(image)
        for volume in filter(None, map(self._all.get, part.gone)):
            volume.removing = True
            self.try_again(volume)

    def take(self, image: VolumeImage) -> Volume:
        """Take over the tree of a volume as the MVSP has it."""
        volume = self.know(image.objects[0].wwn)
        volume.seen = self.mastership.round
        if image.reason and volume.image is not None and not volume.image.reason:
            return volume  # this MVSP does not see all of it: what its predecessor saw is no older
        if volume.is_newer_than(image.objects):
            return volume  # it was told before a change, and came after it
        if volume.image != image:
            self._index(volume, present=False)
            volume.image = image
            self._index(volume, present=True)
            self.try_again(volume)
            self.changed(volume)
        return volume

    def _index(self, volume: Volume, *, present: bool) -> None:
        for obj in volume.objects:
            if isinstance(obj, PartitionObject):
                on_alu = self._on_alu.setdefault(obj.alu, set())
                on_alu.add(volume.wwn) if present else on_alu.discard(volume.wwn)

    def locate(self, wwn: Wwn, show: Show) -> None:
        """Take over which hosts see a volume, which need not be known yet."""
        self.location.put(wwn, show)
        if wwn in self._all:
            self.try_again(self._all[wwn])

    # What an instance tells by itself

    def is_so(self, sp: str, report: VolumeIs) -> None:
        """Take note how an instance is."""
        volume = self._all.get(report.volume)
        if volume is None:
            return
        if report.resync_percent is None:
            volume.resync.pop(sp, None)
        else:
            volume.resync[sp] = report.resync_percent
        if report.detail:
            volume.trouble[sp] = report.detail
        else:
            volume.trouble.pop(sp, None)
        self.changed(volume)

    def legs_lost(self, sp: str, report: LegsLost) -> None:
        """Have it made durable that legs have failed (D3): the instance holds itself until then, and says so again."""
        volume = self._all.get(report.volume)
        if volume is None or sp not in volume.t2 or volume.t2[sp].generation != report.generation:
            return
        if volume.t2[sp].state is not InstanceState.HELD:
            names = ", ".join(map(short, report.legs))
            self.courier.log(f"volume {volume.name}: {sp} has lost legs {names}", serious=True)
            self._begin_pause(volume)
            volume.lose_legs(sp)
        if volume.change is None and not volume.removing and not volume.failed_legs.issuperset(report.legs):
            volume.change = Change(_fail_legs(report), "fail legs", lambda error: None)
            self.try_again(volume)

    # Stage after stage

    def tick(self, now_s: float) -> None:
        """Try again what was refused a while ago."""
        for volume in [self._all[wwn] for wwn in self._failed]:
            if volume.retry_s <= now_s:
                self.try_again(volume)

    def work(self) -> None:
        """Look at all that may have changed, until nothing more can be ordered now."""
        awaited = frozenset(self.peers.expecting() if self._dirty else ())
        while self._dirty:
            wwn = next(iter(self._dirty))
            del self._dirty[wwn]
            volume = self._all.get(wwn)
            if volume is not None and not (awaited and self._waits_for(volume, awaited)):
                self._advance(volume)

    def _waits_for(self, volume: Volume, awaited: frozenset[str]) -> bool:
        """Whether one of these may serve a volume, or a part of it.

        It may if it is let in where the first tier is, if it is to serve it to hosts, or if it has an ALU of it open;
        and that may be so of each ALU that nobody else has open.
        """
        openers = {self.alus.opener(obj.alu) for obj in volume.objects if isinstance(obj, PartitionObject)}
        shown_to = {sp for runs in volume.t1.values() for sp in runs.shown_to}
        suspects = openers | shown_to | self.location.named(volume.wwn, volume.t2)
        return None in suspects or not awaited.isdisjoint(suspects)

    def _advance(self, volume: Volume) -> None:
        """Order the next stage of a volume, unless something is under way."""
        if volume.outstanding or volume.failure or volume.erasing or volume.pause is Pause.COMMITTING:
            return
        if volume.image is None and not volume.removing:
            if not (self.location.known and self.mastership.sees_all):
                return
            volume.removing = True  # no ALU knows of it: it was deleted while nobody looked
        self._place(volume)
        if isinstance(volume.placement, Unplaced) and volume.change is None:
            self._wait(volume, volume.placement.reason)
            return
        volume.waits_s = 0.0
        if volume.change is not None and not self.mastership.ready:
            return  # nobody is held for longer than it takes
        stage = next_stage(self._view(volume))
        if stage is not None:
            self._order(volume, *stage)
        elif volume.change is not None:
            self._change(volume, volume.change)
        elif volume.removing:
            self._removed(volume)
        else:
            self._settle(volume)

    def _place(self, volume: Volume) -> None:
        if volume.removing:
            volume.placement = None
            return
        assert volume.image is not None
        if volume.image.reason:
            volume.placement = Unplaced(volume.image.reason)
            return
        if not self.location.known and not volume.t2:
            volume.placement = Unplaced("which hosts see it is not known yet")
            return
        plant = Plant(self.alus.opener, lambda sp: self.peers[sp].incarnation)
        volume.placement = place(volume.objects, self.location.facing(volume.wwn, volume.t2), plant)

    def _view(self, volume: Volume) -> View:
        placement = volume.placement
        return View(
            volume=volume.wwn,
            objects=volume.objects,
            generation=volume.generation + (volume.phase in SETTLED),
            placement=None if isinstance(placement, Unplaced) else placement,
            t1=volume.t1,
            t2=volume.t2,
            linked=frozenset(volume.linked),
            holding=volume.change is not None,
            create=volume.create,
            show=lambda sp: self.location.show(volume.wwn, sp, volume.t2),
            access=self._access,
            grant=lambda initiator, target: Grant(initiator, self.secrets.of(initiator, target)),
            granted=self.secrets.knows,
        )

    def _access(self, initiator: str, target: str) -> Access:
        return Access(target, self.peers[target].portals, self.secrets.of(initiator, target))

    def _order(self, volume: Volume, step: Step, orders: Sequence[tuple[str, VolumeOrder]]) -> None:
        if not all(self.peers.at_work(sp) for sp, _ in orders):
            return  # one is silent: it will be heard again, or be gone
        volume.generation += volume.phase in SETTLED
        if step in BEFORE_CHANGE:
            self._begin_pause(volume)
        elif volume.pause in (Pause.HOLDING, Pause.HELD):
            volume.pauses(PauseEvent.HELD)
            volume.pauses(PauseEvent.RESUME)
        volume.happens(VolumeEvent.REMOVE if volume.removing else EVENTS.get(step, VolumeEvent.BUILD))
        volume.step = step
        self.courier.log(f"volume {volume.name}: {step} at {', '.join(sp for sp, _ in orders)}")
        volume.outstanding = len(orders)
        for sp, order in orders:
            self.courier.order(sp, order, partial(self._answered, volume, sp, order))

    def _begin_pause(self, volume: Volume) -> None:
        if volume.pause is Pause.RUNNING:
            volume.held_s = self.courier.now_s
        volume.pauses(PauseEvent.BEGIN)

    def _answered(self, volume: Volume, sp: str, order: VolumeOrder, answer: Answer) -> None:
        volume.outstanding -= 1
        if isinstance(answer, Done):
            self.first_tiers[sp] -= sp in volume.t1
            self.second_tiers[sp] -= sp in volume.t2
            volume.apply(sp, order)
            self.first_tiers[sp] += sp in volume.t1
            self.second_tiers[sp] += sp in volume.t2
        elif isinstance(answer, Refused):
            self._fail(volume, f"{sp}: {answer.reason}")
        self.look_at(volume)
        if volume.outstanding == 0:
            self.changed(volume)

    def _fail(self, volume: Volume, reason: str) -> None:
        """Leave a volume as it is, and say why (step 539); try again later."""
        volume.failure = reason
        self.courier.log(f"volume {volume.name}: {reason}", serious=True)
        waits = any(runs.state is InstanceState.HELD for runs in volume.t2.values())
        volume.retry_s = self.courier.now_s + (RETRY_HELD_S if waits else RETRY_S)
        self._failed[volume.wwn] = None
        volume.happens(VolumeEvent.FAIL)
        self._drop_change(volume, reason)
        volume.tell(reason)

    def _wait(self, volume: Volume, reason: str) -> None:
        """A volume can't be placed now. If that lasts, tell who waits for it; an ALU may just be changing hands."""
        if not volume.settled:
            return
        now_s = self.courier.now_s
        volume.waits_s = volume.waits_s or now_s
        if now_s - volume.waits_s >= RETRY_S:
            volume.tell(reason)
        else:
            volume.retry_s = now_s + RETRY_S
            self._failed[volume.wwn] = None

    def _drop_change(self, volume: Volume, error: str) -> None:
        change, volume.change = volume.change, None
        if change is not None:
            change.then(error)

    def _change(self, volume: Volume, change: Change) -> None:
        """All is held: have the MVSP make the tree another (step 1508)."""
        self._begin_pause(volume)
        volume.pauses(PauseEvent.HELD)
        volume.pauses(PauseEvent.COMMIT)
        self.courier.log(f"volume {volume.name}: {Step.CHANGE}: {change.what}")

        def answered(answer: Answer) -> None:
            volume.pauses(PauseEvent.RESUME)
            volume.change = None
            if isinstance(answer, Done) and isinstance(answer.result, Committed):
                self.committed(answer.result)
                change.then("")
            else:
                assert isinstance(answer, Refused)
                self.courier.log(f"volume {volume.name}: the tree stays as it was: {answer.reason}", serious=True)
                change.then(answer.reason)
            self.look_at(volume)

        self.mastership.ask(change.make, answered)

    def committed(self, result: Committed) -> None:
        """Take over what a change has made durable."""
        if result.volume is not None:
            self.take(result.volume)
        self.on_committed(result)

    def _removed(self, volume: Volume) -> None:
        """Nothing of it runs any more."""
        if volume.removed is not None:
            removed, volume.removed = volume.removed, None
            volume.erasing = True
            removed()
            return
        self.erase(volume)

    def keep(self, volume: Volume, reason: str, again: Callable[[], None]) -> None:
        """A volume could not be taken off the ALUs: bring it back, if the MVSP knows it.

        Else an earlier one may have deleted it without being heard: nothing is served that may be gone. ``again``
        asks once more.
        """
        volume.erasing = False
        volume.removing = volume.seen != self.mastership.round
        volume.removed = again if volume.removing else None
        self._fail(volume, f"it could not be deleted: {reason}")

    def erase(self, volume: Volume) -> None:
        """Forget a volume that is no more."""
        self._index(volume, present=False)
        self._all.pop(volume.wwn, None)
        self.location.forget(volume.wwn)
        self._failed.pop(volume.wwn, None)
        volume.phase = Phase.GONE
        volume.tell("it was deleted")
        self.gone(volume)

    def _settle(self, volume: Volume) -> None:
        """All is as it should be."""
        if volume.pause is not Pause.RUNNING:
            paused_s = self.courier.now_s - volume.held_s
            self.courier.log(f"volume {volume.name}: goes on after {paused_s:.3f} s")
        volume.pauses(PauseEvent.RESUMED)
        if volume.phase is not Phase.ON_LINE:
            self.courier.log(f"volume {volume.name} is on line at {', '.join(sorted(volume.t2))}")
        volume.happens(VolumeEvent.SETTLE)
        volume.create, volume.step = False, ""
        self.changed(volume)
        volume.tell("")


def _fail_legs(report: LegsLost) -> Make:
    return lambda epoch: FailLegs(epoch=epoch, volume=report.volume, legs=report.legs)
