"""A storage processor at work: its VSM decides, and this carries its decisions to the bus and to the hands (R9).

Each action is a task of its own, so that one that takes long holds up no other; which of them may run side by side the
VSM knows. What an action raises becomes the answer to its order. Only what nobody has foreseen is caught here as well:
it is a mistake of ours, is logged with all its details, and costs one order and not the process with all its volumes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, Protocol

from appliance.bus.ports import Gone, Heard, Joined, Link, Refused
from appliance.control.orders import ToSp
from appliance.control.reports import FromSp, LegsLost, Result, SessionsAre, VolumeIs
from appliance.control.values import VolumeImage
from appliance.decisions import Action, Carried, Failed, Outcome
from appliance.vsm import BEAT_S, Carry, Effect, Happened, Input, Leave, Say, Tick, Vsm
from appliance.vsm import Heard as HeardFromVcm
from backstores.errors import TiergateError, UsageError
from backstores.metadata.mdr import FencedError

log = logging.getLogger(__name__)

SpLink = Link[FromSp, ToSp]
TICK_S: Final = BEAT_S / 2


class Hands(Protocol):
    """What carries actions out; ``appliance.processor.hands`` has those of a storage processor."""

    async def carry_out(self, action: Action) -> tuple[Result | None, Sequence[VolumeImage] | None]:
        """Carry an action out; give the system image, too, if all of it may have changed.

        Raises:
            TiergateError: it can't be done, or failed.
        """

    def images(self) -> Sequence[VolumeImage] | None:
        """Give the system image as it is after a failure, if the MVSP is here."""

    def sessions(self) -> SessionsAre:
        """List the sessions of hosts."""


class TurnedAwayError(TiergateError):
    """The VCM will have nothing to do with this storage processor."""


class Processor:
    """The loop of one storage processor. Made and used within one event loop."""

    def __init__(self, vsm: Vsm, link: SpLink, hands: Hands) -> None:
        self._vsm = vsm
        self._link = link
        self._hands = hands
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._sessions = SessionsAre(sessions=())

    async def run(self) -> None:
        """Work until the link ends.

        Raises:
            TurnedAwayError: the VCM refuses this process.
        """
        loops = [asyncio.create_task(loop) for loop in (self._tick(), self._listen(), self._turned_away())]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*loops, *self._tasks):
                task.cancel()
            await asyncio.gather(*loops, *self._tasks, return_exceptions=True)

    async def _turned_away(self) -> None:
        raise TurnedAwayError(await self._left)

    def report(self, what: LegsLost | VolumeIs) -> None:
        """Tell the VCM of what the data plane has noticed by itself."""
        self._step(Happened(what))

    async def _listen(self) -> None:
        async for event in self._link:
            match event:
                case Heard(_, message):
                    self._step(HeardFromVcm(message))
                case Refused(reason):
                    self._leave(reason)
                case Joined():
                    log.info("the vcm is there")
                case Gone():
                    log.warning("the vcm is silent: data goes on")

    async def _tick(self) -> None:
        cpu_s, now_s = time.process_time(), time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            spent_s, passed_s = time.process_time() - cpu_s, time.monotonic() - now_s
            cpu_s, now_s = cpu_s + spent_s, now_s + passed_s
            self._step(Tick(now_s, min(1.0, spent_s / passed_s)))
            if (sessions := self._hands.sessions()) != self._sessions:
                self._sessions = sessions
                self._step(Happened(sessions))

    def _step(self, event: Input) -> None:
        for effect in self._vsm.step(event):
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Say(message):
                self._link.send(message)
            case Carry(job, action):
                task = asyncio.create_task(self._carry(job, action))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Leave(reason):
                self._leave(reason)

    def _leave(self, reason: str) -> None:
        if not self._left.done():
            self._left.set_result(reason)

    async def _carry(self, job: int, action: Action) -> None:
        self._step(await self._outcome(job, action))

    async def _outcome(self, job: int, action: Action) -> Outcome:
        try:
            result, image = await self._hands.carry_out(action)
        except TiergateError as error:
            log.warning("%s: %s", type(action).__name__, error)
            fenced_by = error.epoch if isinstance(error, FencedError) else 0
            return Failed(job, str(error), isinstance(error, UsageError), fenced_by, self._hands.images())
        except Exception:
            log.exception("a mistake of ours in %s", type(action).__name__)
            return Failed(job, f"a mistake of ours in {type(action).__name__}; the log has it")
        return Carried(job, result, image)
