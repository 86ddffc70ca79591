"""The VCM at work: its core decides, and this carries messages between it, the bus and the supervisor.

It keeps nothing that is not in the core, and the core nothing that could not be found out again: this process may
die at any moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from appliance.bus.ports import Gone, Heard, Hub, Joined
from appliance.control.orders import ToSp
from appliance.control.reports import FromSp
from appliance.control.requests import FromMic, ToMic
from appliance.processes.words import Child, End, Ended
from appliance.vcm.vocabulary import Effect, Fence, Input, Log, MicSaid, SpDied, SpSaid, Tell, TellMic, Tick

log = logging.getLogger(__name__)

TICK_S: Final = 0.25

MOST_STEP_S: Final = 0.5
"""How far time goes on from one step to the next: while this process could hear nobody, nobody was silent."""

MIC: Final = "mic"

VcmHub = Hub[ToSp | ToMic, FromSp | FromMic]


class Core(Protocol):
    """What decides: ``appliance.vcm.core.CoherencyManager``."""

    def step(self, event: Input, now_s: float) -> Sequence[Effect]:
        """Take what came in, and when; give what is to be done."""


class Vcm:
    """The loop of the VCM."""

    def __init__(self, core: Core, hub: VcmHub, child: Child) -> None:
        self._core = core
        self._hub = hub
        self._child = child
        self._heard_s = 0.0
        self._last_s = float("-inf")

    async def run(self) -> None:
        """Work until it is cancelled, or the supervisor is no more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._hear_of_deaths())
            group.create_task(self._tick())

    async def _listen(self) -> None:
        async for event in self._hub:
            match event:
                case Heard(peer, FromSp() as message) if message.sp == peer:
                    self._step(SpSaid(message))
                case Heard(peer, FromMic() as message) if peer == MIC:
                    self._step(MicSaid(message))
                case Heard(peer, _):
                    log.error("%s speaks for somebody else: its message is dropped", peer)
                case Joined(peer):
                    log.info("%s is on the bus", peer)
                case Gone(peer):
                    log.warning("%s is silent on the bus", peer)

    async def _hear_of_deaths(self) -> None:
        async for word in self._child.words():
            if isinstance(word, Ended) and word.name != MIC:
                self._step(SpDied(word.name, word.incarnation))

    async def _tick(self) -> None:
        while True:
            self._step(Tick(self._time_s()))
            await asyncio.sleep(TICK_S)

    def _time_s(self) -> float:
        """Say how long this process has been able to hear: what it slept through was nobody's silence."""
        now_s = asyncio.get_running_loop().time()
        self._heard_s += min(MOST_STEP_S, now_s - self._last_s)
        self._last_s = now_s
        return self._heard_s

    def _step(self, event: Input) -> None:
        for effect in self._core.step(event, self._time_s()):
            match effect:
                case Tell(sp, message):
                    self._hub.send(sp, message)
                case TellMic(message):
                    self._hub.send(MIC, message)
                case Fence(sp, incarnation):
                    self._child.say(End(sp, incarnation))
                case Log(text, serious):
                    log.log(logging.ERROR if serious else logging.INFO, "%s", text)
