"""The management's port to a system of many storage processors: what it asks, it asks of the VCM (R14).

Implements ``appliance.messages.StorageProcessorPort``. Questions about what there is are answered out of the picture
that the VCM keeps for us, at once. Whatever is to be changed is asked for under a number, and asked again until an
answer comes: the bus may lose a message, and a VCM may die. One that has started anew knows neither which ALUs are
ours nor who may see what, and is told before anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from appliance.bus.ports import Gone, Heard, Joined, Link, Refused
from appliance.control.requests import (
    Answer,
    Ask,
    Attach,
    ClaimAlu,
    CreateVolume,
    DeleteVolume,
    Detach,
    Fault,
    Forget,
    FromMic,
    Look,
    PictureBegins,
    PictureEnds,
    Progress,
    ReformSet,
    ReplaceVolume,
    Request,
    SetLocation,
    Start,
    ToMic,
)
from appliance.control.values import Show, SpState, SpStatus
from appliance.messages import AluStatus, Exposure, GsStatus, HostDefinition, SessionStatus, VolumeStatus
from appliance.mic.picture import Picture
from appliance.processor.cables import Cables
from backstores.errors import TiergateError, UsageError
from backstores.objects import AnyObject
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

ASK_AGAIN_S: Final = 2.0
"""How long an answer may take until the question is asked again: it, or the answer, may have been lost."""

AT_ONCE: Final = 64
"""Questions under way; more would only wait at the VCM."""

STOPPED: Final = Answer(number=0, error="the system stops: look at it again when it runs")

MicLink = Link[FromMic, ToMic]
StopProcess = Callable[[str, bool], None]


class FailedError(TiergateError):
    """What was asked for was tried, and failed."""


@dataclass(slots=True)
class Question:
    """Something that was asked and has no answer yet."""

    ask: Ask
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SystemPort:
    """Made, used and closed within one event loop; ``run`` goes on for as long as the link does."""

    def __init__(
        self,
        link: MicLink,
        incarnation: int,
        susid: str,
        target_iqn: str,
        portals: Iterable[str],
        stop: StopProcess = lambda sp, stopped: None,
        cables: Cables | None = None,
    ) -> None:
        """``stop`` has a storage processor's process killed and left so, or started again; ``cables`` are at hand here.

        Without cables storage processors fail their links themselves.
        """
        self._cables = cables
        self.susid = susid
        self.target_iqn = target_iqn
        self.portals = tuple(portals)
        self.portal = self.portals[0]
        self._link = link
        self._stop = stop
        self._incarnation = incarnation
        self._numbers = itertools.count(1)
        self._questions: dict[int, Question] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._picture = Picture()
        self._next_picture: Picture | None = None
        self._changed = asyncio.Event()
        self._torn = asyncio.Event()
        self._whole = asyncio.Event()
        self._vcm = 0
        self._serial = 0
        # what a VCM that has started anew must be told
        self._attached: dict[str, Attach] = {}
        self._locations: dict[Wwn, Show] = {}
        self._started = False
        self._stopped = False

    # The link

    async def run(self) -> None:
        """Take in what comes from the VCM, until the link ends."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._keep_looking())
            telling: asyncio.Task[None] | None = None
            async for event in self._link:
                match event:
                    case Joined():
                        self._tear()
                    case Heard(_, message) if message.incarnation == self._incarnation:
                        anew = self._vcm not in (0, message.vcm)
                        self._hear(message)
                        if anew:
                            if telling is not None:
                                telling.cancel()
                            telling = group.create_task(self._tell_all())
                    case Refused(reason):
                        log.error("the vcm refuses the management: %s", reason)
                    case Gone():
                        log.warning("the vcm is silent: data goes on, changes wait")
            for task in filter(None, (looking, telling)):
                task.cancel()

    async def _keep_looking(self) -> None:
        """Ask for the whole picture whenever a part of it is missing, and again until it has come."""
        while True:
            await self._torn.wait()
            self._send(Look())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await self._whole.wait()

    def _tear(self) -> None:
        """A part of the picture is missing."""
        self._torn.set()
        self._whole.clear()
        self._next_picture = None

    def _hear(self, message: ToMic) -> None:
        if (message.vcm, message.serial) != (self._vcm, self._serial + 1):
            self._tear()
        self._vcm, self._serial = message.vcm, message.serial
        match message.body:
            case Answer() as answer:
                question = self._questions.get(answer.number)
                if question is not None and not question.answer.done():
                    question.answer.set_result(answer)
            case Progress(text=text):
                log.info("%s", text)
            case PictureBegins():
                self._next_picture = Picture()
            case PictureEnds():
                if self._next_picture is not None:
                    self._picture, self._next_picture = self._next_picture, None
                    self._torn.clear()
                    self._whole.set()
            case delta:
                (self._picture if self._next_picture is None else self._next_picture).apply(delta)
        self._changed.set()

    async def _tell_all(self) -> None:
        """Tell a VCM that has started anew what it can't find out: our ALUs, and who may see what."""
        log.warning("another vcm is at work: telling it what the settings say")
        wanted: list[Request] = [*self._attached.values()]
        wanted += [SetLocation(volume=volume, show=show) for volume, show in self._locations.items()]
        wanted += [Start()] if self._started else []
        for request in wanted:
            try:
                await self._ask(request)
            except TiergateError as error:
                log.error("%s", error)

    def _send(self, body: Ask | Look) -> None:
        self._link.send(FromMic(self._incarnation, body))

    async def _ask(self, request: Request) -> Answer:
        """Ask until there is an answer.

        Raises:
            UsageError: it can't be done.
            FailedError: it was tried, and failed.
        """
        async with self._places:
            question = Question(Ask(number=next(self._numbers), request=request))
            self._questions[question.ask.number] = question
            if self._stopped:
                question.answer.set_result(STOPPED)
            try:
                while not question.answer.done():
                    self._send(question.ask)
                    await asyncio.wait([question.answer], timeout=ASK_AGAIN_S)
            finally:
                del self._questions[question.ask.number]
        answer = question.answer.result()
        if answer.error:
            raise UsageError(answer.error) if answer.usage else FailedError(answer.error)
        return answer

    def stop(self) -> None:
        """Answer what is asked still: there will be nobody to ask any more."""
        self._stopped = True
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_result(STOPPED)

    # What the management asks for

    async def attach(self, path: str, size_bytes: int | None = None) -> AluStatus:
        """Have an ALU opened by a storage processor that reaches it."""
        return await self._attach(Attach(path=path, size_bytes=size_bytes))

    async def attach_legacy(self, path: str, force: bool = False) -> AluStatus:
        """Have an ALU opened whose data must not be touched."""
        return await self._attach(Attach(path=path, legacy=True, force=force))

    async def _attach(self, request: Attach) -> AluStatus:
        answer = await self._ask(request)
        self._attached[request.path] = Attach(path=request.path, legacy=request.legacy)
        return self._alu(answer)

    async def claim(self, path: str, force: bool = False) -> AluStatus:
        """Lay an attached ALU out afresh."""
        return self._alu(await self._ask(ClaimAlu(path=path, force=force)))

    async def detach(self, path: str) -> None:
        """Close an ALU that no volume uses."""
        await self._ask(Detach(path=path))
        self._attached.pop(path, None)

    async def forget(self, path: str) -> None:
        """Strike an ALU off that is missing."""
        await self._ask(Forget(path=path))
        self._attached.pop(path, None)

    async def bring_on_line(self) -> None:
        """Have every volume started that can serve."""
        await self._ask(Start())
        self._started = True

    async def reform_global_set(self) -> None:
        """Form the GS set anew."""
        await self._ask(ReformSet())

    async def create_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Have a new volume stored and brought on line."""
        return self._volume(await self._ask(CreateVolume(objects=objects)))

    async def replace_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Have a changed tree stored and gone on with."""
        return self._volume(await self._ask(ReplaceVolume(objects=objects)))

    async def delete_volume(self, volume: Wwn) -> None:
        """Have a volume deleted."""
        await self._ask(DeleteVolume(volume=volume))
        self._locations.pop(volume, None)

    async def set_exposures(self, hosts: tuple[HostDefinition, ...], exposures: tuple[Exposure, ...]) -> None:
        """Have this made the truth, for each volume that it concerns by itself.

        Raises:
            TiergateError: it can't be for one of them; what was true before is true again.
        """
        wanted = {wwn: _show(wwn, hosts, exposures) for wwn in {exposure.volume for exposure in exposures}}
        before = {wwn: self._locations.get(wwn, Show()) for wwn in wanted.keys() | self._locations.keys()}
        changed = {wwn: wanted.get(wwn, Show()) for wwn in before if wanted.get(wwn, Show()) != before[wwn]}
        outcomes = await asyncio.gather(*map(self._locate, changed, changed.values()), return_exceptions=True)
        failure = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        if failure is not None:
            await asyncio.gather(*(self._locate(wwn, before[wwn]) for wwn in changed), return_exceptions=True)
            raise failure

    async def _locate(self, volume: Wwn, show: Show) -> None:
        await self._ask(SetLocation(volume=volume, show=show))
        self._locations[volume] = show

    async def fault(self, part: str, failed: bool) -> None:
        """Fail a part of the system, or restore it (R19): processes here, by the supervisor; all else by the VCM."""
        kind, _, name = part.partition(":")
        if kind not in ("sp", "blade") and self._cables is not None:
            await self._cables.set(part, failed)
        if kind not in ("sp", "blade"):
            await self._ask(Fault(part=part, failed=failed))
            return
        concerned = [sp.name for sp in self.sps() if name == (sp.name if kind == "sp" else sp.blade)]
        if not concerned:
            there = ", ".join(dict.fromkeys(sp.name if kind == "sp" else sp.blade for sp in self.sps()))
            raise UsageError(f"there is no {kind} {name}; there is {there}")
        for sp in concerned:
            self._stop(sp, failed)

    # What it can tell at once

    def alus(self) -> list[AluStatus]:
        """List the attached ALUs."""
        return [changed.alu for changed in self._picture.alus.values()]

    def volumes(self) -> list[VolumeStatus]:
        """List the volumes."""
        return [changed.volume for changed in self._picture.volumes.values()]

    def sps(self) -> list[SpStatus]:
        """List the storage processors."""
        return sorted(self._picture.sps.values(), key=lambda sp: (len(sp.name), sp.name))

    def portals_of(self, volume: Wwn) -> tuple[str, ...]:
        """Give the portals of the storage processors that serve a volume."""
        found = self._picture.volumes.get(volume)
        serving = () if found is None else found.sps
        return tuple(portal for sp in self.sps() if sp.name in serving for portal in sp.host_portals)

    def global_set(self) -> GsStatus:
        """Describe the GS set."""
        return self._picture.gs

    def sessions(self, host: str | None = None, sp: str | None = None) -> list[SessionStatus]:
        """List the sessions of hosts."""
        found = (some for name, some in self._picture.sessions.items() if sp in (None, name))
        return [session for session in itertools.chain.from_iterable(found) if host in (None, session.host)]

    async def all_at_work(self) -> None:
        """Wait until no storage processor is expected or starting any more."""
        while not self._picture.sps or {sp.state for sp in self.sps()} & {SpState.EXPECTED, SpState.STARTING}:
            self._changed.clear()
            await self._changed.wait()

    def _alu(self, answer: Answer) -> AluStatus:
        if answer.alu is None:
            raise FailedError("the vcm has answered without the alu that was asked for")
        return answer.alu

    def _volume(self, answer: Answer) -> VolumeStatus:
        if answer.volume is None:
            raise FailedError("the vcm has answered without the volume that was asked for")
        return answer.volume


def _show(volume: Wwn, hosts: Iterable[HostDefinition], exposures: Iterable[Exposure]) -> Show:
    """Give the rows of the volume location structure that are one volume's."""
    rows = tuple(exposure for exposure in exposures if exposure.volume == volume)
    names = {exposure.host for exposure in rows}
    return Show(tuple(host for host in hosts if host.name in names), rows)
