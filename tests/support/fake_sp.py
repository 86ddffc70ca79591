"""A storage processor in memory: what the management talks to in tests."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from appliance.control.values import SpState, SpStatus
from appliance.messages import (
    AluState,
    AluStatus,
    Exposure,
    GsState,
    GsStatus,
    HostDefinition,
    SessionStatus,
    VolumeState,
    VolumeStatus,
)
from appliance.mic.settings import Settings
from backstores.errors import TiergateError, UsageError
from backstores.objects import MIB, AnyObject, Extent, PartitionObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn

DATA_START = 8 * MIB
TAIL = MIB


class FakeSp:
    """ALUs are entries of a dictionary, volumes their objects. ``disks`` says what lies at a path already.

    ``fail`` names a method that raises at its next call.
    """

    def __init__(self, disks: dict[str, AluStatus] | None = None) -> None:
        self.susid = "fake-susid"
        self.target_iqn = "iqn.2026-01.org.tiergate:fake"
        self.portal = "127.0.0.1:3260"
        self.portals: tuple[str, ...] = (self.portal, "192.0.2.1:3260")
        self.disks = disks if disks is not None else {}
        self.attached: dict[str, AluStatus] = {}
        self.trees: dict[Wwn, tuple[AnyObject, ...]] = {}
        self.hosts: tuple[HostDefinition, ...] = ()
        self.exposures: tuple[Exposure, ...] = ()
        self.logged_in: list[SessionStatus] = []
        self.gs = GsStatus(state=GsState.READY)
        self.failed: set[str] = set()
        self.fail = ""
        self.calls: list[str] = []

    def _called(self, method: str) -> None:
        self.calls.append(method)
        self._fail(method)

    def _fail(self, method: str) -> None:
        if self.fail == method:
            self.fail = ""
            raise TiergateError(f"{method} failed on purpose")

    async def attach(self, path: str, size_bytes: int | None = None) -> AluStatus:
        self._called("attach")
        if path in self.attached:
            raise UsageError(f"{path} is attached already")
        if path not in self.disks:
            if size_bytes is None:
                raise UsageError(f"{path} does not exist; size= makes it")
            self.disks[path] = blank(path, size_bytes)
        self.attached[path] = self.disks[path]
        return self.attached[path]

    async def attach_legacy(self, path: str, force: bool = False) -> AluStatus:
        self._called("attach_legacy force" if force else "attach_legacy")
        if path not in self.disks:
            raise UsageError(f"{path} does not exist")
        legacy = msgspec.structs.replace(self.disks[path], state=AluState.LEGACY, detail="")
        self.attached[path] = msgspec.structs.replace(legacy, wwn=legacy.wwn or new_device_wwn())
        return self.attached[path]

    async def claim(self, path: str, force: bool = False) -> AluStatus:
        self._called("claim")
        status = self.attached[path]
        if status.detail and not force:
            raise UsageError(f"{path} holds {status.detail}")
        owned = msgspec.structs.replace(
            status,
            state=AluState.OWNED,
            wwn=new_device_wwn(),
            detail="",
            free=(Extent(DATA_START, status.size_bytes // MIB * MIB - DATA_START - TAIL),),
        )
        self.attached[path] = self.disks[path] = owned
        return owned

    async def detach(self, path: str) -> None:
        self._called("detach")
        self.disks[path] = self.attached.pop(path)

    async def forget(self, path: str) -> None:
        self._called("forget")

    def global_set(self) -> GsStatus:
        return self.gs

    async def reform_global_set(self) -> None:
        self._called("reform_global_set")
        self.gs = GsStatus(state=GsState.READY)

    async def bring_on_line(self) -> None:
        self._called("bring_on_line")

    def alus(self) -> list[AluStatus]:
        return [self._with_free(status) for status in self.attached.values()]

    def volumes(self) -> list[VolumeStatus]:
        return [status_of(objects) for objects in self.trees.values()]

    async def create_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        self._called("create_volume")
        self.trees[objects[0].wwn] = objects
        return status_of(objects)

    async def replace_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        self._called("replace_volume")
        assert objects[0].generation > self.trees[objects[0].wwn][0].generation
        self.trees[objects[0].wwn] = objects
        return status_of(objects)

    async def delete_volume(self, volume: Wwn) -> None:
        self._called("delete_volume")
        del self.trees[volume]

    async def set_exposures(self, hosts: tuple[HostDefinition, ...], exposures: tuple[Exposure, ...]) -> None:
        self._fail("set_exposures")  # not counted among the calls: every saved change makes one
        self.hosts, self.exposures = hosts, exposures

    def sessions(self, host: str | None = None, sp: str | None = None) -> list[SessionStatus]:
        return [session for session in self.logged_in if host in (None, session.host)]

    def sps(self) -> list[SpStatus]:
        alone = SpStatus(
            "sp1",
            blade="",
            state=SpState.AT_WORK,
            master=True,
            alus=len(self.alus()),
            t2_volumes=len(self.volumes()),
            host_portals=self.portals,
        )
        return [alone]

    def portals_of(self, volume: Wwn) -> tuple[str, ...]:
        return (self.portal,)

    async def fault(self, part: str, failed: bool) -> None:
        self._fail("fault")
        (self.failed.add if failed else self.failed.discard)(part)

    def _with_free(self, status: AluStatus) -> AluStatus:
        used = [
            extent
            for objects in self.trees.values()
            for item in objects
            if isinstance(item, PartitionObject) and item.alu == status.wwn
            for extent in (item.extent, item.bitmap)
            if extent is not None
        ]
        return msgspec.structs.replace(status, free=tuple(_gaps(status.free, used)))


def _gaps(free: Iterable[Extent], used: list[Extent]) -> Iterable[Extent]:
    for whole in free:
        at = whole.start_bytes
        for extent in sorted(used):
            if extent.start_bytes > at:
                yield Extent(at, extent.start_bytes - at)
            at = max(at, extent.end_bytes)
        if at < whole.end_bytes:
            yield Extent(at, whole.end_bytes - at)


def blank(path: str, size_bytes: int, detail: str = "") -> AluStatus:
    """Make an ALU that nobody has claimed; ``detail``: what lies on it."""
    return AluStatus(wwn=None, path=path, kind="file", state=AluState.BLANK, size_bytes=size_bytes, detail=detail)


def status_of(objects: tuple[AnyObject, ...]) -> VolumeStatus:
    """Describe a volume that is on line."""
    volume = objects[0]
    assert isinstance(volume, VolumeObject)
    return VolumeStatus(
        wwn=volume.wwn,
        name=volume.name,
        state=VolumeState.ONLINE,
        blocks=volume.blocks,
        block_bytes=volume.block_bytes,
        layout=volume.layout,
        created=volume.created,
        objects=objects,
    )


class MemoryStore:
    """A settings store in memory. ``fail`` makes the next save fail."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings if settings is not None else Settings()
        self.dropped: list[str] = []
        self.fail = False

    def load(self) -> Settings:
        return self.settings

    def save(self, settings: Settings) -> None:
        if self.fail:
            self.fail = False
            raise TiergateError("the settings can't be saved, on purpose")
        self.settings = settings

    def drop_unit(self, wwn: str) -> None:
        self.dropped.append(wwn)
