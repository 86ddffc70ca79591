"""The GS set over the ALUs that are there: started, tended, changed (R4, M4, M5).

What is decided lies in ``gsquorum``, how an image gets onto one ALU in ``gscopy``; here it is carried out.

The life of a writer: ``start`` reads what all ALUs hold, fences them with an epoch of its own, and writes
the newest image again under that epoch: what an earlier writer left half done is finished or superseded
by it. From then on the set is *held*. ``tend`` asks the members whether they still agree, and mends the
set; ``change`` writes what was seen of ALUs, or new metadata of legacy ALUs. ``image`` is always the last
that was committed: after a failure it tells the old state, and the next one has a higher generation than
any that was tried.

A change of members takes two images: one that names the old and the new ones and needs both majorities,
and one that names the new ones alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from backstores.errors import TiergateError
from backstores.metadata import gscopy, gsformat, gsquorum
from backstores.metadata.gscopy import POINTERS, Copy
from backstores.metadata.gsformat import GsImage, LegacyRecord, RosterEntry
from backstores.metadata.gsquorum import REFORMED_EPOCHS, Candidate, Choice, Look
from backstores.metadata.sector import following, stamped
from backstores.metadata.store import Clock, Storage, answer, carry_out
from backstores.wwn import Wwn

NEVER: Final = GsImage(0, 0, 0, ())
"""Stands for the image before the first."""


class BelowMajorityError(TiergateError):
    """The GS set can't be changed. ``missing`` says which members don't answer, and why."""

    def __init__(self, text: str, missing: Mapping[Wwn, str]) -> None:
        super().__init__(text)
        self.missing = missing


class Fence(Protocol):
    """What keeps older writers off an ALU; ``AluMetadata`` is one."""

    @property
    def epoch(self) -> int:
        """The highest epoch that the ALU has seen."""

    async def fence(self, epoch: int, own: int | None = None) -> object:
        """Raise it. ``own``: only if nobody has since we raised it to this.

        Raises:
            FencedError: it is higher already.
        """

    def writing(self, epoch: int) -> AbstractAsyncContextManager[None]:
        """Keep other writers off while something is written.

        Raises:
            FencedError: the ALU has seen a higher epoch.
        """


@dataclass(slots=True)
class GsDisk:
    """An ALU that is there. ``disk`` tells what it would fail together with; ``generation`` is that of its objects.

    ``sound`` is false where newer objects were lost, so that their generation says nothing about the ALU's age.
    ``copy`` is what it holds, None where that is not known; ``trouble`` the error that it answered with last;
    ``fenced`` the epoch with which it was fenced here.
    """

    alu: Wwn
    path: str
    disk: str
    storage: Storage
    fence: Fence
    generation: int = 0
    sound: bool = True
    copy: Copy | None = None
    trouble: str = ""
    fenced: int | None = None

    @property
    def look(self) -> Look:
        """What decisions about it go by."""
        copy = self.copy or gscopy.unreadable(self.alu, self.trouble)
        return Look(copy, self.fence.epoch, self.generation if self.sound else None)

    @property
    def why_not(self) -> str:
        """Say why it has no vote; nothing if it has one."""
        return self.trouble or self.look.copy.doubt

    @property
    def entry(self) -> RosterEntry:
        """What the roster shall say of it."""
        hint = gsformat.path_hint(self.path)
        return RosterEntry(self.alu, hint, epoch=self.fence.epoch, generation=self.generation)


class GsStore:
    """The GS set of one appliance. ``disks``: all ALUs that are there, the members among them."""

    def __init__(self, now_ns: Clock = time.time_ns) -> None:
        self.disks: dict[Wwn, GsDisk] = {}
        self.image: GsImage | None = None
        self.epoch = 0
        self.held = False
        self.stale: dict[Wwn, str] = {}
        self.error: BelowMajorityError | None = None  # why nothing may be changed
        self._generation = 0  # the highest that was tried in this epoch
        self._taken = 0  # the epoch by which ALUs were taken over from whoever had them; later ones only renew it
        self._least_epoch = 0
        self._now_ns: Final = now_ns
        self._changing = asyncio.Lock()

    async def start(self, disks: Iterable[GsDisk], least_epoch: int = 0) -> None:
        """Take the set up, or form one where there never was any, in an epoch that is not below ``least_epoch``.

        ALUs found to be older copies of themselves are named in ``stale``, and left alone.

        Raises:
            BelowMajorityError: it can be told what the set is, or was, but it can't be changed.
        """
        async with self._changing:
            self._least_epoch = least_epoch
            await self._start(disks)

    async def reform(self) -> None:
        """Form the set anew of the ALUs that are there: a person has said that those missing are lost.

        Raises:
            BelowMajorityError: they can't be written, either.
        """
        async with self._changing:
            choice = await self._look(list(self.disks.values()))
            await self._form(choice.image or NEVER, choice.epoch + REFORMED_EPOCHS)

    async def admit(self, disk: GsDisk) -> None:
        """Take in an ALU that has come; an older copy of itself is named in ``stale``, and left alone.

        Raises:
            BelowMajorityError: it is taken note of, but the set can't be changed.
        """
        async with self._changing:
            await self._read(disk)
            image, found = self.image or NEVER, disk.look.copy.image or NEVER
            if not self.held or disk.fence.epoch > self.epoch or found.order > image.order:
                await self._start([*self.disks.values(), disk])
                return
            self.stale.pop(disk.alu, None)
            if why := gsquorum.staleness(disk.look, image):
                self.stale[disk.alu] = why
                return
            self.disks[disk.alu] = disk
            await self._change(await self._fence([disk], self.epoch))

    async def release(self, alu: Wwn, seen: RosterEntry) -> None:
        """Let an ALU go, whether or not it is there; ``seen`` is what is to be remembered of it.

        Raises:
            BelowMajorityError: the set can't be changed; the ALU stays in it.
        """
        async with self._changing:
            if self.held and any(other != alu for other in self.disks):
                await self._change([seen], struck={alu})
            elif alu in self.disks:
                self.image, self.held = None, False  # it takes the set with it
            self.disks.pop(alu, None)
            self.stale.pop(alu, None)

    async def change(self, seen: Iterable[RosterEntry] = (), legacy: tuple[LegacyRecord, ...] | None = None) -> None:
        """Commit what was seen of ALUs, and the metadata of legacy ALUs.

        Raises:
            UsageError: there is no room for it; nothing has changed.
            BelowMajorityError: too few members took it; the old state counts.
        """
        async with self._changing:
            self._require_held()
            await self._change(seen, legacy)

    async def renew(self) -> None:
        """Take a new epoch: a copy of an ALU that was made before this is an older one from now on.

        Unlike a start it takes no ALU over from anybody: where another writer has come, that is refused as ever.

        Raises:
            BelowMajorityError: too few members took it; ``tend`` goes on with it when they can.
        """
        async with self._changing:
            image = self._require_held()
            self.epoch += 1  # some have it now, and refuse the older one
            fenced = {entry.alu: entry for entry in await self._fence(self.disks.values(), self.epoch)}
            self._require_votes(image, fenced.keys())
            await self._change(fenced.values())

    async def tend(self) -> None:
        """Ask the members whether they still agree, and mend the set: what a change of the configuration begins with.

        A set that could not be taken up is tried again.

        Raises:
            BelowMajorityError: fewer than a majority does.
        """
        async with self._changing:
            if self.image is None and self.error is None:
                return  # there is no ALU
            if not self.held:
                await self._start(list(self.disks.values()))
                return
            image = self._require_held()
            members = [self.disks[alu] for alu in gsquorum.holders(image) if alu in self.disks]
            await asyncio.gather(*(self._probe(disk, image) for disk in members))
            self._require_votes(image, {disk.alu for disk in members if not disk.why_not})
            current = all(disk.look.copy.image == image for disk in members if not disk.trouble)
            late = await self._fence_late()
            wanted = gsquorum.next_members(image.members, self._candidates())
            if late or image.before or not current or set(wanted) != set(image.members):
                await self._change(late)
            self.error = None

    # How that is done

    async def _start(self, disks: Iterable[GsDisk]) -> None:
        choice = await self._look(disks)
        self.image, self.epoch, self.held, self.error = choice.image, choice.epoch, False, None
        if not self.disks and choice.image is None:
            return
        if not choice.usable:
            raise self._below(choice.contradiction, choice.missing)
        if choice.image is None:
            await self._form(NEVER, max(choice.epoch + 1, self._least_epoch))
        else:
            await self._claim(choice.image, max(choice.epoch + 1, self._least_epoch))

    async def _look(self, disks: Iterable[GsDisk]) -> Choice:
        found = {disk.alu: disk for disk in disks}
        await asyncio.gather(*(self._read(disk) for disk in found.values()))
        choice = gsquorum.choose([disk.look for disk in found.values()])
        self.stale = {alu: why for alu, why in self.stale.items() if alu not in found} | dict(choice.stale)
        self.disks = {alu: disk for alu, disk in found.items() if alu not in choice.stale}
        for disk in self.disks.values():
            disk.fenced = None  # whoever may have had it: it is taken over
        return choice

    async def _form(self, image: GsImage, epoch: int) -> None:
        """Write the first image, and only then fence: an ALU that is fenced without any image looks like a lost set."""
        members = gsquorum.next_members((), self._candidates())
        self._generation = image.generation
        await self._commit(image, epoch, members=members, before=())
        self.epoch, self._taken, self.held = epoch, epoch, True
        await self._change(await self._fence(self.disks.values(), epoch))

    async def _claim(self, image: GsImage, epoch: int) -> None:
        """Fence first: the epoch is ours only with a majority that refuses all others."""
        self._taken = epoch
        fenced = {entry.alu: entry for entry in await self._fence(self.disks.values(), epoch)}
        self._require_votes(image, fenced.keys())
        self.epoch, self.held, self._generation = epoch, True, image.generation
        await self._change(fenced.values())

    async def _fence(self, disks: Iterable[GsDisk], epoch: int) -> list[RosterEntry]:
        """Fence ALUs, and say what the roster shall know of those that took it."""

        async def fence(disk: GsDisk) -> None:
            try:
                await disk.fence.fence(epoch, self._taken if disk.fenced is None else disk.fenced)
                disk.fenced = epoch
            except TiergateError as error:
                disk.trouble = str(error)

        asked = list(disks)
        await asyncio.gather(*(fence(disk) for disk in asked))
        return [disk.entry for disk in asked if not disk.trouble]

    async def _fence_late(self) -> list[RosterEntry]:
        """Fence what answered with an error when its turn was: older writers may still change it."""
        late = [disk for disk in self.disks.values() if disk.fenced != self.epoch]
        await asyncio.gather(*(self._read(disk) for disk in late if disk.trouble))
        return await self._fence([disk for disk in late if not disk.trouble], self.epoch)

    async def _change(
        self,
        seen: Iterable[RosterEntry] = (),
        legacy: tuple[LegacyRecord, ...] | None = None,
        struck: Collection[Wwn] = (),
    ) -> None:
        """Write the image that follows; two of them, where the members change."""
        image = self.image
        assert image is not None
        image = replace(
            image,
            roster=gsquorum.with_entries(image.roster, seen),
            legacy=image.legacy if legacy is None else legacy,
        )
        if image.before:
            image = await self._commit(image, self.epoch, before=image.before)
        staying = [alu for alu in image.members if alu not in struck]
        members = gsquorum.next_members(staying, [one for one in self._candidates() if one.alu not in struck])
        if set(members) != set(image.members):
            image = await self._commit(image, self.epoch, members=members, before=image.members)
        await self._commit(image, self.epoch, before=())

    async def _commit(
        self, image: GsImage, epoch: int, *, members: tuple[Wwn, ...] | None = None, before: tuple[Wwn, ...]
    ) -> GsImage:
        """Write an image in the next generation on all that it belongs on; it counts once a majority has it."""
        image = replace(
            image,
            epoch=epoch,
            generation=following(max(image.generation, self._generation)),
            time_ns=stamped(image.time_ns, self._now_ns()),
            members=image.members if members is None else members,
            before=before,
        )
        gsformat.check_room(image)
        there = [self.disks[alu] for alu in gsquorum.holders(image) if alu in self.disks]
        self._require_votes(image, {disk.alu for disk in there if not disk.trouble})
        self._generation = image.generation
        await asyncio.gather(*(self._write(disk, image) for disk in there))
        self._require_votes(image, {disk.alu for disk in there if not disk.trouble})
        self.image, self.error = image, None
        return image

    async def _write(self, disk: GsDisk, image: GsImage) -> None:
        try:
            async with disk.fence.writing(image.epoch):
                if disk.copy is None:
                    disk.copy = await self._fetch(disk)
                steps, after = gscopy.store(disk.copy, image)
                disk.copy = None  # until all has ended well
                await carry_out(disk.storage, steps)
                disk.copy, disk.trouble = after, ""
        except TiergateError as error:
            disk.trouble = str(error)

    async def _probe(self, disk: GsDisk, image: GsImage) -> None:
        """Look whether an ALU still holds what it is thought to hold."""
        try:
            raw = await disk.storage.read(POINTERS.start_bytes, POINTERS.length_bytes)
        except TiergateError as error:
            disk.trouble = str(error)
            return
        held = disk.copy
        if disk.trouble or held is None or held.image != image or gscopy.parse_pointers(raw, disk.alu) != held.pointers:
            await self._read(disk)

    async def _read(self, disk: GsDisk) -> None:
        disk.copy = None
        try:
            disk.copy, disk.trouble = await self._fetch(disk), ""
        except TiergateError as error:
            disk.trouble = str(error)

    async def _fetch(self, disk: GsDisk) -> Copy:
        return await answer(disk.storage, gscopy.look(disk.alu))

    def _candidates(self) -> list[Candidate]:
        return [Candidate(disk.alu, disk.disk) for disk in self.disks.values() if not disk.trouble]

    def _require_held(self) -> GsImage:
        if self.image is None or not self.held:
            raise self.error or self._below("there is no alu that could hold it", {})
        return self.image

    def _require_votes(self, image: GsImage, there: Collection[Wwn]) -> None:
        if not gsquorum.committed(image, there):
            absent = [alu for alu in gsquorum.holders(image) if alu not in there]
            raise self._below("no alu can be written", {alu: self._why(alu) for alu in absent})

    def _why(self, alu: Wwn) -> str:
        disk = self.disks.get(alu)
        return self.stale.get(alu, "not attached") if disk is None else disk.why_not

    def _below(self, text: str, missing: Mapping[Wwn, str]) -> BelowMajorityError:
        """Note why nothing may be changed."""
        if missing:
            text = f"fewer than a majority of its members answer; missing are {self._named(missing)}"
        self.error = BelowMajorityError(f"the GS set can't be changed: {text}", missing)
        return self.error

    def _named(self, missing: Mapping[Wwn, str]) -> str:
        paths = {entry.alu: entry.path for entry in (self.image.roster if self.image else ())}
        return ", ".join(f"alu {paths.get(alu, alu)!r} ({why})" for alu, why in missing.items())
