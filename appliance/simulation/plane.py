"""ALUs and data planes in memory: what the orders of a storage processor do, and what forbids it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from appliance.control.orders import (
    Admit,
    BeMaster,
    Change,
    Claim,
    CloseAlus,
    Commit,
    Discover,
    Dismiss,
    ExposeT1,
    Follow,
    GoOffLine,
    GoOnLine,
    HoldVolume,
    MakeT1,
    MakeT2,
    OpenAlus,
    Reform,
    RemoveT1,
    RemoveT2,
    ResumeVolume,
    Scan,
    SetFault,
    SetShow,
    TakeUp,
)
from appliance.control.reports import Committed, Held, Opened, Result, Scanned, Taken
from appliance.control.values import AluAt, Found, InstanceState, Show, VolumeImage
from appliance.decisions import Action, RecordLegs
from appliance.messages import AluState, AluStatus, GsState, GsStatus
from appliance.vcm.placement import serving
from backstores.objects import AnyObject, PartitionObject
from backstores.wwn import Wwn

SIZE_BYTES = 1 << 40


class PlaneError(Exception):
    """An order can't be carried out. ``fenced_by`` is the epoch that forbids it."""

    def __init__(self, reason: str, fenced_by: int = 0) -> None:
        super().__init__(reason)
        self.fenced_by = fenced_by


@dataclass(slots=True)
class SimAlu:
    """An ALU: who has it locked, the epoch that it was fenced with, and its copies of volumes' trees."""

    path: str
    wwn: Wwn
    holder: SimPlane | None = None
    epoch: int = 0
    trees: dict[Wwn, tuple[AnyObject, ...]] = field(default_factory=dict)
    failed: bool = False

    def status(self) -> AluStatus:
        """Describe it."""
        return AluStatus(wwn=self.wwn, path=self.path, kind="file", state=AluState.OWNED, size_bytes=SIZE_BYTES)


@dataclass(slots=True)
class Shelf:
    """All ALUs, and which storage processor was the master of which epoch."""

    alus: dict[str, SimAlu] = field(default_factory=dict)
    by_wwn: dict[Wwn, SimAlu] = field(default_factory=dict)
    masters: dict[int, SimPlane] = field(default_factory=dict)
    deleted: set[Wwn] = field(default_factory=set)  # what a tombstone says on an ALU that is away

    def add(self, alu: SimAlu) -> None:
        """Put an ALU there."""
        self.alus[alu.path] = self.by_wwn[alu.wwn] = alu

    def trees(self) -> dict[Wwn, tuple[AnyObject, ...]]:
        """Give the newest tree of each volume: the truth."""
        return {wwn: tree for wwn, tree in newest(self.alus.values()).items() if wwn not in self.deleted}


def newest(alus: Iterable[SimAlu]) -> dict[Wwn, tuple[AnyObject, ...]]:
    """Give the newest copy of each tree: no generation of a tree is without a higher one of one of its objects."""
    found: dict[Wwn, tuple[AnyObject, ...]] = {}
    for alu in alus:
        for wwn, objects in alu.trees.items():
            if wwn not in found or _age(objects) > _age(found[wwn]):
                found[wwn] = objects
    return found


def _age(objects: Iterable[AnyObject]) -> int:
    return sum(obj.generation for obj in objects)


@dataclass(slots=True)
class Instance:
    """A volume's second tier in a data plane."""

    made: MakeT2
    state: InstanceState
    show: Show = field(default_factory=Show)


