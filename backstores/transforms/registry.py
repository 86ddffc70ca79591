"""Every transform there is: one row each.

A row says on which tier of the tree a transform lies (R12; None: wherever it is put), whether it is
*static*, so that ``flat`` can do away with it, and, if volumes are stored with it, which object
describes it and how a node is made from that object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from backstores.block import Node, Transform
from backstores.objects import AnyObject, ConcatObject, MirrorObject, PartitionObject, StoredObject, StripeObject
from backstores.transforms.base import Setting
from backstores.transforms.concat import Concat
from backstores.transforms.fault import Delay, Error, Log
from backstores.transforms.mirror import Mirror
from backstores.transforms.partition import Partition, leaf
from backstores.transforms.passthrough import Passthrough
from backstores.transforms.stripe import Stripe


@dataclass(frozen=True, slots=True)
class Stored:
    """How a transform is stored: the kind of object, and what makes a node from one and its children."""

    kind: type[StoredObject]
    make: Callable[[AnyObject, tuple[Node, ...], Setting], Node]


@dataclass(frozen=True, slots=True)
class Row:
    """What the rest of the appliance knows about a transform."""

    transform: type[Transform]
    tier: Literal[1, 2] | None
    static: bool
    stored: Stored | None = None


TRANSFORMS: Final[Mapping[str, Row]] = {
    "partition": Row(Partition, tier=1, static=True, stored=Stored(PartitionObject, leaf)),
    "stripe": Row(Stripe, tier=2, static=True, stored=Stored(StripeObject, Stripe.of)),
    "concat": Row(Concat, tier=2, static=True, stored=Stored(ConcatObject, Concat.of)),
    "mirror": Row(Mirror, tier=2, static=True, stored=Stored(MirrorObject, Mirror.of)),
    "passthrough": Row(Passthrough, tier=None, static=True),
    "error": Row(Error, tier=None, static=False),
    "delay": Row(Delay, tier=None, static=False),
    "log": Row(Log, tier=None, static=False),
}

MAKERS: Final = {row.stored.kind: row.stored.make for row in TRANSFORMS.values() if row.stored}
