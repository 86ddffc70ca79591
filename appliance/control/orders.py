"""Orders: from the VCM to a storage processor. Each is carried out by one call of the storage processor's shell."""

from __future__ import annotations

import enum

from appliance.control.values import Access, AluAt, Count, Grant, Message, Name, Path, Role, Show, Text, Value
from backstores.objects import AnyObject, PartitionObject
from backstores.wwn import Wwn


class Scan(Message, frozen=True):
    """Say what these paths lead to, and change nothing (step 504). Answer: ``Scanned``."""

    paths: tuple[Path, ...]


class OpenAlus(Message, frozen=True):
    """Open ALUs, lock out others, and look at them. ``size_bytes`` makes a missing file. Answer: ``Opened``."""

    paths: tuple[Path, ...]
    size_bytes: Count | None = None
    legacy: bool = False
    force: bool = False


class CloseAlus(Message, frozen=True):
    """Close ALUs that nothing stands on."""

    paths: tuple[Path, ...]


class Follow(Message, frozen=True):
    """Take this storage processor for the MVSP of this epoch, and no other of a lower one (step 510, M5).

    What runs through pass-through sessions of lower epochs is awaited, and these are dropped, before the answer.
    """

    epoch: Count
    grant: Grant


class BeMaster(Message, frozen=True):
    """Be the MVSP, in this epoch or a higher one (step 508)."""

    epoch: Count


class Admit(Message, frozen=True):
    """Reach these ALUs, directly or through the storage processors that have them open (step 512).

    Answer: ``Opened``, with those that can't be reached; ``Taken``, if the GS set could not be taken up without them.
    """

    epoch: Count
    alus: tuple[AluAt, ...]


class TakeUp(Message, frozen=True):
    """All ALUs there are have been admitted: take up the GS set, collect, judge (step 514). Answer: ``Taken``."""

    epoch: Count


class Collect(Message, frozen=True):
    """Give what has changed in the system image since ``cursor``; 0 is all of it (step 518). Answer: ``ImagePart``."""

    epoch: Count
    cursor: Count


class Change(enum.StrEnum):
    """What a commit does with a volume's objects."""

    CREATE = "create"
    REPLACE = "replace"
    DELETE = "delete"


class Commit(Message, frozen=True):
    """Make a volume's objects durable, or a tombstone of them (step 815). Answer: ``Committed``.

    ``objects`` is the tree; of a volume to be deleted the one that is known, for the MVSP may not have seen its ALUs.
    """

    epoch: Count
    change: Change
    volume: Wwn
    objects: tuple[AnyObject, ...] = ()


class FailLegs(Message, frozen=True):
    """Make it durable that legs have failed (D3). Answer: ``Committed``, with the new tree."""

    epoch: Count
    volume: Wwn
    legs: tuple[Wwn, ...]


class Claim(Message, frozen=True):
    """Lay an ALU out afresh that is open and admitted. Answer: ``Committed``."""

    epoch: Count
    path: Path
    force: bool = False


class Dismiss(Message, frozen=True):
    """Have the GS set go on without an ALU. Answer: ``Committed``."""

    epoch: Count
    path: Path


class Reform(Message, frozen=True):
    """Form the GS set anew of what is there: a person gives up what is missing. Answer: ``Taken``."""

    epoch: Count


class MakeT1(Message, frozen=True):
    """Instantiate first-tier objects, without parents (step 522)."""

    volume: Wwn
    generation: Count
    block_bytes: Count
    objects: tuple[PartitionObject, ...]


class ExposeT1(Message, frozen=True):
    """Show the volume's first-tier objects that are here to these storage processors, and to no other (step 526)."""

    volume: Wwn
    generation: Count
    grants: tuple[Grant, ...]


class Discover(Message, frozen=True):
    """Log in, and find these objects among the LUNs by their WWNs (step 528)."""

    volume: Wwn
    generation: Count
    access: Access
    objects: tuple[Wwn, ...]


class Reference(Value, frozen=True):
    """A remote reference node (RRN): a first-tier object, and the storage processor that runs it."""

    object: Wwn
    sp: Name


class MakeT2(Message, frozen=True):
    """Instantiate a volume bottom-up, off line (steps 530 to 534). What no reference names lies here (LRN).

    ``create``: the volume is new, its dirty-region logs are made and not loaded. A lead lets ``followers`` in to its
    lead LUN, a follower finds that of ``lead``.
    """

    volume: Wwn
    generation: Count
    likeness: Text
    role: Role
    objects: tuple[AnyObject, ...]
    references: tuple[Reference, ...] = ()
    followers: tuple[Grant, ...] = ()
    lead: Access | None = None
    create: bool = False


class GoOnLine(Message, frozen=True):
    """Serve a volume to its hosts (step 542)."""

    volume: Wwn
    generation: Count
    show: Show


class SetShow(Message, frozen=True):
    """Serve a volume that is on line to these hosts."""

    volume: Wwn
    show: Show


class GoOffLine(Message, frozen=True):
    """Stop serving a volume, cleanly."""

    volume: Wwn
    generation: Count
    reason: Text


class HoldVolume(Message, frozen=True):
    """Finish what runs, queue what comes, stop what takes long (step 1504). ``most_s`` bounds the wait of a request."""

    volume: Wwn
    generation: Count
    most_s: float


class ResumeVolume(Message, frozen=True):
    """Go on with a volume that is held (step 1512): as it was, or, with ``made``, as this new generation of it."""

    volume: Wwn
    generation: Count
    made: MakeT2 | None = None


class RemoveT2(Message, frozen=True):
    """Delete a volume's second tier; what it serves ends first."""

    volume: Wwn
    generation: Count


class RemoveT1(Message, frozen=True):
    """Delete a volume's first-tier objects that are here: nothing refers to them any more."""

    volume: Wwn
    generation: Count


class Report(Message, frozen=True):
    """Say what runs, from instance ``cursor`` on. Answer: ``RunsPart``."""

    cursor: Count


class SetFault(Message, frozen=True):
    """Fail a part that this storage processor has a hand in, or restore it (R19)."""

    part: Name
    failed: bool


MasterOrder = BeMaster | Admit | TakeUp | Collect | Commit | FailLegs | Claim | Dismiss | Reform
VolumeOrder = (
    MakeT1
    | ExposeT1
    | Discover
    | MakeT2
    | GoOnLine
    | SetShow
    | GoOffLine
    | HoldVolume
    | ResumeVolume
    | RemoveT2
    | RemoveT1
)
Order = MasterOrder | VolumeOrder | Scan | OpenAlus | CloseAlus | Follow | Report | SetFault


class Welcome(Message, frozen=True):
    """The VCM knows this incarnation of a storage processor."""


class TurnedAway(Message, frozen=True):
    """The VCM will have nothing to do with this storage processor: a person must act."""

    reason: Text


class WhoIsThere(Message, frozen=True):
    """The VCM does not know the sender: say ``Hello``."""


class Ordered(Message, frozen=True):
    """An order with its number. All orders below ``settled`` have been answered, and the answers are known."""

    number: Count
    settled: Count
    order: Order


class ToSp(Value, frozen=True):
    """From the VCM, this incarnation of it, to this incarnation of a storage processor (0: whichever it is)."""

    vcm: Count
    incarnation: Count
    body: Ordered | Welcome | TurnedAway | WhoIsThere
