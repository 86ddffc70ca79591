"""A volume, as the VCM knows it: what it should be, what runs, and how far it is."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.control.orders import (
    Discover,
    ExposeT1,
    GoOffLine,
    GoOnLine,
    HoldVolume,
    MakeT1,
    MakeT2,
    RemoveT1,
    RemoveT2,
    ResumeVolume,
    SetShow,
    VolumeOrder,
)
from appliance.control.values import InstanceState, T1Runs, T2Runs, VolumeImage, likeness
from appliance.messages import VolumeState, VolumeStatus
from appliance.vcm.mastership import Make
from appliance.vcm.placement import Placement, Unplaced
from backstores.objects import AnyObject, LegState, MirrorObject, VolumeObject
from backstores.volume.loss import degraded
from backstores.wwn import Wwn


class Phase(enum.StrEnum):
    """How far a volume is."""

    KNOWN = "known"  # in the system image; nothing was ordered yet
    BUILDING = "building"  # steps 522 to 536, off line
    ON_LINE = "on line"
    CHANGING = "changing"  # held, to go on as another tree or at other places
    FAILED = "failed"  # step 539: it stays as it is, and is tried again
    REMOVING = "removing"
    GONE = "gone"


class VolumeEvent(enum.StrEnum):
    """What happens to a volume."""

    BUILD = "build"
    HOLD = "hold"
    SETTLE = "all is as it should be"
    REST = "nothing should run"
    FAIL = "refused"
    REMOVE = "remove"
    ERASE = "off the ALUs"


_WORKING: Final = {
    VolumeEvent.BUILD: Phase.BUILDING,
    VolumeEvent.HOLD: Phase.CHANGING,
    VolumeEvent.SETTLE: Phase.ON_LINE,
    VolumeEvent.REST: Phase.KNOWN,
    VolumeEvent.FAIL: Phase.FAILED,
    VolumeEvent.REMOVE: Phase.REMOVING,
}

TRANSITIONS: Final[Mapping[Phase, Mapping[VolumeEvent, Phase]]] = {
    Phase.KNOWN: _WORKING,
    Phase.BUILDING: _WORKING,
    Phase.ON_LINE: _WORKING,
    Phase.CHANGING: {**_WORKING, VolumeEvent.BUILD: Phase.CHANGING},
    Phase.FAILED: _WORKING,
    Phase.REMOVING: {
        VolumeEvent.REMOVE: Phase.REMOVING,
        VolumeEvent.ERASE: Phase.GONE,
        VolumeEvent.FAIL: Phase.FAILED,
    },
    Phase.GONE: {},
}


class Pause(enum.StrEnum):
    """How far a change under I/O is (the quiesce of steps 1502 to 1512)."""

    RUNNING = "running"
    HOLDING = "holding"  # some are held, some still serve
    HELD = "held"
    COMMITTING = "committing"
    RESUMING = "resuming"


class PauseEvent(enum.StrEnum):
    """What brings it further."""

    BEGIN = "hold"
    HELD = "all held"
    COMMIT = "commit"
    RESUME = "changed, or refused"
    RESUMED = "all go on"


PAUSES: Final[Mapping[Pause, Mapping[PauseEvent, Pause]]] = {
    Pause.RUNNING: {
        PauseEvent.BEGIN: Pause.HOLDING,
        PauseEvent.HELD: Pause.HELD,  # nothing serves
        PauseEvent.RESUMED: Pause.RUNNING,
    },
    Pause.HOLDING: {
        PauseEvent.BEGIN: Pause.HOLDING,
        PauseEvent.HELD: Pause.HELD,
        PauseEvent.RESUMED: Pause.RUNNING,
    },
    Pause.HELD: {
        PauseEvent.BEGIN: Pause.HOLDING,
        PauseEvent.HELD: Pause.HELD,
        PauseEvent.COMMIT: Pause.COMMITTING,
        PauseEvent.RESUME: Pause.RESUMING,  # it goes on at other places, with the tree that it has
        PauseEvent.RESUMED: Pause.RUNNING,
    },
    Pause.COMMITTING: {
        PauseEvent.BEGIN: Pause.COMMITTING,  # one came back, and lost its legs
        PauseEvent.RESUME: Pause.RESUMING,
    },
    Pause.RESUMING: {
        PauseEvent.BEGIN: Pause.HOLDING,  # a storage processor came back that serves an older tree
        PauseEvent.HELD: Pause.HELD,
        PauseEvent.RESUMED: Pause.RUNNING,
    },
}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the tree that waits until the volume is held. ``then`` gets its error, empty if there is none."""

    make: Make
    what: str
    then: Callable[[str], None]


