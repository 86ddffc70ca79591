"""What comes into the VCM, and what it wants done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.control.orders import ToSp
from appliance.control.reports import FromSp
from appliance.control.requests import FromMic, ToMic


@dataclass(frozen=True, slots=True)
class SpSaid:
    """A message of a storage processor; the bus vouches for its name."""

    message: FromSp


@dataclass(frozen=True, slots=True)
class MicSaid:
    """A message of the MIC."""

    message: FromMic


@dataclass(frozen=True, slots=True)
class SpDied:
    """The supervisor has seen a storage processor's process end: nothing of it runs any more.

    ``incarnation`` tells it from its successor; 0 means whichever is known.
    """

    sp: str
    incarnation: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time goes on; four times a second or oftener."""

    now_s: float


Input = SpSaid | MicSaid | SpDied | Tick


@dataclass(frozen=True, slots=True)
class Tell:
    """Send this to a storage processor. It may be lost."""

    sp: str
    message: ToSp


@dataclass(frozen=True, slots=True)
class TellMic:
    """Send this to the MIC. It may be lost."""

    message: ToMic


@dataclass(frozen=True, slots=True)
class Log:
    """Note this for people. ``serious``: something is wrong."""

    text: str
    serious: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """End this storage processor's process for certain, and say ``SpDied``: it has been silent for too long.

    It may only sleep, or be cut off from here; what it serves must not be served elsewhere before it is dead.
    ``incarnation`` is 0 for whichever process there is; if there is none, it is dead.
    """

    sp: str
    incarnation: int


Effect = Tell | TellMic | Log | Fence


@dataclass(frozen=True, slots=True)
class Site:
    """What the topology says: the storage processors, those that reach an ALU, and those that face a host.

    An ALU by its path, a host by its name. What is not named is reached, and faced, by all.
    """

    sps: tuple[str, ...] = ()
    reach: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    faces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
