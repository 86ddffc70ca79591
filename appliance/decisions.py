"""What a storage processor's decision cores make of an order: do it, answer at once, or refuse it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.control.orders import Order
from appliance.control.reports import Result
from appliance.control.values import VolumeImage
from backstores.objects import AnyObject
from backstores.wwn import Wwn


@dataclass(frozen=True, slots=True)
class RecordLegs:
    """Store a tree in which more legs have failed than before (D3); ``changed`` are its new objects."""

    volume: Wwn
    objects: tuple[AnyObject, ...]
    changed: tuple[AnyObject, ...]


Action = Order | RecordLegs
"""What the shell of a storage processor carries out, one call for each."""


@dataclass(frozen=True, slots=True)
class Do:
    """The shell carries this out, and tells what came of it."""

    action: Action


@dataclass(frozen=True, slots=True)
class Reply:
    """It is so already, or the answer is known."""

    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can't be done. ``epoch``: because a higher one was seen. ``usage``: because of what was asked."""

    reason: str
    usage: bool = False
    epoch: int = 0


Decision = Do | Reply | Refuse


@dataclass(frozen=True, slots=True)
class Carried:
    """An action was carried out. ``image`` is the whole system image, where the action may have changed all of it."""

    job: int
    result: Result | None = None
    image: Sequence[VolumeImage] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An action failed. ``fenced_by``: the higher epoch that an ALU has seen, if that is why (M5)."""

    job: int
    reason: str
    usage: bool = False
    fenced_by: int = 0
    image: Sequence[VolumeImage] | None = None


Outcome = Carried | Failed
