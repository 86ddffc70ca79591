"""Which storage processor has which ALU open.

One at a time has it: the first that is at work of those that reach it, in the order of the topology. It keeps it as
long as it lives, even if one that stands before it returns. Whether one that is not heard of has died, the lock on the
ALU decides: another can't open it before.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from appliance.control.orders import CloseAlus, OpenAlus
from appliance.control.reports import Done, Opened, Refused
from appliance.control.values import AluAt
from appliance.messages import AluStatus
from appliance.vcm.courier import Answer, Courier
from appliance.vcm.peers import Peer, Peers
from appliance.vcm.vocabulary import Site
from backstores.wwn import Wwn

RETRY_S: Final = 2.0
"""How long to wait until those are asked again that could not open an ALU which is needed."""


@dataclass(frozen=True, slots=True)
class NotOpened:
    """Why an ALU is not open."""

    reason: str
    usage: bool = False


Attached = Callable[[AluStatus | NotOpened], None]
Closed = Callable[[NotOpened | None], None]


@dataclass(slots=True)
class Alu:
    """An ALU that was asked for, or that a storage processor has open."""

    path: str
    legacy: bool = False
    status: AluStatus | None = None
    opener: str | None = None
    asking: str | None = None  # who has been ordered to open it
    tried: set[str] = field(default_factory=set)
    retry_s: float = 0.0
    trouble: str = ""
    waiting: list[Attached] = field(default_factory=list)


class Alus:
    """All ALUs. ``opened`` and ``lost`` are told when that changes, ``changed`` whenever a status does."""

    def __init__(
        self,
        courier: Courier,
        site: Site,
        peers: Peers,
        *,
        opened: Callable[[Alu], None],
        lost: Callable[[Alu], None],
        changed: Callable[[Alu], None],
    ) -> None:
        self._courier, self._site, self._peers = courier, site, peers
        self._opened, self._lost, self._changed = opened, lost, changed
        self._all: dict[str, Alu] = {}
        self._openers: dict[Wwn, str] = {}
        self._closed: dict[str, Alu] = {}  # those that nobody has open
        self._counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Alu]:
        return iter(self._all.values())

    def get(self, path: str) -> Alu | None:
        """Give an ALU."""
        return self._all.get(path)

    def opener(self, alu: Wwn) -> str | None:
        """Say which storage processor has an ALU open."""
        return self._openers.get(alu)

    def count(self, sp: str) -> int:
        """Say how many ALUs a storage processor has open."""
        return self._counts[sp]

    def _know(self, path: str, *, legacy: bool = False) -> Alu:
        """Give the ALU of a path, a new one if there is none yet."""
        if path not in self._all:
            self._all[path] = self._closed[path] = Alu(path, legacy)
        return self._all[path]

    def _drop(self, path: str) -> None:
        self._all.pop(path, None)
        self._closed.pop(path, None)

    def _have_opener(self, alu: Alu, opener: str | None) -> None:
        if alu.opener is not None:
            self._counts[alu.opener] -= 1
        alu.opener = opener
        if opener is None:
            self._closed[alu.path] = alu
        else:
            self._counts[opener] += 1
            self._closed.pop(alu.path, None)

    # What people want

    def attach(self, path: str, then: Attached, *, size_bytes: int | None, legacy: bool, force: bool) -> None:
        """Have an ALU opened by whoever reaches it; wait for one that is yet to come."""
        alu = self._know(path, legacy=legacy)
        if alu.legacy is not legacy and alu.opener is not None:
            sort = "a legacy alu" if alu.legacy else "no legacy alu"
            then(NotOpened(f"alu {path!r} is attached already, as {sort}", usage=True))
        elif alu.opener is not None and alu.status is not None:
            then(alu.status)
        else:
            alu.legacy = legacy
            alu.waiting.append(then)
            self._open(alu, size_bytes=size_bytes, force=force)

    def detach(self, path: str, then: Closed) -> None:
        """Have an ALU closed that nothing stands on."""
        alu = self._all.get(path)
        if alu is None or alu.opener is None:
            self._drop(path)
            then(NotOpened(f"alu {path!r} is not attached", usage=True))
            return
        opener = alu.opener

        def closed(answer: Answer) -> None:
            if isinstance(answer, Refused):
                then(NotOpened(answer.reason, answer.usage))
                return
            self._close(alu)
            self._drop(path)
            then(None)

        self._courier.order(opener, CloseAlus(paths=(path,)), closed)

    def forget(self, path: str) -> None:
        """Ask nobody any more to open an ALU that is missing."""
        alu = self._all.get(path)
        if alu is not None and alu.opener is None:
            self._drop(path)

    # Who has it open

    def candidates(self, path: str) -> list[str]:
        """List who reaches an ALU, the best first. Of what the topology does not name, each is first for some.

        One that is yet to come is waited for, and so are those behind it.
        """
        if path in self._site.reach:
            names = list(takewhile(lambda sp: not self._peers.awaited(sp), self._site.reach[path]))
            return [sp for sp in names if self._peers.at_work(sp)]
        names = self._peers.names_at_work()
        first = zlib.crc32(path.encode()) % len(names) if names else 0
        return names[first:] + names[:first]

    def _open(self, alu: Alu, *, size_bytes: int | None = None, force: bool = False) -> None:
        if alu.asking is not None or alu.opener is not None:
            return
        sp = next((sp for sp in self.candidates(alu.path) if sp not in alu.tried), None)
        if sp is None:
            if alu.tried:
                self._give_up(alu)
            return  # else whoever joins will be asked
        alu.asking = sp
        order = OpenAlus(paths=(alu.path,), size_bytes=size_bytes, legacy=alu.legacy, force=force)

        def answered(answer: Answer) -> None:
            alu.asking = None
            if self._all.get(alu.path) is not alu:
                return
            if isinstance(answer, Done) and isinstance(answer.result, Opened) and answer.result.alus:
                self.is_open(sp, answer.result.alus[0], legacy=alu.legacy)
                return
            alu.tried.add(sp)
            alu.trouble = _why_not(answer)
            if isinstance(answer, Refused) and answer.usage and alu.status is None:
                self._refuse(alu, NotOpened(alu.trouble, usage=True))
            else:
                self._open(alu, size_bytes=size_bytes, force=force)

        self._courier.order(sp, order, answered)

    def _give_up(self, alu: Alu) -> None:
        """Everybody was asked: tell who waits, and ask again later."""
        alu.tried.clear()
        alu.retry_s = self._courier.now_s + RETRY_S
        waiting, alu.waiting = alu.waiting, []
        for then in waiting:
            then(NotOpened(alu.trouble))

    def _refuse(self, alu: Alu, why: NotOpened) -> None:
        """What was asked for can't be: forget it."""
        self._drop(alu.path)
        for then in alu.waiting:
            then(why)

    def is_open(self, sp: str, status: AluStatus, *, legacy: bool | None = None) -> None:
        """Take note of an ALU that a storage processor has open, and how it is."""
        alu = self._know(status.path)
        before = (alu.opener, alu.status.wwn if alu.status else None)
        if legacy is not None:
            alu.legacy = legacy
        self._have_opener(alu, sp)
        alu.status, alu.trouble = status, ""
        alu.tried.clear()
        if status.wwn is not None:
            self._openers[status.wwn] = sp
        self._changed(alu)
        if before != (sp, status.wwn):
            self._courier.log(f"alu {alu.path} is open at {sp}")
            self._opened(alu)
        waiting, alu.waiting = alu.waiting, []
        for then in waiting:
            then(status)

    def _close(self, alu: Alu) -> None:
        if alu.status is not None and alu.status.wwn is not None:
            self._openers.pop(alu.status.wwn, None)
        self._have_opener(alu, None)
        self._changed(alu)
        self._lost(alu)

    # Storage processors that come and go

    def joined(self, peer: Peer) -> None:
        """Take over what a storage processor has open; have it open what nobody has."""
        assert peer.hello is not None
        for at in peer.hello.alus:
            if at.path not in self._all or self._all[at.path].opener is None:
                self._adopt(peer.name, at)
        self.back(peer)

    def back(self, peer: Peer) -> None:
        """Have a storage processor that is at work again open what nobody has."""
        for alu in list(self._closed.values()):
            alu.tried.discard(peer.name)
            self._open(alu)

    def _adopt(self, sp: str, at: AluAt) -> None:
        """An ALU is open there since before: only its status is asked for. Nobody else can open it."""
        alu = self._know(at.path, legacy=at.legacy)
        self._have_opener(alu, sp)
        if at.alu is not None:
            self._openers[at.alu] = sp

        def answered(answer: Answer) -> None:
            if isinstance(answer, Done) and isinstance(answer.result, Opened) and answer.result.alus:
                self.is_open(sp, answer.result.alus[0], legacy=at.legacy)

        self._courier.order(sp, OpenAlus(paths=(at.path,), legacy=at.legacy), answered)
        self._opened(alu)

    def gone(self, peer: Peer) -> None:
        """Have others open what a storage processor that is gone had open, or was waited for to open."""
        for alu in list(self._all.values()):
            if alu.opener == peer.name:
                self._close(alu)
        for alu in list(self._closed.values()):
            self._open(alu)

    def tick(self, now_s: float) -> None:
        """Ask again those that could not open an ALU."""
        for alu in list(self._closed.values()):
            if alu.asking is None and 0 < alu.retry_s <= now_s:
                alu.retry_s = 0.0
                self._open(alu)


def _why_not(answer: Answer) -> str:
    if isinstance(answer, Done):
        result = answer.result
        return result.refused[0].trouble if isinstance(result, Opened) and result.refused else "it is not there"
    return answer.reason
