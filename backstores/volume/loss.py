"""What failures mean for a volume: a pure decision, tested as a table.

A failure below a mirror that keeps another leg in sync costs the mirror that leg (R27): the request is
planned again without it. Any other failure is the host's: no mirror above it, no leg left, or a full
disk, which is no fault of the leg and which every leg is likely to share.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from backstores.objects import AnyObject, Leg, LegState, MirrorObject
from backstores.wwn import Wwn

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that failed on a leaf; ``leaf`` is None when no leaf is to blame.

    ``flushing``: what the leaf had taken before is lost, so that a full disk, too, costs it its place.
    """

    leaf: Wwn | None
    code: int
    flushing: bool = False


def lost_legs(objects: Sequence[AnyObject], failures: Iterable[Failure]) -> dict[Wwn, set[Wwn]] | None:
    """Say which legs (by mirror) must be given up so that the request can go on; None if it can't."""
    parents = {child: obj for obj in objects for child in obj.children}
    lost: dict[Wwn, set[Wwn]] = {}
    for failure in failures:
        if failure.leaf is None or (failure.code in FULL and not failure.flushing):
            return None
        child: Wwn = failure.leaf
        while (parent := parents.get(child)) is not None:
            if isinstance(parent, MirrorObject):
                gone = lost.get(parent.wwn, set()) | {child}
                if any(leg.state is LegState.IN_SYNC and leg.child not in gone for leg in parent.legs):
                    lost[parent.wwn] = gone
                    break
            child = parent.wwn
        else:
            return None
    return lost


def without_legs(mirror: MirrorObject, lost: set[Wwn]) -> MirrorObject:
    """Give the mirror's next generation, in which these legs have failed (D3: a higher fail sequence)."""
    legs = tuple(Leg(leg.child, LegState.FAILED) if leg.child in lost else leg for leg in mirror.legs)
    return msgspec.structs.replace(
        mirror, generation=mirror.generation + 1, legs=legs, fail_sequence=mirror.fail_sequence + 1
    )


def degraded(objects: Iterable[AnyObject]) -> list[str]:
    """Name the legs that are not in sync, for people."""
    return [
        f"leg {leg.child[-8:]} of mirror {obj.wwn[-8:]} is {leg.state}"
        for obj in objects
        if isinstance(obj, MirrorObject)
        for leg in obj.legs
        if leg.state is not LegState.IN_SYNC
    ]