@dataclass(slots=True, eq=False)
class SimPlane:
    """The data plane of one process of a storage processor."""

    sp: str
    shelf: Shelf
    peer: Callable[[str], SimPlane | None]
    alive: bool = True
    follows: int = 0
    taken: int = 0  # the epoch in which it was to take up the GS set
    admitted: dict[str, AluAt] = field(default_factory=dict)
    t1: dict[Wwn, tuple[PartitionObject, ...]] = field(default_factory=dict)
    shown_to: dict[Wwn, frozenset[str]] = field(default_factory=dict)
    t2: dict[Wwn, Instance] = field(default_factory=dict)
    broken: set[Wwn] = field(default_factory=set)  # volumes whose orders fail here

    def die(self) -> None:
        """End with the process: locks go, nothing is served any more."""
        self.alive = False
        for alu in self.shelf.alus.values():
            if alu.holder is self:
                alu.holder = None

    def carry_out(self, action: Action) -> tuple[Result | None, tuple[VolumeImage, ...] | None]:
        """Do what an order says. Gives its result, and the system image where it may have changed.

        Raises:
            PlaneError: it can't be done.
        """
        match action:
            case Scan(paths=paths):
                return Scanned(found=tuple(Found(path, SIZE_BYTES) for path in paths if path in self.shelf.alus)), None
            case OpenAlus():
                return self._open(action), None
            case CloseAlus(paths=paths):
                for path in paths:
                    self.shelf.alus[path].holder = None
            case Follow(epoch=epoch):
                self.follows = max(self.follows, epoch)
            case SetFault():
                pass
            case BeMaster() | Admit() | TakeUp() | Commit() | RecordLegs() | Claim() | Dismiss() | Reform():
                return self._as_master(action)
            case MakeT1(volume=volume, objects=objects):
                self._make_t1(volume, objects)
            case ExposeT1(volume=volume, grants=grants):
                self.shown_to[volume] = frozenset(grant.sp for grant in grants)
            case RemoveT1(volume=volume):
                del self.t1[volume]
                self.shown_to.pop(volume, None)
            case Discover():
                self._discover(action)
            case _:
                return self._second_tier(action), None
        return None, None

    def _open(self, order: OpenAlus) -> Opened:
        opened = []
        for path in order.paths:
            alu = self.shelf.alus.get(path)
            if alu is None:
                raise PlaneError(f"there is no {path}")
            if alu.holder not in (None, self):
                raise PlaneError(f"alu {path} is locked")
            alu.holder = self
            opened.append(alu.status())
        return Opened(alus=tuple(opened))

    # The tiers

    def _make_t1(self, volume: Wwn, objects: tuple[PartitionObject, ...]) -> None:
        if volume in self.broken:
            raise PlaneError("broken on purpose")
        for partition in objects:
            if self.shelf.by_wwn[partition.alu].holder is not self:
                raise PlaneError(f"alu {partition.alu} is not open here")
        self.t1[volume] = objects

    def _discover(self, order: Discover) -> None:
        target = self.peer(order.access.sp)
        if target is None:
            raise PlaneError(f"{order.access.sp} does not answer")
        there = {obj.wwn for obj in target.t1.get(order.volume, ())}
        if self.sp not in target.shown_to.get(order.volume, ()) or not set(order.objects) <= there:
            raise PlaneError(f"{order.access.sp} does not show what was looked for")

    def _second_tier(self, action: Action) -> Result | None:
        match action:
            case MakeT2(volume=volume):
                self.t2[volume] = Instance(action, InstanceState.OFF_LINE)
            case GoOnLine(volume=volume, show=show):
                self.t2[volume].state = InstanceState.ON_LINE
                self.t2[volume].show = show
            case SetShow(volume=volume, show=show):
                self.t2[volume].show = show
            case GoOffLine(volume=volume):
                self.t2[volume].state = InstanceState.OFF_LINE
            case HoldVolume(volume=volume):
                self.t2[volume].state = InstanceState.HELD
                return Held(after_s=0.0)
            case ResumeVolume(volume=volume, made=made):
                self.t2[volume].made = made or self.t2[volume].made
                self.t2[volume].state = InstanceState.ON_LINE
            case RemoveT2(volume=volume):
                del self.t2[volume]
            case _:
                raise AssertionError(action)
        return None

    def lose_legs(self, volume: Wwn, legs: tuple[Wwn, ...]) -> bool:
        """Hold a volume because legs have failed that it still writes; False if it writes none of them here."""
        instance = self.t2.get(volume)
        if instance is None or instance.state is not InstanceState.ON_LINE:
            return False
        if not {partition.wwn for partition in serving(instance.made.objects)} & set(legs):
            return False
        instance.state = InstanceState.HELD
        return True

    # The master

    def _as_master(self, action: Action) -> tuple[Result | None, tuple[VolumeImage, ...] | None]:
        match action:
            case BeMaster():
                self.admitted, self.taken = {}, 0
            case Admit(alus=alus):
                self.admitted |= {at.path: at for at in alus}
                late = self.taken and self.mastership < self.taken  # read only so far
                return (self._take_up(self.taken) if late else Opened(alus=())), self._image()
            case TakeUp(epoch=epoch):
                self.taken = epoch
                return self._take_up(epoch), self._image()
            case Commit(epoch=epoch, change=Change.DELETE, volume=volume, objects=objects):
                self._fenced(epoch, _alus(objects))
                self.shelf.deleted.add(volume)
                return Committed(), None
            case Commit(epoch=epoch, volume=volume, objects=objects):
                return self._store(epoch, volume, objects), None
            case RecordLegs(volume=volume, objects=objects):
                return self._store(self.mastership, volume, objects), None
        return Committed(), None

    @property
    def mastership(self) -> int:
        """The epoch that it was the master of last."""
        return max((epoch for epoch, plane in self.shelf.masters.items() if plane is self), default=0)

    def _reached(self) -> list[SimAlu]:
        """List the ALUs that it reaches: its own, and those that a follower of its passes through, sooner or later."""
        reached = []
        for path, at in self.admitted.items():
            alu = self.shelf.alus[path]
            holder = alu.holder
            if holder is None or holder.sp != (self.sp if at.access is None else at.access.sp):
                continue
            if holder.follows <= max(self.follows, self.mastership):
                reached.append(alu)
        return reached

    def _take_up(self, least: int) -> Taken:
        alus = self._reached()
        if 2 * len(alus) <= len(self.shelf.alus):
            return Taken(epoch=least, gs=GsStatus(state=GsState.READ_ONLY, epoch=least, detail="below a majority"))
        epoch = max(least, 1 + max(alu.epoch for alu in alus))
        for alu in alus:
            alu.epoch = epoch
        assert epoch not in self.shelf.masters, f"two masters of epoch {epoch}"
        self.shelf.masters[epoch] = self
        return Taken(epoch=epoch, gs=GsStatus(state=GsState.READY, epoch=epoch))

    def _fenced(self, epoch: int, wwns: Iterable[Wwn]) -> list[SimAlu]:
        """Give the ALUs of these that it may write in an epoch; at least one of them is there."""
        if self.shelf.masters.get(epoch) is not self:
            raise PlaneError("the appliance is read only")
        alus = [alu for alu in self._reached() if alu.wwn in set(wwns)]
        later = max((alu.epoch for alu in self.shelf.alus.values()), default=0)
        if any(alu.epoch > epoch for alu in alus) or (not alus and later > epoch):
            raise PlaneError("fenced", fenced_by=later)
        if not alus:
            raise PlaneError("none of its alus can be reached")
        for alu in alus:
            alu.epoch = epoch
        return alus

    def _store(self, epoch: int, volume: Wwn, objects: tuple[AnyObject, ...]) -> Committed:
        if volume in self.shelf.deleted:
            raise PlaneError("a tombstone lies in its place")
        wanted = {obj.alu for obj in serving(objects)}
        alus = self._fenced(epoch, wanted)
        if len(alus) < len(wanted) or any(alu.failed for alu in alus):
            raise PlaneError("an alu of it can't be written")
        for alu in alus:
            alu.trees[volume] = objects
        return Committed(volume=VolumeImage(objects), alus=tuple(alu.status() for alu in alus))

    def _trees(self) -> Mapping[Wwn, tuple[AnyObject, ...]]:
        trees = newest(self._reached())
        return {wwn: tree for wwn, tree in trees.items() if wwn not in self.shelf.deleted}

    def _image(self) -> tuple[VolumeImage, ...]:
        reached = {alu.wwn for alu in self._reached()}
        return tuple(
            VolumeImage(objects, "" if _needed(objects) <= reached else "an alu of it is missing")
            for objects in self._trees().values()
        )


def _alus(objects: Iterable[AnyObject]) -> set[Wwn]:
    return {obj.alu for obj in objects if isinstance(obj, PartitionObject)}


def _needed(objects: tuple[AnyObject, ...]) -> set[Wwn]:
    return {obj.alu for obj in serving(objects)}
