"""Export and apply: the configuration as a document, and the way from here to there (C4).

``apply`` first makes a plan: every difference between the document and what is there becomes a step.
What can't be done shows then, before the first step is carried out. What is there but not in the
document stays, unless ``prune`` says otherwise. A plan without steps changes nothing, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from appliance.messages import HostDefinition, VolumeStatus
from appliance.mic.alus import Alus
from appliance.mic.document import (
    FORMAT,
    AluEntry,
    Document,
    ExposureEntry,
    HostEntry,
    PoolEntry,
    VolumeEntry,
    read_document,
)
from appliance.mic.planning import Planner
from appliance.mic.state import ManagementState
from appliance.mic.values import exact_size
from appliance.mic.views import Outcome, ProgressReport
from appliance.mic.volumes import Volumes, size_of
from appliance.mic.volumetree import layout_parameters
from backstores.errors import TiergateError, UsageError


class Configuration:
    """The commands ``export`` and ``apply``."""

    def __init__(self, state: ManagementState, alus: Alus, volumes: Volumes) -> None:
        self._state = state
        self._alus = alus
        self._volumes = volumes

    async def export(self, secrets: bool) -> Document:
        """Give the whole configuration; with the CHAP secrets only if asked (S2)."""
        settings = self._state.settings
        names = {volume.wwn: volume.name for volume in self._state.sp.volumes()}
        return Document(
            tiergate=FORMAT,
            alus=tuple(self._alu_entry(alu.name) for alu in settings.alus),
            pools=tuple(PoolEntry(name=pool.name, alus=pool.alus) for pool in settings.pools),
            volumes=tuple(
                self._volume_entry(volume) for volume in sorted(self._state.sp.volumes(), key=lambda v: v.name)
            ),
            hosts=tuple(_host_entry(host, secrets) for host in settings.hosts),
            exposures=tuple(
                ExposureEntry(host=e.host, volume=names[e.volume], lun=e.lun)
                for e in settings.exposures
                if e.volume in names  # of a volume that is missing nothing can be said that apply could use
            ),
        )

    async def apply(self, file: str, prune: bool, dry_run: bool, progress: ProgressReport) -> Outcome:
        """Make the configuration what a document says."""
        wanted = await asyncio.to_thread(read_document, file)  # a long one takes a second, which hosts must not wait
        present = await self.export(secrets=True)
        planner = Planner(self._state, self._alus, self._volumes, wanted, present, self._volume_entry, prune)
        plan = await planner.plan()
        texts = tuple(text for step in plan for text in step.texts)
        if not plan:
            return Outcome("nothing to change", changed=False)
        if dry_run:
            return Outcome(f"{_changes(texts)} would be made", changed=False, notes=texts)
        done: list[str] = []
        notes: list[str] = []
        for step in plan:
            progress("; ".join(step.texts), len(done), len(texts))
            try:
                outcome = await step.run()
            except TiergateError as error:
                kind = UsageError if isinstance(error, UsageError) else TiergateError
                raise kind(f"{step.texts[0]}: {error} ({len(done)} of {_changes(texts)} made)") from error
            done.extend(step.texts)
            notes.extend(outcome.notes)
        return Outcome(f"{_changes(texts)} made", notes=(*texts, *notes))

    def _alu_entry(self, name: str) -> AluEntry:
        setting = self._state.alu(name)
        status = self._state.alu_status(setting)
        if setting.legacy:
            return AluEntry(name=name, path=setting.path, legacy=True)
        is_file = status is not None and status.kind == "file"
        size_bytes = status.size_bytes if status and is_file else setting.size_bytes
        return AluEntry(name=name, path=setting.path, size=exact_size(size_bytes) if size_bytes else None)

    def _volume_entry(self, volume: VolumeStatus) -> VolumeEntry:
        layout = layout_parameters(volume.objects)
        return VolumeEntry(
            name=volume.name,
            size=exact_size(size_of(volume)),
            layout=volume.layout,
            alus=self._state.alus_of(volume.objects),
            chunk=exact_size(layout.chunk_bytes) if layout.chunk_bytes else None,
            legs=layout.legs or None,
            width=layout.width or None,
            block=volume.block_bytes,
        )


def _host_entry(host: HostDefinition, secrets: bool) -> HostEntry:
    return HostEntry(
        name=host.name,
        iqn=host.iqn,
        chap_user=host.chap_user or None,
        chap_secret=(host.chap_secret or None) if secrets else None,
        mutual_user=host.mutual_user or None,
        mutual_secret=(host.mutual_secret or None) if secrets else None,
    )


def _changes(texts: Iterable[str]) -> str:
    count = len(tuple(texts))
    return "1 change" if count == 1 else f"{count} changes"
