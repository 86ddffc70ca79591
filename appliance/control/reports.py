"""From a storage processor to the VCM: that it is there, what came of orders, and what happens by itself."""

from __future__ import annotations

from appliance.control.values import (
    AluAt,
    Count,
    Found,
    Message,
    Name,
    Portals,
    T1Runs,
    T2Runs,
    Text,
    Value,
    VolumeImage,
)
from appliance.messages import AluStatus, GsStatus, SessionStatus
from backstores.wwn import Wwn


class Scanned(Message, frozen=True):
    """What was found."""

    found: tuple[Found, ...]


class Opened(Message, frozen=True):
    """The ALUs that were opened, and why others were not."""

    alus: tuple[AluStatus, ...]
    refused: tuple[Found, ...] = ()


class Taken(Message, frozen=True):
    """The GS set is taken up, in this epoch."""

    epoch: Count
    gs: GsStatus


class ImagePart(Message, frozen=True):
    """Volumes that have changed, and names of those that are gone. ``more``: ask again, from ``cursor``."""

    volumes: tuple[VolumeImage, ...]
    gone: tuple[Wwn, ...]
    cursor: Count
    more: bool


class Committed(Message, frozen=True):
    """It is durable. ``volume`` is the tree as it is now, ``alus`` are those that it changed (step 815)."""

    volume: VolumeImage | None = None
    alus: tuple[AluStatus, ...] = ()
    gs: GsStatus | None = None


class RunsPart(Message, frozen=True):
    """What a storage processor runs. ``cursor`` is where the next part begins, None after the last."""

    t1: tuple[T1Runs, ...]
    t2: tuple[T2Runs, ...]
    cursor: Count | None


class Held(Message, frozen=True):
    """The volume is held, after this long."""

    after_s: float


Result = Scanned | Opened | Taken | ImagePart | Committed | RunsPart | Held


class Hello(Message, frozen=True):
    """A storage processor is there. ``runs``: how many instances of volumes, both tiers, without what is under way."""

    blade: Text
    internal_portals: Portals
    host_portals: Portals = ()
    epoch: Count = 0  # the highest that it has seen
    master_epoch: Count = 0  # that of its own mastership, if it is the MVSP
    runs: Count = 0
    alus: tuple[AluAt, ...] = ()  # those that it has open


class Beat(Message, frozen=True):
    """A storage processor is still there."""

    load: float
    epoch: Count


class Done(Message, frozen=True):
    """An order is carried out."""

    number: Count
    result: Result | None = None


class Refused(Message, frozen=True):
    """An order is not carried out, and nothing of it. ``epoch``: the highest seen, if that is why."""

    number: Count
    reason: Text
    usage: bool = False  # what was asked can't be done; else it was tried, and failed
    epoch: Count = 0


class LegsLost(Message, frozen=True):
    """Legs of mirrors have failed; the volume is held here until the tree says so."""

    volume: Wwn
    generation: Count
    legs: tuple[Wwn, ...]


class VolumeIs(Message, frozen=True):
    """How an instance is: what changes by itself."""

    volume: Wwn
    generation: Count
    resync_percent: float | None = None
    detail: Text = ""


class AluIs(Message, frozen=True):
    """An ALU that is open here has failed, or has changed otherwise."""

    alu: AluStatus


class SessionsAre(Message, frozen=True):
    """The sessions of hosts here."""

    sessions: tuple[SessionStatus, ...]


class FromSp(Value, frozen=True, tag=True):
    """From this incarnation of a storage processor; ``vcm`` is the incarnation that it takes orders from."""

    sp: Name
    incarnation: Count
    vcm: Count
    body: Hello | Beat | Done | Refused | LegsLost | VolumeIs | AluIs | SessionsAre
