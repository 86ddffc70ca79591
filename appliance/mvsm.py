"""The Master VSM (MVSM): the system image, and the changes of what lies on the ALUs (R9). Dormant on all SPs but one.

The VCM makes a storage processor the MVSP in an epoch of its own. Nothing is changed before the GS set has been taken
up in it, and from then on every order names it. An ALU that has seen a later one refuses the write (M5), and this MVSM
knows that it was replaced while it slept.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from appliance.control.orders import Admit, BeMaster, Change, Collect, Commit, FailLegs, MasterOrder, TakeUp
from appliance.control.reports import Committed, ImagePart, Taken
from appliance.control.values import PART_VOLUMES, VolumeImage
from appliance.decisions import Decision, Do, Failed, Outcome, RecordLegs, Refuse, Reply
from backstores.objects import AnyObject, LegState, MirrorObject
from backstores.volume.loss import without_legs
from backstores.wwn import Wwn, short


class MvsmState(enum.StrEnum):
    """How far a storage processor is the master."""

    DORMANT = "dormant"
    SEATED = "seated"  # chosen; reaching the ALUs
    ACTIVE = "active"


class MvsmEvent(enum.StrEnum):
    """What happens to it."""

    SEAT = "be master"
    TAKE = "taken up"
    REPLACE = "replaced"


TRANSITIONS: Final[Mapping[MvsmState, Mapping[MvsmEvent, MvsmState]]] = {
    MvsmState.DORMANT: {MvsmEvent.SEAT: MvsmState.SEATED, MvsmEvent.REPLACE: MvsmState.DORMANT},
    MvsmState.SEATED: {
        MvsmEvent.SEAT: MvsmState.SEATED,
        MvsmEvent.TAKE: MvsmState.ACTIVE,
        MvsmEvent.REPLACE: MvsmState.DORMANT,
    },
    MvsmState.ACTIVE: {
        MvsmEvent.SEAT: MvsmState.SEATED,
        MvsmEvent.TAKE: MvsmState.ACTIVE,
        MvsmEvent.REPLACE: MvsmState.DORMANT,
    },
}

ALLOWED: Final[Mapping[type[MasterOrder], frozenset[MvsmState]]] = {
    BeMaster: frozenset(MvsmState),
    Admit: frozenset({MvsmState.SEATED, MvsmState.ACTIVE}),
    TakeUp: frozenset({MvsmState.SEATED}),
}
"""In which states an order is taken; all others want an active MVSM."""

ACTIVE_ALONE: Final = frozenset({MvsmState.ACTIVE})


class Mvsm:
    """The decisions of a master; the shell does what they want to the ALUs."""

    def __init__(self) -> None:
        self.state = MvsmState.DORMANT
        self.epoch = 0
        self._image: dict[Wwn, VolumeImage | None] = {}  # None: it is gone. In the order of the latest changes
        self._serials: dict[Wwn, int] = {}
        self._serial = 0

    @property
    def master_epoch(self) -> int:
        """The epoch of its mastership, 0 if it is none."""
        return self.epoch if self.state is MvsmState.ACTIVE else 0

    def replaced(self, epoch: int) -> None:
        """Take note that another is the master in this epoch."""
        if epoch > self.epoch:
            self._move(MvsmEvent.REPLACE)

    def decide(self, order: MasterOrder, seen: int) -> Decision:
        """Say what to do about an order, having seen this epoch."""
        highest = max(seen, self.epoch)
        if order.epoch < highest:
            return Refuse(f"epoch {order.epoch} is past: {highest} was seen", epoch=highest)
        if self.state not in ALLOWED.get(type(order), ACTIVE_ALONE):
            return Refuse(f"this storage processor is no master that could: it is {self.state}", epoch=highest)
        if isinstance(order, BeMaster):
            self._move(MvsmEvent.SEAT)
            self.epoch = order.epoch
            self._image, self._serials, self._serial = {}, {}, 0
        elif order.epoch != self.epoch:
            return Refuse(f"epoch {order.epoch} is not the one of this master: {self.epoch}", epoch=highest)
        elif isinstance(order, Collect):
            return Reply(self._part(order.cursor))
        elif isinstance(order, Commit):
            return self._already(order) or Do(order)
        elif isinstance(order, FailLegs):
            return self._fail(order)
        return Do(order)

    def close(self, order: MasterOrder, outcome: Outcome, seen: int) -> Reply | Refuse:
        """Take note of what came of an order, and say what to answer, having seen this epoch."""
        if outcome.image is not None:
            self._compare(outcome.image)
        if isinstance(outcome, Failed):
            if outcome.fenced_by:
                self._move(MvsmEvent.REPLACE)
            return Refuse(outcome.reason, outcome.usage, outcome.fenced_by)
        if self.epoch != order.epoch or self.state is MvsmState.DORMANT:  # what was written was written before that
            return Refuse(f"epoch {order.epoch} is past: this master was replaced", epoch=max(seen, self.epoch))
        if isinstance(outcome.result, Taken):
            self._move(MvsmEvent.TAKE)
            self.epoch = outcome.result.epoch
        if isinstance(order, Commit | FailLegs) and isinstance(outcome.result, Committed):
            self._changed(order.volume, outcome.result.volume)
        return Reply(outcome.result)

    def _move(self, event: MvsmEvent) -> None:
        self.state = TRANSITIONS[self.state][event]

    # The system image

    def _part(self, cursor: int) -> ImagePart:
        """Give what has changed since ``cursor``, oldest change first."""
        behind = ((wwn, serial) for wwn, serial in self._serials.items() if serial > cursor)
        part = list(islice(behind, PART_VOLUMES))
        images = [(wwn, self._image[wwn]) for wwn, _ in part]
        cursor = part[-1][1] if part else cursor
        return ImagePart(
            volumes=tuple(image for _, image in images if image is not None),
            gone=tuple(wwn for wwn, image in images if image is None),
            cursor=cursor,
            more=cursor < self._serial,
        )

    def _compare(self, found: Sequence[VolumeImage]) -> None:
        """Take over a system image that was collected anew. What is not in it may be on ALUs that are away."""
        for image in found:
            wwn = image.objects[0].wwn
            if image != self._image.get(wwn):
                self._changed(wwn, image)

    def _changed(self, volume: Wwn, image: VolumeImage | None) -> None:
        self._serial += 1
        self._image[volume] = image
        self._serials.pop(volume, None)  # to the end: the dictionary stays in the order of serials
        self._serials[volume] = self._serial

    def _already(self, order: Commit) -> Reply | Refuse | None:
        """Answer a commit that an earlier master, or an earlier VCM, has brought to its end."""
        image = self._image.get(order.volume)
        if order.change is Change.DELETE:
            return Reply(Committed()) if image is None and order.volume in self._image else None
        if image is None and order.volume in self._image:
            return Refuse(f"volume {short(order.volume)} was deleted: its name is never used again")
        if image is None:
            return None
        known = {obj.wwn: obj.generation for obj in image.objects}
        newer = [obj for obj in order.objects if obj.generation > known.get(obj.wwn, 0)]
        if newer and order.change is Change.REPLACE:
            return None
        return Reply(Committed(volume=image))  # though it may have been changed since

    def _fail(self, order: FailLegs) -> Decision:
        """Make the tree in which these legs have failed."""
        image = self._image.get(order.volume)
        if image is None:
            return Refuse(f"there is no volume {short(order.volume)}")
        objects, changed = failed(image.objects, order.legs)
        if not changed:
            return Reply(Committed(volume=image))  # they have failed before
        last = [mirror for mirror in changed if not any(leg.state is LegState.IN_SYNC for leg in mirror.legs)]
        if last:
            return Refuse(f"mirror {short(last[0].wwn)} of volume {short(order.volume)} has no other leg in sync")
        return Do(RecordLegs(order.volume, objects, tuple(changed)))


def failed(objects: Sequence[AnyObject], legs: Sequence[Wwn]) -> tuple[tuple[AnyObject, ...], list[MirrorObject]]:
    """Give a tree with these legs failed, and the mirrors that this changes."""
    newer: dict[Wwn, MirrorObject] = {}
    for obj in objects:
        if isinstance(obj, MirrorObject):
            lost = {leg.child for leg in obj.legs if leg.child in legs and leg.state is LegState.IN_SYNC}
            if lost:
                newer[obj.wwn] = without_legs(obj, lost)
    return tuple(newer.get(obj.wwn, obj) for obj in objects), list(newer.values())
