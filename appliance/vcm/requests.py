"""What people ask for by way of the MIC, until it is answered (steps 805 to 850).

Every request ends with one answer, after ``DEADLINE_S`` at the latest: what is not done by then goes on, and the
picture tells how it ends. A request that comes again, because the answer was lost or because this VCM has started
anew, is not done twice: each compares what is wanted with what is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from appliance.control.orders import Change as Kind
from appliance.control.orders import Claim, Commit, Dismiss, Reform, SetFault
from appliance.control.reports import Committed, Done, Refused, Taken
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
    Progress,
    ReformSet,
    ReplaceVolume,
    Request,
    SetLocation,
    Start,
)
from appliance.control.values import VolumeImage
from appliance.messages import AluStatus
from appliance.vcm.alus import Alus, NotOpened
from appliance.vcm.courier import Answer as OrderAnswer
from appliance.vcm.courier import Courier, Lost
from appliance.vcm.mastership import Make, Mastership
from appliance.vcm.peers import Peers
from appliance.vcm.picture import Picture
from appliance.vcm.volume import Change, Volume
from appliance.vcm.volumes import Volumes
from backstores.objects import AnyObject, VolumeObject
from backstores.wwn import Wwn, short

DEADLINE_S: Final = 60.0
"""How long an answer may take. Far longer than anything takes that goes well."""

KEPT: Final = 1024
"""Answers that are remembered, in case they are asked for again."""

OfVolumes: Final = CreateVolume | ReplaceVolume | DeleteVolume


@dataclass(slots=True)
class Asking:
    """A request under way."""

    number: int
    until_s: float
    doing: str = ""


@dataclass(slots=True)
class Requests:
    """All requests of one incarnation of the MIC."""

    courier: Courier
    picture: Picture
    peers: Peers
    alus: Alus
    mastership: Mastership
    volumes: Volumes
    _incarnation: int = 0
    _asking: dict[int, Asking] = field(default_factory=dict)
    _answers: dict[int, Answer] = field(default_factory=dict)
    _located: dict[Wwn, int] = field(default_factory=dict)  # the number of the last request for each volume

    def ask(self, incarnation: int, ask: Ask) -> None:
        """Begin what is asked for; answer again what was answered."""
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._asking.clear()  # what is under way goes on; nobody waits for it any more
            self._answers.clear()
            self._located.clear()
        if ask.number in self._answers:
            self.picture.tell(self._answers[ask.number])
        elif ask.number not in self._asking:
            asking = Asking(ask.number, self.courier.now_s + DEADLINE_S)
            self._asking[ask.number] = asking
            if isinstance(ask.request, OfVolumes):  # which volumes there are, the MVSP has to say first
                self.mastership.when_ready(partial(self._begin, asking, ask.request))
            else:
                self._begin(asking, ask.request)

    def _begin(self, asking: Asking, request: Request) -> None:
        match request:
            case Attach():
                self._attach(asking, request)
            case ClaimAlu():
                self._claim(asking, request)
            case Detach():
                self._detach(asking, request)
            case Forget():
                self._forget(asking, request)
            case ReformSet():
                self._reform(asking)
            case Start():
                self._start(asking)
            case CreateVolume():
                self._create(asking, request)
            case ReplaceVolume():
                self._replace(asking, request)
            case DeleteVolume():
                self._delete(asking, request)
            case SetLocation():
                self._locate(asking, request)
            case Fault():
                self._fault(asking, request)

    def tick(self, now_s: float) -> None:
        """Answer what has taken too long."""
        for asking in list(self._asking.values()):
            if asking.until_s <= now_s:
                waiting = "; ".join(f"{sp} has not answered {order}" for sp, order in self.courier.waiting()[:4])
                why = f": {waiting}" if waiting else ""
                self._end(asking, error=f"not done after {DEADLINE_S:.0f} s{why}; it goes on, look again later")

    def _end(
        self,
        asking: Asking,
        *,
        error: str = "",
        usage: bool = False,
        volume: Volume | None = None,
        alu: AluStatus | None = None,
    ) -> None:
        if self._asking.get(asking.number) is not asking:
            return  # it was answered for having taken too long, or the MIC has started anew
        del self._asking[asking.number]
        status = volume.status() if volume is not None and not error else None
        answer = Answer(number=asking.number, volume=status, alu=alu, error=error[:4096], usage=usage)
        self._answers[asking.number] = answer
        if len(self._answers) > KEPT:
            del self._answers[next(iter(self._answers))]
        self.picture.tell(answer)

    def _progress(self, asking: Asking, text: str) -> None:
        if self._asking.get(asking.number) is asking:
            self.picture.tell(Progress(number=asking.number, text=text))

    # ALUs

    def _attach(self, asking: Asking, request: Attach) -> None:
        """Have an ALU opened by a storage processor that reaches it."""

        def attached(result: AluStatus | NotOpened) -> None:
            if isinstance(result, NotOpened):
                self._end(asking, error=result.reason, usage=result.usage)
            else:
                self._end(asking, alu=result)

        self.alus.attach(
            request.path, attached, size_bytes=request.size_bytes, legacy=request.legacy, force=request.force
        )

    def _claim(self, asking: Asking, request: ClaimAlu) -> None:
        """Have the MVSP lay an ALU out afresh."""
        alu = self.alus.get(request.path)
        if alu is None or alu.opener is None:
            self._end(asking, error=f"alu {request.path!r} is not attached", usage=True)
            return
        opener = alu.opener

        def claimed(result: Committed) -> None:
            status = next((status for status in result.alus if status.path == request.path), None)
            if status is not None:
                self.alus.is_open(opener, status)
            self._end(asking, alu=status)

        self._of_master(
            asking,
            lambda epoch: Claim(epoch=epoch, path=request.path, force=request.force),
            claimed,
            request.path,
        )

    def _detach(self, asking: Asking, request: Detach) -> None:
        """Have the GS set go on without an ALU, and close it."""
        alu = self.alus.get(request.path)
        wwn = alu.status.wwn if alu is not None and alu.status is not None else None
        users = ", ".join(volume.name for volume in self.volumes.using(wwn)) if wwn is not None else ""
        if users:
            self._end(asking, error=f"alu {request.path!r} is in use by volume {users}; delete it first", usage=True)
            return

        def closed(error: NotOpened | None) -> None:
            self._end(asking, error=error.reason if error else "", usage=error is not None and error.usage)

        def dismissed(_: Committed) -> None:
            self.alus.detach(request.path, closed)

        if alu is None or alu.opener is None:
            self.alus.detach(request.path, closed)
        else:
            self._of_master(asking, lambda epoch: Dismiss(epoch=epoch, path=request.path), dismissed)

    def _forget(self, asking: Asking, request: Forget) -> None:
        """Have the GS set go on without an ALU that is missing."""

        def dismissed(_: Committed) -> None:
            self.alus.forget(request.path)
            self._end(asking)

        self._of_master(asking, lambda epoch: Dismiss(epoch=epoch, path=request.path), dismissed)

    def _reform(self, asking: Asking) -> None:
        """Have the GS set formed anew."""

        def answered(answer: OrderAnswer) -> None:
            if isinstance(answer, Done) and isinstance(answer.result, Taken):
                self.mastership.on_gs(answer.result.gs)
            self._end_by(asking, answer)

        self.mastership.ask(lambda epoch: Reform(epoch=epoch), answered)

    def _of_master(self, asking: Asking, make: Make, then: Callable[[Committed], None], alu: str | None = None) -> None:
        """Ask the MVSP for a change, once it reaches an ALU (a path)."""

        def answered(answer: OrderAnswer) -> None:
            if isinstance(answer, Done) and isinstance(answer.result, Committed):
                self.volumes.committed(answer.result)
                then(answer.result)
            else:
                self._end_by(asking, answer)

        self.mastership.ask(make, answered, alu)

    def _end_by(self, asking: Asking, answer: OrderAnswer) -> None:
        if isinstance(answer, Done):
            self._end(asking)
        else:
            self._end(asking, error=answer.reason, usage=isinstance(answer, Refused) and answer.usage)

    def _start(self, asking: Asking) -> None:
        """All settings are told: elect, collect, and let volumes be changed. Answered when there is a master."""
        self.mastership.wanted = True
        self.volumes.location.known = True
        self.volumes.look_at_all()
        self.mastership.when_ready(lambda: self._end(asking))

    # Volumes

    def _create(self, asking: Asking, request: CreateVolume) -> None:
        """Store a volume and bring it on line. All or nothing."""
        head = _head(request.objects)
        twin = next((one for one in self.volumes if one.name == head.name and one.wwn != head.wwn), None)
        if twin is not None:
            self._end(asking, error=f"there is a volume {head.name!r} already", usage=True)
            return

        def stored(result: Committed) -> None:
            volume = self.volumes.take(result.volume or VolumeImage(request.objects))
            volume.create = not volume.t2
            self._progress(asking, "stored; distributing it")
            self._when_settled(asking, volume, undo=True)

        self._of_master(asking, _commit(Kind.CREATE, head.wwn, request.objects), stored)

    def _when_settled(self, asking: Asking, volume: Volume, *, undo: bool = False) -> None:
        """Answer when the volume is as it should be, or can't be."""

        def settled(error: str) -> None:
            if error and undo:
                self._remove(asking, volume, error)
            else:
                self._end(asking, volume=volume, error=error)

        volume.settled.append(settled)
        self.volumes.look_at(volume)

    def _replace(self, asking: Asking, request: ReplaceVolume) -> None:
        """Hold a volume, make its tree another, go on."""
        head = _head(request.objects)
        volume = self.volumes.get(head.wwn)
        if volume is None or volume.image is None:
            self._end(asking, error=f"there is no volume {short(head.wwn)}", usage=True)
            return
        if volume.change is not None:
            self._end(asking, error=f"volume {volume.name!r} is being changed already: try again later")
            return
        wanted = volume

        def changed(error: str) -> None:
            if error:
                self._end(asking, error=error)
            else:
                self._when_settled(asking, wanted)

        volume.change = Change(_commit(Kind.REPLACE, head.wwn, request.objects), "as was asked for", changed)
        self.volumes.look_at(volume)

    def _delete(self, asking: Asking, request: DeleteVolume) -> None:
        """Take a volume off line and off the ALUs."""
        volume = self.volumes.get(request.volume)
        if volume is None:
            self._end(asking, error=f"there is no volume {short(request.volume)}", usage=True)
        else:
            self._remove(asking, volume, "")

    def _remove(self, asking: Asking, volume: Volume, error: str) -> None:
        """Remove a volume, by wish or because it could not be made."""

        def erased(answer: OrderAnswer) -> None:
            if isinstance(answer, Done):
                self.volumes.erase(volume)
                self._end(asking, error=error)
                return
            assert not isinstance(answer, Lost)
            self.volumes.keep(volume, answer.reason, removed)
            self._end(asking, error=error or answer.reason, usage=not error and answer.usage)

        def removed() -> None:
            self.mastership.ask(_commit(Kind.DELETE, volume.wwn, volume.objects), erased)

        volume.removing, volume.removed = True, removed
        self.volumes.try_again(volume)

    def _locate(self, asking: Asking, request: SetLocation) -> None:
        """Have a volume shown to these hosts; answered when it is so. A later word outvotes an earlier one."""
        if self._located.get(request.volume, 0) <= asking.number:
            self._located[request.volume] = asking.number
            self.volumes.locate(request.volume, request.show)
        volume = self.volumes.get(request.volume)
        if volume is None or not self.volumes.location.known:
            self._end(asking)
        else:
            self._when_settled(asking, volume)

    def _fault(self, asking: Asking, request: Fault) -> None:
        """Have all storage processors that are at work fail a part, or restore it."""
        names = self.peers.names_at_work()
        waiting = set(names)
        errors: list[str] = []

        def answered(name: str, answer: OrderAnswer) -> None:
            waiting.discard(name)
            if isinstance(answer, Refused):
                errors.append(f"{name}: {answer.reason}")
            if not waiting:
                self._end(asking, error="; ".join(errors))

        for name in names:
            order = SetFault(part=request.part, failed=request.failed)
            self.courier.order(name, order, partial(answered, name))
        if not names:
            self._end(asking, error="no storage processor is at work")


def _head(objects: tuple[AnyObject, ...]) -> VolumeObject:
    head = objects[0]
    assert isinstance(head, VolumeObject)
    return head


def _commit(change: Kind, volume: Wwn, objects: tuple[AnyObject, ...]) -> Make:
    """Order a change of a volume's objects, in whichever epoch there is a master."""
    return lambda epoch: Commit(epoch=epoch, change=change, volume=volume, objects=objects)
