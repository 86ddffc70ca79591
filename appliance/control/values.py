"""What messages are made of."""

from __future__ import annotations

import enum
import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from appliance.messages import Exposure, HostDefinition
from backstores.objects import AnyObject, PartitionObject
from backstores.wwn import Wwn

PART_VOLUMES: Final = 64
"""Volumes in one part of the system image, and instances in one part of what a storage processor runs."""

PART_ALUS: Final = 256
"""ALUs in one part of a list."""

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=4096)]
Address = Annotated[str, Meta(max_length=128)]
Path = Annotated[str, Meta(min_length=1, max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Portals = Annotated[tuple[Address, ...], Meta(max_length=16)]
"""Addresses with ports, the active path first."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """What all messages have: their type's name stands in front."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What messages are made of."""


class Grant(Value, frozen=True):
    """A storage processor that may reach what is shown on an internal target, and what it proves itself with (CHAP)."""

    sp: Name
    secret: Text

    def __repr__(self) -> str:
        return f"Grant({self.sp})"


class Access(Value, frozen=True):
    """The way to another storage processor's internal target."""

    sp: Name
    portals: Portals
    secret: Text

    def __repr__(self) -> str:
        return f"Access({self.sp} at {', '.join(self.portals)})"


class AluAt(Value, frozen=True):
    """An ALU and where the MVSP reaches it: ``access`` is None for one of its own."""

    path: Path
    alu: Wwn | None
    access: Access | None = None
    legacy: bool = False


class Found(Value, frozen=True):
    """What a storage processor's ports lead to (step 504). ``trouble`` says why it can't be used."""

    path: Path
    size_bytes: Count
    trouble: Text = ""


class VolumeImage(Value, frozen=True):
    """A volume of the system image (step 516). ``reason`` says why it can't serve, and is empty if it can."""

    objects: tuple[AnyObject, ...]
    reason: Text = ""
    whole: bool = True


class Role(enum.StrEnum):
    """Which part a second-tier instance has in the order of overlapping writes (D4)."""

    ALONE = "alone"  # nobody else serves the volume
    LEAD = "lead"
    FOLLOWER = "follower"
    FREE = "free"  # several serve it, and it has no mirror: there is nothing to keep equal


class InstanceState(enum.StrEnum):
    """What an instance of a volume does at a storage processor."""

    ABSENT = "absent"  # there is none
    OFF_LINE = "off line"
    ON_LINE = "on line"
    HELD = "held"


class T1Runs(Value, frozen=True):
    """First-tier objects of a volume that a storage processor runs, and to whom it shows them."""

    volume: Wwn
    generation: Count
    objects: tuple[PartitionObject, ...]
    shown_to: tuple[Name, ...] = ()


class T2Runs(Value, frozen=True):
    """A volume's second tier at a storage processor. ``likeness`` is that of the order which made it.

    ``shown`` is the likeness of the ``Show`` that is in force, empty for none.
    """

    volume: Wwn
    generation: Count
    likeness: Text
    role: Role
    state: InstanceState
    shown: Text = ""


class Show(Value, frozen=True):
    """Which hosts see a volume through a storage processor, all of them."""

    hosts: tuple[HostDefinition, ...] = ()
    exposures: tuple[Exposure, ...] = ()


class SpState(enum.StrEnum):
    """What the VCM knows of a storage processor."""

    EXPECTED = "expected"  # named by the topology, and not heard of yet
    STARTING = "starting"
    AT_WORK = "at work"
    SILENT = "silent"  # not heard of for longer than a beat may take: perhaps asleep
    GONE = "gone"


class SpStatus(Value, frozen=True):
    """A storage processor, for people. ``step`` is the last step of its initialization (R10)."""

    name: Name
    blade: Text
    state: SpState
    step: Text = ""
    master: bool = False
    epoch: Count = 0
    load: float = 0.0
    alus: Count = 0
    t1_volumes: Count = 0
    t2_volumes: Count = 0
    host_portals: Portals = ()
    detail: Text = ""


def likeness(*values: object) -> str:
    """Give a short name for values: equal ones have the same. Secrets can't be read out of it."""
    return hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=16).hexdigest()
