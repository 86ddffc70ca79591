"""The management's port to a system: questions until they are answered, and a picture that is never half a picture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import pytest

from appliance.bus.memory import MemoryBus
from appliance.bus.ports import Heard, Joined
from appliance.control.codec import FROM_MIC, TO_MIC
from appliance.control.requests import (
    AluChanged,
    Answer,
    Ask,
    Attach,
    Delta,
    Fault,
    FromMic,
    Look,
    PictureBegins,
    PictureEnds,
    Request,
    SetLocation,
    SpChanged,
    Start,
    ToMic,
    VolumeChanged,
    VolumeGone,
)
from appliance.control.values import SpState, SpStatus
from appliance.messages import AluState, AluStatus, Exposure, HostDefinition, VolumeState, VolumeStatus
from appliance.mic import system_port
from appliance.mic.system_port import FailedError, SystemPort
from backstores.errors import TiergateError, UsageError
from backstores.wwn import Wwn, new_object_wwn

WEB = HostDefinition(name="web", iqn="iqn.2026-01.org.host:web")
MAIL = HostDefinition(name="mail", iqn="iqn.2026-01.org.host:mail")
ONE, TWO = new_object_wwn(lambda bits: 1), new_object_wwn(lambda bits: 2)


def alu(path: str) -> AluStatus:
    return AluStatus(wwn=None, path=path, kind="file", state=AluState.BLANK, size_bytes=1 << 20)


def volume(wwn: Wwn) -> VolumeStatus:
    return VolumeStatus(
        wwn=wwn,
        name=wwn[-1],
        state=VolumeState.ONLINE,
        blocks=8,
        block_bytes=512,
        layout="linear",
        created="",
        objects=(),
    )


def good(request: Request) -> Answer:
    if isinstance(request, Attach):
        return Answer(number=0, alu=alu(request.path))
    return Answer(number=0)


@dataclass
class ScriptedVcm:
    """Answers as it is told to, and remembers what it was asked. ``deaf``: so many questions are lost first."""

    incarnation: int = 1
    picture: list[Delta] = field(default_factory=list)
    answer: Callable[[Request], Answer] = good
    deaf: int = 0
    asked: list[Request] = field(default_factory=list)
    looks: int = 0
    stopped: set[str] = field(default_factory=set)
    serial: int = 0
    bus: MemoryBus[ToMic, FromMic] = field(init=False)

    def __post_init__(self) -> None:
        self.bus = MemoryBus(FROM_MIC, lambda _: TO_MIC)

    def say(self, body: Answer | PictureBegins | PictureEnds | Delta, skip: int = 0) -> None:
        self.serial += 1 + skip
        self.bus.hub.send("mic", ToMic(self.incarnation, 7, self.serial, body))

    async def run(self) -> None:
        async for event in self.bus.hub:
            if isinstance(event, Heard):
                self._hear(event.message.body)

    def _hear(self, body: Ask | Look) -> None:
        if isinstance(body, Look):
            self.looks += 1
            for part in (PictureBegins(), *self.picture, PictureEnds()):
                self.say(part)
            return
        self.asked.append(body.request)
        if self.deaf:
            self.deaf -= 1
            return
        found = self.answer(body.request)
        self.say(msgspec.structs.replace(found, number=body.number))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until something is true."""
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def port(vcm: ScriptedVcm) -> AsyncIterator[SystemPort]:
    link = vcm.bus.link("mic", 7)

    def stop(sp: str, stopped: bool) -> None:
        (vcm.stopped.add if stopped else vcm.stopped.discard)(sp)

    made = SystemPort(link, 7, "susid", "iqn.2026-01.org.tiergate:many", ["127.0.0.1:3260"], stop)
    tasks = [asyncio.create_task(vcm.run()), asyncio.create_task(made.run())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def test_a_question_is_asked_again_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: the bus may lose a message; the number is the same, so that it is done once."""
    monkeypatch.setattr(system_port, "ASK_AGAIN_S", 0.01)

    async def scenario() -> None:
        vcm = ScriptedVcm(deaf=2)
        async with port(vcm) as mic:
            assert (await mic.attach("/a0")).path == "/a0"
            assert vcm.asked == [Attach(path="/a0")] * 3

    asyncio.run(scenario())


@pytest.mark.parametrize(("usage", "kind"), [(True, UsageError), (False, FailedError)])
def test_an_answer_that_is_an_error_is_raised_as_what_it_is(usage: bool, kind: type[TiergateError]) -> None:
    async def scenario() -> None:
        vcm = ScriptedVcm(answer=lambda request: Answer(number=0, error="no such thing", usage=usage))
        async with port(vcm) as mic:
            with pytest.raises(kind, match="no such thing"):
                await mic.delete_volume(ONE)

    asyncio.run(scenario())


def test_the_picture_follows_the_deltas() -> None:
    async def scenario() -> None:
        vcm = ScriptedVcm(picture=[AluChanged(alu=alu("/a0"), sp="sp1"), VolumeChanged(volume=volume(ONE))])
        async with port(vcm) as mic:
            await vcm.until(lambda: [one.path for one in mic.alus()] == ["/a0"])
            vcm.say(VolumeChanged(volume=volume(TWO), sps=("sp2",)))
            vcm.say(VolumeGone(volume=ONE))
            sp2 = SpStatus("sp2", blade="", state=SpState.AT_WORK, host_portals=("127.0.0.2:3260",))
            vcm.say(SpChanged(sp=sp2))
            await vcm.until(lambda: mic.sps() == [sp2])
            assert [one.wwn for one in mic.volumes()] == [TWO]
            assert mic.portals_of(TWO) == ("127.0.0.2:3260",)
            assert vcm.looks == 1

    asyncio.run(scenario())


def test_a_message_that_was_lost_has_the_whole_picture_told_again() -> None:
    async def scenario() -> None:
        vcm = ScriptedVcm(picture=[VolumeChanged(volume=volume(ONE))])
        async with port(vcm) as mic:
            await vcm.until(lambda: len(mic.volumes()) == 1)
            vcm.picture.append(VolumeChanged(volume=volume(TWO)))
            vcm.say(AluChanged(alu=alu("/a0"), sp="sp1"), skip=1)
            await vcm.until(lambda: len(mic.volumes()) == 2)
            assert vcm.looks == 2

    asyncio.run(scenario())


def test_only_the_volumes_concerned_are_located_anew() -> None:
    """R14: what is said depends on the change, not on how many volumes there are."""

    async def scenario() -> None:
        vcm = ScriptedVcm()
        async with port(vcm) as mic:
            rows = (Exposure(host="web", volume=ONE, lun=0), Exposure(host="mail", volume=TWO, lun=0))
            await mic.set_exposures((WEB, MAIL), rows)
            vcm.asked.clear()
            await mic.set_exposures((WEB, MAIL), rows[:1])
            [asked] = vcm.asked
            assert isinstance(asked, SetLocation)
            assert (asked.volume, asked.show.exposures) == (TWO, ())

    asyncio.run(scenario())


def test_a_location_that_is_refused_leaves_all_as_it_was() -> None:
    async def scenario() -> None:
        vcm = ScriptedVcm()
        async with port(vcm) as mic:
            await mic.set_exposures((WEB,), (Exposure(host="web", volume=ONE, lun=0),))

            def refuse(request: Request) -> Answer:
                bad = isinstance(request, SetLocation) and request.volume == TWO and request.show.exposures
                return Answer(number=0, error="no", usage=True) if bad else Answer(number=0)

            vcm.answer = refuse
            vcm.asked.clear()
            rows = (Exposure(host="web", volume=ONE, lun=5), Exposure(host="web", volume=TWO, lun=1))
            with pytest.raises(UsageError):
                await mic.set_exposures((WEB,), rows)
            last = {ask.volume: ask.show.exposures for ask in vcm.asked if isinstance(ask, SetLocation)}
            assert last == {ONE: (Exposure(host="web", volume=ONE, lun=0),), TWO: ()}

    asyncio.run(scenario())


def test_a_vcm_that_starts_anew_is_told_what_the_settings_say() -> None:
    """C1: which ALUs there are and who may see what, it can't find out by itself."""

    async def scenario() -> None:
        vcm = ScriptedVcm()
        async with port(vcm) as mic:
            await mic.attach("/a0", 1 << 20)
            await mic.bring_on_line()
            await mic.set_exposures((WEB,), (Exposure(host="web", volume=ONE, lun=0),))
            vcm.asked.clear()
            vcm.incarnation, vcm.serial = 2, 0
            vcm.say(VolumeChanged(volume=volume(ONE)))
            await vcm.until(lambda: Start() in vcm.asked)
            assert vcm.asked[0] == Attach(path="/a0")
            assert isinstance(vcm.asked[1], SetLocation)

    asyncio.run(scenario())


def test_a_blade_is_failed_by_stopping_its_processes() -> None:
    """R19: those of storage processors are the supervisor's; what hangs between them, the VCM's."""

    async def scenario() -> None:
        sps = [SpStatus(f"sp{n}", blade=f"b{n // 3}", state=SpState.AT_WORK) for n in (1, 2, 3)]
        vcm = ScriptedVcm(picture=[SpChanged(sp=sp) for sp in sps])
        async with port(vcm) as mic:
            await vcm.until(lambda: mic.sps() == sps)
            await mic.fault("blade:b0", failed=True)
            assert vcm.stopped == {"sp1", "sp2"}
            await mic.fault("sp:sp1", failed=False)
            assert vcm.stopped == {"sp2"}
            with pytest.raises(UsageError, match="there is no blade b7; there is b0, b1"):
                await mic.fault("blade:b7", failed=True)
            await mic.fault("link:sp1/int1", failed=True)
            assert vcm.asked == [Fault(part="link:sp1/int1", failed=True)]

    asyncio.run(scenario())


def test_what_is_asked_when_the_system_stops_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        vcm = ScriptedVcm(deaf=1000)
        async with port(vcm) as mic:
            asking = asyncio.create_task(mic.attach("/a0"))
            await vcm.until(lambda: bool(vcm.asked))
            mic.stop()
            with pytest.raises(FailedError, match="the system stops"):
                await asking
            with pytest.raises(FailedError, match="the system stops"):
                await mic.detach("/a0")

    asyncio.run(scenario())


def test_a_vcm_that_comes_back_is_asked_for_the_picture_once() -> None:
    """C1: the loop goes on meanwhile, whatever the VCM does."""

    async def scenario() -> None:
        vcm = ScriptedVcm(picture=[VolumeChanged(volume=volume(ONE))])
        async with port(vcm) as mic:
            await vcm.until(lambda: len(mic.volumes()) == 1)
            vcm.bus.links["mic"].inbox.put(Joined("vcm", 2))
            await vcm.until(lambda: vcm.looks == 2)
            vcm.say(VolumeGone(volume=ONE))
            await vcm.until(lambda: mic.volumes() == [])
            assert vcm.looks == 2

    asyncio.run(scenario())
