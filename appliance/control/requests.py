"""Between MIC and VCM: what people want, and the picture that the VCM keeps for them."""

from __future__ import annotations

from appliance.control.values import Count, Message, Name, Path, Show, SpStatus, Text, Value
from appliance.messages import AluStatus, GsStatus, SessionStatus, VolumeStatus
from backstores.objects import AnyObject
from backstores.wwn import Wwn


class Attach(Message, frozen=True):
    """Open an ALU at the storage processor that reaches it. Answer: its status."""

    path: Path
    size_bytes: Count | None = None
    legacy: bool = False
    force: bool = False


class ClaimAlu(Message, frozen=True):
    """Lay an attached ALU out afresh. Answer: its status."""

    path: Path
    force: bool = False


class Detach(Message, frozen=True):
    """Close an ALU that no volume uses."""

    path: Path


class Forget(Message, frozen=True):
    """Strike an ALU off that is missing."""

    path: Path


class Start(Message, frozen=True):
    """All ALUs of the settings have been asked for: take up the GS set, and bring on line what can serve."""


class ReformSet(Message, frozen=True):
    """Form the GS set anew."""


class CreateVolume(Message, frozen=True):
    """Make a volume and bring it on line (steps 810 to 850). Answer: its status."""

    objects: tuple[AnyObject, ...]


class ReplaceVolume(Message, frozen=True):
    """Go on with a changed tree. Answer: its status."""

    objects: tuple[AnyObject, ...]


class DeleteVolume(Message, frozen=True):
    """Take a volume off line and off the ALUs."""

    volume: Wwn


class SetLocation(Message, frozen=True):
    """The rows of the volume location structure for one volume, all of them (step 817). None yet: it is hidden."""

    volume: Wwn
    show: Show


class Fault(Message, frozen=True):
    """Fail a part of the system, or restore it (R19)."""

    part: Name
    failed: bool


Request = (
    Attach
    | ClaimAlu
    | Detach
    | Forget
    | Start
    | ReformSet
    | CreateVolume
    | ReplaceVolume
    | DeleteVolume
    | SetLocation
    | Fault
)


class Ask(Message, frozen=True):
    """Something that a person wants. It may come again, with the same number, to a VCM that has started anew."""

    number: Count
    request: Request


class Look(Message, frozen=True):
    """Give the picture from the beginning."""


class FromMic(Value, frozen=True, tag=True):
    """From this incarnation of the MIC."""

    incarnation: Count
    body: Ask | Look


class Answer(Message, frozen=True):
    """What came of it: a status, or an error if ``error`` is not empty."""

    number: Count
    volume: VolumeStatus | None = None
    alu: AluStatus | None = None
    error: Text = ""
    usage: bool = False


class Progress(Message, frozen=True):
    """How far it has come, for people."""

    number: Count
    text: Text


class PictureBegins(Message, frozen=True):
    """All of the picture follows; what was known before is void."""


class PictureEnds(Message, frozen=True):
    """That was all."""


class AluChanged(Message, frozen=True):
    """An ALU is new, or has changed. ``sp`` has it open."""

    alu: AluStatus
    sp: Name


class AluGone(Message, frozen=True):
    """An ALU is no longer attached."""

    path: Path


class VolumeChanged(Message, frozen=True):
    """A volume is new, or has changed. ``sps`` serve it, ``lead`` orders overlapping writes."""

    volume: VolumeStatus
    sps: tuple[Name, ...] = ()
    lead: Text = ""


class VolumeGone(Message, frozen=True):
    """A volume is deleted."""

    volume: Wwn


class SpChanged(Message, frozen=True):
    """A storage processor is new, or has changed."""

    sp: SpStatus


class SessionsChanged(Message, frozen=True):
    """The sessions of hosts at a storage processor."""

    sp: Name
    sessions: tuple[SessionStatus, ...]


class GsChanged(Message, frozen=True):
    """The GS set."""

    gs: GsStatus


Delta = AluChanged | AluGone | VolumeChanged | VolumeGone | SpChanged | SessionsChanged | GsChanged


class ToMic(Value, frozen=True):
    """From the VCM to an incarnation of the MIC. ``serial`` counts without a gap: after one, ``Look`` again."""

    vcm: Count
    incarnation: Count
    serial: Count
    body: Answer | Progress | PictureBegins | PictureEnds | Delta
