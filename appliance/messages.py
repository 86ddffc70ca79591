"""What the parts of the control plane say to each other: typed, immutable, JSON-able."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

import msgspec

from backstores.objects import AnyObject, Extent, LegState
from backstores.wwn import Wwn

if TYPE_CHECKING:
    from appliance.control.values import SpStatus


class AluState(enum.StrEnum):
    """What an attached logical unit is to this appliance (R2)."""

    OWNED = "owned"
    BLANK = "blank"  # no metadata region: claim it to use it
    FOREIGN = "foreign"  # another appliance's SUSID
    LEGACY = "legacy"  # attached as it is: not one byte of it is ours (R5)
    DAMAGED = "damaged"  # a metadata region that no copy of can be read
    STALE = "stale"  # an older copy of an ALU of this appliance: never used (R4)
    MISSING = "missing"  # known from the settings, but it can't be opened
    FAILED = "failed"  # opened, but it answered with errors


class AluStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An ALU as its storage processor sees it. ``detail`` explains a state other than owned."""

    wwn: Wwn | None
    path: str
    kind: str  # "file" or "block device"
    state: AluState
    size_bytes: int
    free: tuple[Extent, ...] = ()
    sector_bytes: int = 512
    susid: str = ""
    gs_member: bool = False
    detail: str = ""

    @property
    def free_bytes(self) -> int:
        """What is left for partitions, all free extents together."""
        return sum(extent.length_bytes for extent in self.free)


class GsState(enum.StrEnum):
    """Whether the configuration can be changed (R4)."""

    NONE = "none"  # no ALU, no set: what needs no ALU can be changed
    READY = "ready"
    READ_ONLY = "read only"  # fewer than a majority of the members answer


class GsMember(msgspec.Struct, frozen=True):
    """A member of the GS set; ``trouble`` says why it has no vote, and is empty if it has one."""

    alu: Wwn
    path: str
    trouble: str = ""


class GsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The GS set. ``detail`` says why it is read only, and what to do."""

    state: GsState
    epoch: int = 0
    generation: int = 0
    members: tuple[GsMember, ...] = ()
    detail: str = ""


class VolumeState(enum.StrEnum):
    """Whether a volume serves, and how well."""

    ONLINE = "on line"
    DEGRADED = "degraded"  # on line, but a mirror leg is failed or stale
    RESYNC = "resynchronizing"  # on line, copying dirty regions after an unclean stop
    OFFLINE = "off line"


class LegStatus(msgspec.Struct, frozen=True):
    """One mirror leg: which mirror, which child, how it is."""

    mirror: Wwn
    child: Wwn
    state: LegState


class VolumeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as its storage processor sees it. ``objects`` is the whole tree, the volume object first."""

    wwn: Wwn
    name: str
    state: VolumeState
    blocks: int
    block_bytes: int
    layout: str
    created: str
    objects: tuple[AnyObject, ...]
    detail: str = ""  # why it is off line or degraded
    resync_percent: float | None = None


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """A volume seen by a host under a LUN: a row of the volume location structure.

    ``sps`` names the storage processors through which it is seen; none: those that the topology has face the host.
    """

    host: str
    volume: Wwn
    lun: int
    sps: tuple[str, ...] = ()


class HostDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A host: a name, the initiator names it uses (a pattern with ``*`` and ``?``), and its CHAP secrets.

    The secrets are kept out of every listing and export; see ``appliance.mic.store``.
    """

    name: str
    iqn: str
    chap_user: str = ""
    chap_secret: str = ""
    mutual_user: str = ""
    mutual_secret: str = ""

    def __repr__(self) -> str:
        return f"HostDefinition(name={self.name!r}, iqn={self.iqn!r}, chap={'yes' if self.chap_user else 'no'})"


class StorageProcessorPort(Protocol):
    """What the management asks of a storage processor. ``appliance.sp`` is the real one; tests have a twin."""

    susid: str
    target_iqn: str
    portal: str  # "address:port" that hosts log in to; of several portals the first, which tells them of the others
    portals: tuple[str, ...]

    async def attach(self, path: str, size_bytes: int | None = None) -> AluStatus:
        """Open an ALU and look at it; nothing on it changes. A missing file is made when a size is given.

        Raises:
            UsageError: no file and no size, no file or block device, locked by another appliance, too small.
        """

    async def attach_legacy(self, path: str, force: bool = False) -> AluStatus:
        """Open an ALU whose data must not be touched. ``force``: though it is not what was at this path before.

        Called once the other ALUs are attached: what is known of it lies on these.

        Raises:
            UsageError: it can't be used, an appliance manages it, or it is not what was attached at this path.
        """

    async def claim(self, path: str, force: bool = False) -> AluStatus:
        """Write a fresh label on an attached ALU that is not owned yet.

        Raises:
            UsageError: it is owned already, or a legacy ALU; or it holds data or a foreign SUSID, and ``force`` is not
                set.
        """

    async def detach(self, path: str) -> None:
        """Close an ALU that no volume uses.

        Raises:
            UsageError: not attached, or in use (names the volumes).
        """

    async def forget(self, path: str) -> None:
        """Strike an ALU off that is known by its path, and is not attached.

        Raises:
            TiergateError: the appliance is read only.
        """

    async def bring_on_line(self) -> None:
        """Start every volume that can serve, degraded ones included.

        Called once all ALUs in the settings are attached: until then a volume starts only when it is complete,
        so that a mirror never goes on without a leg that is just about to be attached.
        """

    def global_set(self) -> GsStatus:
        """Describe the GS set: whether anything on the ALUs can be changed."""

    async def reform_global_set(self) -> None:
        """Form the GS set anew of the ALUs that are attached.

        Raises:
            UsageError: there are none.
            TiergateError: they can't be written.
        """

    def alus(self) -> list[AluStatus]:
        """List the attached ALUs in the order in which they were attached."""

    def volumes(self) -> list[VolumeStatus]:
        """List the volumes found on the owned ALUs, those off line included."""

    async def create_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Store a new volume's objects on their ALUs, and bring it on line. All or nothing."""

    async def replace_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Store a changed tree (same volume WWN, higher generations) and go on with it; I/O is held meanwhile."""

    async def delete_volume(self, volume: Wwn) -> None:
        """Take a volume off line and its objects off the ALUs."""

    async def set_exposures(self, hosts: tuple[HostDefinition, ...], exposures: tuple[Exposure, ...]) -> None:
        """Make this the whole truth of who may log in and sees what; running sessions learn of changes.

        Raises:
            UsageError: the front end can't express it; nothing has changed.
        """

    def sessions(self, host: str | None = None, sp: str | None = None) -> list[SessionStatus]:
        """List the sessions of hosts; only those of one host, or at one storage processor."""

    def sps(self) -> list[SpStatus]:
        """List the storage processors, in the order of their names."""

    def portals_of(self, volume: Wwn) -> tuple[str, ...]:
        """Say where hosts reach a volume, each as "address:port"."""

    async def fault(self, part: str, failed: bool) -> None:
        """Fail a part of the system, or restore it (R19).

        Raises:
            UsageError: there is no such part, or none can be failed.
        """


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One iSCSI session."""

    host: str
    initiator: str
    address: str
    luns: tuple[int, ...]
