"""A storage processor's orders: of its VCM, for its process, once, one after the other for a thing (R9)."""

from __future__ import annotations

from appliance.control.orders import (
    Follow,
    MakeT1,
    OpenAlus,
    Order,
    Ordered,
    RemoveT1,
    Report,
    Scan,
    ToSp,
    TurnedAway,
    Welcome,
    WhoIsThere,
)
from appliance.control.reports import Beat, Done, Hello, LegsLost, Opened, Refused, RunsPart
from appliance.control.values import Grant
from appliance.decisions import Carried, Failed
from appliance.messages import AluState, AluStatus
from appliance.simulation.plant import Builder, alu_wwn, object_wwn
from appliance.vsm import Carry, Effect, Happened, Heard, Identity, Leave, Say, Tick, Vsm
from backstores.objects import PartitionObject

PARTS = tuple(obj for obj in Builder().volume("linear", [alu_wwn(0)]) if isinstance(obj, PartitionObject))
VOLUME = PARTS[0].volume
MAKE = MakeT1(volume=VOLUME, generation=1, block_bytes=512, objects=PARTS)
STATUS = AluStatus(wwn=alu_wwn(0), path="a0", kind="file", state=AluState.OWNED, size_bytes=1 << 30)


class Desk:
    """A VSM, and a VCM of incarnation 1 that gives it orders."""

    def __init__(self) -> None:
        self.vsm = Vsm(Identity("sp1", 3))
        self.number = 0
        self.hear(Welcome())

    def hear(
        self, body: Ordered | Welcome | WhoIsThere | TurnedAway, vcm: int = 1, incarnation: int = 3
    ) -> list[Effect]:
        """Have a message arrive."""
        return self.vsm.step(Heard(ToSp(vcm, incarnation, body)))

    def order(self, order: Order, vcm: int = 1) -> list[Effect]:
        """Have a new order arrive."""
        self.number += 1
        return self.hear(Ordered(number=self.number, settled=1, order=order), vcm)


def said(effects: list[Effect]) -> list[object]:
    """List what is said."""
    return [effect.message.body for effect in effects if isinstance(effect, Say)]


def test_an_order_is_carried_out_and_then_answered() -> None:
    desk = Desk()
    assert desk.order(MAKE) == [Carry(1, MAKE)]
    assert said(desk.vsm.step(Carried(1))) == [Done(number=1)]
    assert said(desk.hear(Ordered(number=1, settled=1, order=MAKE))) == [Done(number=1)]


def test_a_failure_is_told_with_its_reason() -> None:
    desk = Desk()
    desk.order(MAKE)
    assert said(desk.vsm.step(Failed(1, "no such alu", usage=True))) == [
        Refused(number=1, reason="no such alu", usage=True)
    ]
    assert desk.vsm.vom.first == {}


def test_orders_for_one_volume_wait_for_each_other() -> None:
    desk = Desk()
    desk.order(MAKE)
    remove = RemoveT1(volume=VOLUME, generation=1)
    assert desk.order(remove) == []
    assert desk.vsm.step(Carried(1))[-1] == Carry(2, remove)


def test_orders_for_other_things_don_t() -> None:
    """C3: one broken volume holds up no other."""
    desk = Desk()
    desk.order(MAKE)
    other = MakeT1(volume=object_wwn(99), generation=1, block_bytes=512, objects=())
    assert desk.order(other) == [Carry(2, other)]


def test_orders_for_another_process_are_nobody_s() -> None:
    """R9: those for the one that died."""
    desk = Desk()
    assert desk.hear(Ordered(number=1, settled=1, order=MAKE), incarnation=2) == []


def test_a_vcm_of_the_past_is_not_heard() -> None:
    """R9: it slept while another took its place."""
    desk = Desk()
    desk.hear(Welcome(), vcm=2)
    assert desk.hear(Ordered(number=1, settled=1, order=MAKE), vcm=1) == []


def test_a_new_vcm_voids_what_has_not_begun() -> None:
    """C1: what runs ends, and the new one hears of it by a report, not by an answer."""
    desk = Desk()
    desk.order(MAKE)
    desk.order(RemoveT1(volume=VOLUME, generation=1))
    desk.hear(WhoIsThere(), vcm=2)
    assert desk.order(Report(cursor=0), vcm=2) == []  # not before what runs has ended
    [report] = said(desk.vsm.step(Carried(1)))
    assert isinstance(report, Done)
    assert isinstance(report.result, RunsPart)
    assert [runs.volume for runs in report.result.t1] == [VOLUME]


def test_it_says_hello_until_it_is_welcome_and_then_beats() -> None:
    vsm = Vsm(Identity("sp1", 3))
    assert [type(body) for body in said(vsm.step(Tick(0.0)))] == [Hello]
    assert vsm.step(Tick(0.5)) == []
    assert [type(body) for body in said(vsm.step(Tick(1.0)))] == [Hello]
    vsm.step(Heard(ToSp(1, 3, Welcome())))
    assert said(vsm.step(Tick(1.5, load=0.25))) == [Beat(load=0.25, epoch=0)]


def test_it_says_who_it_is_when_asked() -> None:
    """R9: a VCM that has started anew hears what has been open since before."""
    desk = Desk()
    desk.order(OpenAlus(paths=("a0",)))
    desk.vsm.step(Carried(1, Opened(alus=(STATUS,))))
    [hello] = said(desk.hear(WhoIsThere(), vcm=2))
    assert isinstance(hello, Hello)
    assert [at.path for at in hello.alus] == ["a0"]


def test_a_lower_epoch_is_not_followed() -> None:
    """M5."""
    desk = Desk()
    desk.order(Follow(epoch=5, grant=Grant("sp2", "secret")))
    desk.vsm.step(Carried(1))
    [refused] = said(desk.order(Follow(epoch=4, grant=Grant("sp3", "secret"))))
    assert isinstance(refused, Refused)
    assert refused.epoch == 5


def test_lost_legs_of_what_is_not_served_are_nobody_s() -> None:
    desk = Desk()
    assert desk.vsm.step(Happened(LegsLost(volume=VOLUME, generation=1, legs=()))) == []


def test_one_that_is_turned_away_leaves() -> None:
    assert Desk().hear(TurnedAway(reason="another release")) == [Leave("another release")]


def test_a_long_report_comes_in_parts() -> None:
    """R9: no message grows with the system."""
    desk = Desk()
    for number in range(100):
        desk.order(MakeT1(volume=object_wwn(number), generation=1, block_bytes=512, objects=()))
        desk.vsm.step(Carried(number + 1))
    [first] = said(desk.order(Report(cursor=0)))
    assert isinstance(first, Done)
    assert isinstance(first.result, RunsPart)
    assert first.result.cursor == len(first.result.t1) == 64
    [second] = said(desk.order(Report(cursor=64)))
    assert isinstance(second, Done)
    assert isinstance(second.result, RunsPart)
    assert (len(second.result.t1), second.result.cursor) == (36, None)


def test_what_changes_nothing_waits_for_nothing() -> None:
    desk = Desk()
    desk.order(MAKE)
    assert desk.order(Scan(paths=())) == [Carry(2, Scan(paths=()))]