@dataclass(slots=True)
class Volume:
    """A volume. ``phase`` and ``pause`` are moved by ``happens`` and ``pauses`` alone."""

    wwn: Wwn
    image: VolumeImage | None = None
    placement: Placement | Unplaced | None = None
    t1: dict[str, T1Runs] = field(default_factory=dict)
    t2: dict[str, T2Runs] = field(default_factory=dict)
    seen: int = 0  # the mastership whose master had it in its image
    linked: set[tuple[str, str]] = field(default_factory=set)
    generation: int = 0
    create: bool = False
    removing: bool = False
    erasing: bool = False  # the MVSP has been asked to take it off the ALUs
    change: Change | None = None
    removed: Callable[[], None] | None = None  # told that nothing runs any more
    settled: list[Callable[[str], None]] = field(default_factory=list)  # told that all is well, or what is not
    phase: Phase = Phase.KNOWN
    pause: Pause = Pause.RUNNING
    step: str = ""
    outstanding: int = 0
    failure: str = ""
    retry_s: float = 0.0
    waits_s: float = 0.0  # since when it can't be placed, though somebody waits for it
    held_s: float = 0.0  # since when
    resync: dict[str, float] = field(default_factory=dict)  # per cent, by storage processor
    trouble: dict[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> tuple[AnyObject, ...]:
        """The tree; empty while only storage processors have told of it."""
        return self.image.objects if self.image else ()

    @property
    def head(self) -> VolumeObject | None:
        """The volume object."""
        head = self.objects[0] if self.objects else None
        assert head is None or isinstance(head, VolumeObject)
        return head

    @property
    def name(self) -> str:
        """What people call it."""
        return self.head.name if self.head else self.wwn

    @property
    def failed_legs(self) -> set[Wwn]:
        """The legs of its mirrors that are known to have failed."""
        mirrors = [obj for obj in self.objects if isinstance(obj, MirrorObject)]
        return {leg.child for mirror in mirrors for leg in mirror.legs if leg.state is LegState.FAILED}

    def is_newer_than(self, objects: Sequence[AnyObject]) -> bool:
        """Whether a tree has an older copy of an object than this one has."""
        generations = {obj.wwn: obj.generation for obj in self.objects}
        return any(obj.generation < generations.get(obj.wwn, 0) for obj in objects)

    def happens(self, event: VolumeEvent) -> None:
        """Move on."""
        self.phase = TRANSITIONS[self.phase][event]

    def pauses(self, event: PauseEvent) -> None:
        """Move on with a change under I/O."""
        self.pause = PAUSES[self.pause][event]

    def runs(self, sp: str, instance: T1Runs | T2Runs) -> None:
        """Take note of what a storage processor says it runs."""
        if isinstance(instance, T1Runs):
            self.t1[sp] = instance
        else:
            self.t2[sp] = instance
        self.generation = max(self.generation, instance.generation)

    def apply(self, sp: str, order: VolumeOrder) -> None:
        """Take note that an order was carried out."""
        APPLY[type(order)](self, sp, order)

    def lose_legs(self, sp: str) -> None:
        """Take note that an instance holds itself."""
        _state(self, sp, InstanceState.HELD)

    def tell(self, error: str) -> None:
        """Tell who waits for the volume to be as it should."""
        settled, self.settled = self.settled, []
        for then in settled:
            then(error)

    def forget(self, sp: str) -> None:
        """Take note that nothing runs at a storage processor any more."""
        self.t1.pop(sp, None)
        self.t2.pop(sp, None)
        self.resync.pop(sp, None)
        self.trouble.pop(sp, None)
        self.linked = {pair for pair in self.linked if sp not in pair}

    def status(self) -> VolumeStatus | None:
        """Describe it for people; None while its tree is not known."""
        head = self.head
        if head is None:
            return None
        faults = degraded(self.objects)
        serving = [runs for runs in self.t2.values() if runs.state is not InstanceState.OFF_LINE]
        step = f"at step {self.step}" if self.step else ""
        percent = min(self.resync.values(), default=None)
        state = VolumeState.ONLINE
        if not serving:
            state = VolumeState.OFFLINE
        elif percent is not None:
            state = VolumeState.RESYNC
        elif faults or self.why:
            state = VolumeState.DEGRADED
        return VolumeStatus(
            wwn=head.wwn,
            name=head.name,
            state=state,
            blocks=head.blocks,
            block_bytes=head.block_bytes,
            layout=head.layout,
            created=head.created,
            objects=self.objects,
            detail="; ".join(filter(None, [self.why, *self.trouble.values(), *faults, "" if serving else step])),
            resync_percent=percent,
        )

    @property
    def why(self) -> str:
        """What keeps it from being as it should be."""
        if self.image is not None and self.image.reason:
            return self.image.reason
        if isinstance(self.placement, Unplaced):
            return self.placement.reason
        return self.failure


def _made_t1(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, MakeT1)
    shown_to = volume.t1[sp].shown_to if sp in volume.t1 else ()
    volume.t1[sp] = T1Runs(order.volume, order.generation, order.objects, shown_to)


def _exposed(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, ExposeT1)
    runs = volume.t1[sp]
    names = tuple(sorted(grant.sp for grant in order.grants))
    volume.t1[sp] = T1Runs(order.volume, order.generation, runs.objects, names)
    volume.linked = {(name, target) for name, target in volume.linked if target != sp}


def _discovered(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, Discover)
    volume.linked.add((sp, order.access.sp))


def _made_t2(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, MakeT2)
    volume.t2[sp] = _runs(order, InstanceState.OFF_LINE, "")


def _runs(made: MakeT2, state: InstanceState, shown: str) -> T2Runs:
    return T2Runs(made.volume, made.generation, made.likeness, made.role, state, shown)


def _state(volume: Volume, sp: str, state: InstanceState, shown: str | None = None) -> None:
    runs = volume.t2[sp]
    shown = runs.shown if shown is None else shown
    volume.t2[sp] = T2Runs(runs.volume, runs.generation, runs.likeness, runs.role, state, shown)


def _on_line(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, GoOnLine)
    _state(volume, sp, InstanceState.ON_LINE, likeness(order.show))


def _shown(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, SetShow)
    _state(volume, sp, volume.t2[sp].state, likeness(order.show))


def _off_line(volume: Volume, sp: str, order: VolumeOrder) -> None:
    _state(volume, sp, InstanceState.OFF_LINE)


def _held(volume: Volume, sp: str, order: VolumeOrder) -> None:
    _state(volume, sp, InstanceState.HELD)


def _resumed(volume: Volume, sp: str, order: VolumeOrder) -> None:
    assert isinstance(order, ResumeVolume)
    if order.made is None:
        _state(volume, sp, InstanceState.ON_LINE)
    else:
        volume.t2[sp] = _runs(order.made, InstanceState.ON_LINE, volume.t2[sp].shown)


def _removed_t2(volume: Volume, sp: str, order: VolumeOrder) -> None:
    volume.t2.pop(sp, None)
    volume.linked = {(name, target) for name, target in volume.linked if name != sp}


def _removed_t1(volume: Volume, sp: str, order: VolumeOrder) -> None:
    volume.t1.pop(sp, None)


APPLY: Final[Mapping[type[VolumeOrder], Callable[[Volume, str, VolumeOrder], None]]] = {
    MakeT1: _made_t1,
    ExposeT1: _exposed,
    Discover: _discovered,
    MakeT2: _made_t2,
    GoOnLine: _on_line,
    SetShow: _shown,
    GoOffLine: _off_line,
    HoldVolume: _held,
    ResumeVolume: _resumed,
    RemoveT2: _removed_t2,
    RemoveT1: _removed_t1,
}
