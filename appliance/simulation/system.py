"""A system in virtual time: the cores, what carries their messages, and what happens to them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from appliance.control.orders import GoOnLine, Ordered, ResumeVolume, ToSp, VolumeOrder
from appliance.control.reports import LegsLost
from appliance.control.requests import Answer, Ask, Attach, FromMic, Look, Request, SetLocation, Start, ToMic
from appliance.control.values import Show
from appliance.decisions import Carried, Failed
from appliance.simulation.clock import Clock
from appliance.simulation.plane import PlaneError, Shelf, SimPlane
from appliance.vcm.core import CoherencyManager
from appliance.vcm.vocabulary import Effect, Fence, Input, Log, MicSaid, Site, SpDied, SpSaid, Tell, TellMic
from appliance.vcm.vocabulary import Tick as VcmTick
from appliance.vsm import Carry, Happened, Heard, Identity, Leave, Say, Tick, Vsm
from appliance.vsm import Effect as SpEffect
from appliance.vsm import Input as SpInput
from backstores.wwn import Wwn

VCM_TICK_S = 0.25
SP_TICK_S = 0.5
MIC_TICK_S = 1.0
LOOK_S = 5.0  # how soon the MIC notices that a VCM has started anew
RESTART_S = 0.7


@dataclass(frozen=True, slots=True)
class Conditions:
    """How bad the network and the disks are."""

    loss: float = 0.0
    delay_s: tuple[float, float] = (0.001, 0.01)
    work_s: tuple[float, float] = (0.001, 0.02)


QUIET = Conditions()


@dataclass(slots=True, eq=False)
class SpProcess:
    """A process of a storage processor: its core over its data plane."""

    core: Vsm
    plane: SimPlane
    asleep_until_s: float = 0.0
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class SimMic:
    """The MIC: asks until it is answered, and tells a VCM that has started anew what is in the settings."""

    incarnation: int = 1
    vcm: int = 0
    number: int = 0
    attached: list[str] = field(default_factory=list)
    shows: dict[Wwn, Show] = field(default_factory=dict)
    asked: dict[int, Request] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    telling: set[int] = field(default_factory=set)  # the settings, to a VCM that does not know them

    def ask(self, request: Request) -> int:
        """Ask for something; returns its number."""
        self.number += 1
        self.asked[self.number] = request
        self.pending.add(self.number)
        return self.number


class System:
    """Everything there is. ``check`` is called after each event, ``served`` when a volume goes on line, or on."""

    def __init__(
        self,
        site: Site,
        shelf: Shelf,
        seed: int,
        check: Callable[[System], None] | None = None,
        served: Callable[[System, SimPlane, Wwn], None] | None = None,
    ) -> None:
        self.clock = Clock()
        self.random = random.Random(seed)
        self.site, self.shelf = site, shelf
        self.conditions = QUIET
        self.cut_off: set[str] = set()
        self.processes: dict[str, SpProcess] = {}
        self.vcm: CoherencyManager | None = None
        self.mic: SimMic | None = SimMic()
        self.log: list[tuple[float, str]] = []
        self.messages = 0
        self._check, self._served = check, served
        self.orders: Counter[Wwn] = Counter()  # by the volume that they are for
        self._incarnation = 0
        self._look_s = 0.0

    # Time

    def run(self, for_s: float) -> None:
        """Let time go on."""
        until_s = self.clock.now_s + for_s
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True

        self.clock.after(for_s, stop)
        while not stopped and self.clock.step():
            if self._check is not None:
                self._check(self)
        self.clock.now_s = until_s

    def note(self, text: str) -> None:
        """Add a line to the transcript."""
        self.log.append((self.clock.now_s, text))

    # Processes

    def _next_incarnation(self) -> int:
        self._incarnation += 1
        return self._incarnation

    def start_all(self) -> None:
        """Start every process."""
        self.start_vcm()
        for number, name in enumerate(self.site.sps):
            self.start_sp(name, number)
        self._tick_mic()

    def start_vcm(self) -> None:
        """Start a VCM, which knows nothing."""
        self.vcm = CoherencyManager(self.site, self._next_incarnation(), lambda: f"{self.random.getrandbits(64):016x}")
        self.note("vcm starts")
        self._tick_vcm(self.vcm)

    def kill_vcm(self) -> None:
        """End the VCM; it is started again."""
        self.note("vcm dies")
        self.vcm = None
        self.clock.after(RESTART_S, self.start_vcm)

    def start_sp(self, name: str, number: int = 0) -> None:
        """Start a storage processor's process."""
        plane = SimPlane(name, self.shelf, self._plane)
        portals = (f"10.1.0.{number}:3260", f"10.2.0.{number}:3260")
        identity = Identity(name, self._next_incarnation(), f"b{number // 4}", portals, (f"10.3.0.{number}:3260",))
        process = SpProcess(Vsm(identity), plane)
        self.processes[name] = process
        self.note(f"{name} starts")
        self.clock.after(number % 10 / 100, partial(self._tick_sp, process))

    def kill_sp(self, name: str) -> None:
        """End a storage processor's process; the supervisor hears of it, tells the VCM, and starts it again."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        self.note(f"{name} dies")
        process.plane.die()
        self.clock.after(0.01, lambda: self._to_vcm(SpDied(name, process.core.identity.incarnation)))
        self.clock.after(RESTART_S, partial(self._start_again, name))

    def _start_again(self, name: str) -> None:
        if name not in self.processes:
            self.start_sp(name, self.site.sps.index(name))

    def sleep_sp(self, name: str, for_s: float) -> None:
        """Stop a process for a while (SIGSTOP): it holds its locks, and does nothing."""
        process = self.processes.get(name)
        if process is not None:
            self.note(f"{name} sleeps for {for_s:.1f} s")
            process.asleep_until_s = self.clock.now_s + for_s
            self.clock.after(for_s, partial(self._wake, process))

    def _wake(self, process: SpProcess) -> None:
        if process.plane.alive and process.asleep_until_s <= self.clock.now_s:
            self.note(f"{process.core.identity.name} wakes")
            waiting, process.waiting = process.waiting, []
            for do in waiting:
                self._awake(process, do)

    def cut(self, name: str, for_s: float) -> None:
        """Let no message through between a storage processor and the VCM."""
        self.note(f"{name} is cut off for {for_s:.1f} s")
        self.cut_off.add(name)
        self.clock.after(for_s, lambda: self.cut_off.discard(name))

    def kill_mic(self) -> None:
        """End the MIC, and start another that knows the settings."""
        assert self.mic is not None
        self.note("mic dies")
        before = self.mic
        self.mic = SimMic(self._next_incarnation(), attached=before.attached, shows=before.shows)
        self._look_s = self.clock.now_s
        self.mic.answers = before.answers
        self.mic.number = before.number

    def _plane(self, name: str) -> SimPlane | None:
        """Give the data plane of a storage processor, if it answers."""
        process = self.processes.get(name)
        return process.plane if process is not None and process.asleep_until_s <= self.clock.now_s else None

    # Messages

    def _send(self, do: Callable[[], None]) -> None:
        """Have a message arrive, late or not at all."""
        self.messages += 1
        if self.random.random() >= self.conditions.loss:
            self.clock.after(self.random.uniform(*self.conditions.delay_s), do)

    def _to_vcm(self, event: Input) -> None:
        if self.vcm is not None:
            self._obey_vcm(self.vcm.step(event, self.clock.now_s))

    def _from_sp(self, name: str, event: SpSaid) -> None:
        if name not in self.cut_off:
            self._to_vcm(event)

    def _obey_vcm(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(sp, message):
                    self._count(message)
                    self._send(partial(self._to_sp, sp, message))
                case TellMic(message):
                    self._send(partial(self._to_mic, message))
                case Log(text):
                    self.note(text)
                case Fence(sp, incarnation):
                    self._fence(sp, incarnation)

    def _count(self, message: ToSp) -> None:
        if isinstance(message.body, Ordered) and isinstance(message.body.order, VolumeOrder):
            self.orders[message.body.order.volume] += 1

    def _fence(self, name: str, incarnation: int) -> None:
        """End a process for certain, as the supervisor does."""
        process = self.processes.get(name)
        if process is None:
            self.clock.after(0.01, lambda: self._to_vcm(SpDied(name, incarnation)))
        elif incarnation in (0, process.core.identity.incarnation):
            self.kill_sp(name)

    def _to_sp(self, name: str, message: ToSp) -> None:
        process = self.processes.get(name)
        if process is not None and name not in self.cut_off:
            self._step_sp(process, Heard(message))

    def _step_sp(self, process: SpProcess, event: SpInput) -> None:
        self._awake(process, lambda: self._obey_sp(process, process.core.step(event)))

    def _awake(self, process: SpProcess, do: Callable[[], None]) -> None:
        """Do something with a process that lives, once it is awake."""
        if process.plane.alive and process.asleep_until_s > self.clock.now_s:
            process.waiting.append(do)
        elif process.plane.alive:
            do()

    def _obey_sp(self, process: SpProcess, effects: list[SpEffect]) -> None:
        name = process.core.identity.name
        for effect in effects:
            match effect:
                case Say(message):
                    self._send(partial(self._from_sp, name, SpSaid(message)))
                case Carry():
                    wait_s = self.random.uniform(*self.conditions.work_s)
                    self.clock.after(wait_s, partial(self._carry_out, process, effect))
                case Leave(reason):
                    self.note(f"{name} is turned away: {reason}")
                    self.kill_sp(name)

    def _carry_out(self, process: SpProcess, carry: Carry) -> None:
        self._awake(process, lambda: self._carry_out_now(process, carry))

    def _carry_out_now(self, process: SpProcess, carry: Carry) -> None:
        outcome: Carried | Failed
        try:
            result, image = process.plane.carry_out(carry.action)
            outcome = Carried(carry.job, result, image)
            if self._served is not None and isinstance(carry.action, GoOnLine | ResumeVolume):
                self._served(self, process.plane, carry.action.volume)
        except PlaneError as error:
            outcome = Failed(carry.job, str(error), fenced_by=error.fenced_by)
        self._step_sp(process, outcome)

    def lose_legs(self, name: str, report: LegsLost) -> None:
        """Have a storage processor notice that legs have failed, if it serves a volume on them."""
        process = self.processes.get(name)
        if process is not None and process.plane.lose_legs(report.volume, report.legs):
            self._step_sp(process, Happened(report))

    # The MIC

    def _from_mic(self, body: Ask | Look) -> None:
        assert self.mic is not None
        event = MicSaid(FromMic(self.mic.incarnation, body))
        self._send(lambda: self._to_vcm(event))

    def ask(self, request: Request) -> int:
        """Have a person ask for something."""
        assert self.mic is not None
        number = self.mic.ask(request)
        self.note(f"a person asks: {type(request).__name__} ({number})")
        self._from_mic(Ask(number=number, request=request))
        return number

    def _to_mic(self, message: ToMic) -> None:
        mic = self.mic
        if mic is None or message.incarnation != mic.incarnation:
            return
        if message.vcm > mic.vcm:
            mic.vcm = message.vcm
            self._tell_settings(mic)
        body = message.body
        if isinstance(body, Answer) and body.number in mic.pending:
            mic.pending.discard(body.number)
            mic.answers[body.number] = body
            if body.number in mic.telling:
                self._told(mic, body.number)
            else:
                self.note(f"answer {body.number}: {body.error or 'done'}")

    def _tell_settings(self, mic: SimMic) -> None:
        """Tell a VCM what is in the settings; that it may start comes last."""
        mic.pending -= mic.telling
        mic.telling = {mic.ask(Attach(path=path)) for path in mic.attached}
        mic.telling |= {mic.ask(SetLocation(volume=wwn, show=show)) for wwn, show in mic.shows.items()}
        if not mic.telling:
            mic.telling = {mic.ask(Start())}
        for number in sorted(mic.telling):
            self._from_mic(Ask(number=number, request=mic.asked[number]))

    def _told(self, mic: SimMic, number: int) -> None:
        mic.telling.discard(number)
        if not mic.telling and not isinstance(mic.asked[number], Start):
            start = mic.ask(Start())
            mic.telling.add(start)
            self._from_mic(Ask(number=start, request=mic.asked[start]))

    # Ticks

    def _tick_vcm(self, vcm: CoherencyManager) -> None:
        if self.vcm is vcm:
            self._obey_vcm(vcm.step(VcmTick(self.clock.now_s)))
            self.clock.after(VCM_TICK_S, partial(self._tick_vcm, vcm))

    def _tick_sp(self, process: SpProcess) -> None:
        if process.plane.alive:
            if process.asleep_until_s <= self.clock.now_s:
                self._step_sp(process, Tick(self.clock.now_s))
            self.clock.after(SP_TICK_S, partial(self._tick_sp, process))

    def _tick_mic(self) -> None:
        if self.mic is not None:
            if self.clock.now_s >= self._look_s:
                self._look_s = self.clock.now_s + (LOOK_S if self.mic.vcm else MIC_TICK_S)
                self._from_mic(Look())
            if self.mic.vcm:
                for number in sorted(self.mic.pending):
                    self._from_mic(Ask(number=number, request=self.mic.asked[number]))
        self.clock.after(MIC_TICK_S, self._tick_mic)
