"""What the management answers: plain structs that become JSON as they are."""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec

ProgressReport = Callable[[str, int, int], None]
"""Tells whoever waits how far a command has come: what it does now, steps done, steps in all."""


def untold(text: str, done: int, total: int) -> None:
    """Be the progress report of a command that nobody watches."""


class View(enum.StrEnum):
    """How a result is best shown to a person."""

    OUTCOME = "outcome"
    TABLE = "table"
    RECORD = "record"
    TREE = "tree"
    DOCUMENT = "document"


class Outcome(msgspec.Struct, frozen=True):
    """How a change ended. ``changed`` is false where all was already as asked: that is no error."""

    message: str
    changed: bool = True
    notes: tuple[str, ...] = ()


class TreeNode(msgspec.Struct, frozen=True):
    """A thing with what lies below it. ``healthy`` is None where that says nothing."""

    name: str
    summary: str = ""
    healthy: bool | None = None
    children: tuple[TreeNode, ...] = ()


class AluView(msgspec.Struct, frozen=True, kw_only=True):
    """An ALU as people see it."""

    name: str
    state: str
    size: str
    free: str
    kind: str
    path: str
    pools: tuple[str, ...]
    volumes: tuple[str, ...]
    detail: str
    wwn: str
    gs: str
    size_bytes: int
    free_bytes: int


class GsMemberView(msgspec.Struct, frozen=True):
    """A member of the GS set; ``trouble`` says why it has no vote."""

    alu: str
    trouble: str = ""


class GsView(msgspec.Struct, frozen=True, kw_only=True):
    """The GS set; ``detail`` says why the configuration can't be changed, and what to do."""

    state: str
    epoch: int
    generation: int
    members: tuple[GsMemberView, ...]
    detail: str


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool with what its members sum up to."""

    name: str
    alus: tuple[str, ...]
    size: str
    free: str
    size_bytes: int
    free_bytes: int


class VolumeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A volume in a list."""

    name: str
    state: str
    size: str
    layout: str
    hosts: tuple[str, ...]
    wwn: str
    size_bytes: int


class LegView(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of a mirror and the ALUs it lies on."""

    mirror: str
    leg: str
    state: str
    alus: tuple[str, ...]


class ExposureView(msgspec.Struct, frozen=True, kw_only=True):
    """Who sees a volume, and as what. The URLs are what libiscsi and QEMU take; they never hold a secret."""

    host: str
    lun: int
    iscsi_urls: tuple[str, ...]


class VolumeView(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say about a volume."""

    name: str
    state: str
    detail: str
    size: str
    size_bytes: int
    blocks: int
    block_bytes: int
    layout: str
    wwn: str
    created: str
    resync_percent: float | None
    alus: tuple[str, ...]
    legs: tuple[LegView, ...]
    exposures: tuple[ExposureView, ...]
    iscsi_urls: tuple[str, ...]


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """A host, without its secrets."""

    name: str
    iqn: str
    chap: str
    volumes: tuple[str, ...]
    sessions: int


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """An iSCSI session."""

    host: str
    initiator: str
    address: str
    luns: tuple[int, ...]


class SpView(msgspec.Struct, frozen=True, kw_only=True):
    """A storage processor. ``volumes`` are those it serves, ``partitions`` those it has first-tier objects of."""

    name: str
    state: str
    blade: str
    master: bool  # it is the MVSP
    epoch: int
    portal: str  # the first
    portals: tuple[str, ...]
    target: str
    susid: str
    gs: str
    alus: int
    volumes: int
    partitions: int
    sessions: int
    load: float
    step: str
    detail: str


class FabricView(msgspec.Struct, frozen=True, kw_only=True):
    """A fabric, the storage processors on it, and what of it was failed on purpose."""

    name: str
    kind: str
    sps: tuple[str, ...]
    failed: tuple[str, ...]


class FaultView(msgspec.Struct, frozen=True, kw_only=True):
    """A part that was failed on purpose."""

    part: str
    since: str
