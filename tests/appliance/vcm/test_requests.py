"""What people ask for: begun once, answered once, whatever happens (R13, R14, C2, C3)."""

from __future__ import annotations

import msgspec
import pytest

from appliance.control.reports import ImagePart
from appliance.control.requests import (
    Ask,
    Attach,
    CreateVolume,
    DeleteVolume,
    Detach,
    Forget,
    FromMic,
    ReplaceVolume,
    Request,
    SetLocation,
)
from appliance.control.values import VolumeImage
from appliance.messages import VolumeState
from appliance.simulation.history import grown
from appliance.simulation.invariants import after_quiet
from appliance.simulation.plant import Builder, alu_wwn, make_site, object_wwn, shown_by
from appliance.simulation.system import Conditions, System
from appliance.vcm.peers import EXPECT_S
from appliance.vcm.requests import DEADLINE_S
from appliance.vcm.vocabulary import MicSaid
from backstores.objects import AnyObject, VolumeObject
from tests.support.transcript import STEADY


class Desk:
    """A system of three storage processors at work, each with one ALU, and a person."""

    def __init__(self) -> None:
        site, shelf = make_site(3, 3, reach=1)
        self.system = System(site, shelf, 1)
        self.system.conditions = STEADY
        self.builder = Builder()
        assert self.system.mic is not None
        self.mic = self.system.mic
        self.mic.attached = list(shelf.alus)
        self.system.start_all()
        self.system.run(1.0)

    def ask(self, request: Request, within_s: float = 2.0) -> str:
        """Ask for something; returns the error, or nothing."""
        number = self.system.ask(request)
        self.system.run(within_s)
        return self.mic.answers[number].error

    def create(self, layout: str = "mirror", alus: tuple[int, ...] = (0, 1)) -> tuple[AnyObject, ...]:
        """Have a volume made."""
        objects = self.builder.volume(layout, [alu_wwn(number) for number in alus])
        assert self.ask(CreateVolume(objects=objects)) == ""
        return objects


def test_a_volume_is_answered_for_when_it_is_on_line() -> None:
    """R13: step 850."""
    desk = Desk()
    objects = desk.create()
    [answer] = [answer for answer in desk.mic.answers.values() if answer.volume is not None]
    assert answer.volume is not None
    assert (answer.volume.state, answer.volume.objects) == (VolumeState.ONLINE, objects)


REFUSALS: dict[str, tuple[Request, str]] = {
    "a volume that is not there is deleted": (DeleteVolume(volume=object_wwn(99)), "there is no volume"),
    "a volume that is not there is changed": (
        ReplaceVolume(objects=Builder().volume("linear", [alu_wwn(0)])),
        "there is no volume",
    ),
    "an alu that is not there is attached": (Attach(path="a99"), "there is no a99"),
    "an alu is attached as something else": (Attach(path="a0", legacy=True), "attached already, as no legacy alu"),
    "an alu that is not attached is detached": (Detach(path="a99"), "'a99' is not attached"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_can_t_be_is_refused_and_nothing_changes(name: str) -> None:
    """C2: the answer names what is wrong."""
    request, error = REFUSALS[name]
    desk = Desk()
    assert error in desk.ask(request)
    after_quiet(desk.system)


def test_a_name_is_used_once() -> None:
    desk = Desk()
    desk.create()
    head, *below = desk.builder.volume("linear", [alu_wwn(2)])
    twin = msgspec.structs.replace(head, name="v0001")
    assert "there is a volume 'v0001' already" in desk.ask(CreateVolume(objects=(twin, *below)))


def test_an_alu_in_use_is_not_detached() -> None:
    """R1: the answer names who uses it."""
    desk = Desk()
    desk.create()
    assert "in use by volume v0001" in desk.ask(Detach(path="a0"))


def test_an_alu_that_is_not_in_use_is_detached() -> None:
    desk = Desk()
    desk.create()
    assert desk.ask(Detach(path="a2")) == ""
    assert desk.system.shelf.alus["a2"].holder is None


def test_one_that_is_forgotten_is_not_asked_for_any_more() -> None:
    desk = Desk()
    assert desk.ask(Forget(path="a7")) == ""


def test_what_arrives_twice_is_done_once_and_answered_twice() -> None:
    """C2: the first answer may have been lost."""
    desk = Desk()
    objects = desk.builder.volume("linear", [alu_wwn(0)])
    number = desk.system.ask(CreateVolume(objects=objects))
    desk.system.run(1.0)
    answer = desk.mic.answers.pop(number)
    desk.mic.pending.add(number)
    desk.system.run(2.0)
    assert desk.mic.answers[number] == answer
    assert sum("522" in text for _, text in desk.system.log) == 1


def test_a_mic_of_the_past_is_not_heard() -> None:
    desk = Desk()
    assert desk.system.vcm is not None
    desk.system.kill_mic()
    desk.system.run(2.0)
    late = MicSaid(FromMic(1, Ask(number=77, request=DeleteVolume(volume=object_wwn(1)))))
    assert desk.system.vcm.step(late) == []


def test_one_that_never_answers_does_not_keep_the_answer_from_people() -> None:
    """C2: the answer says who is waited for."""
    desk = Desk()
    desk.system.conditions = Conditions(work_s=(1e6, 1e6))  # they beat, and come to no end
    objects = desk.builder.volume("linear", [alu_wwn(1)])
    number = desk.system.ask(CreateVolume(objects=objects))
    desk.system.run(DEADLINE_S + 5.0)
    assert f"not done after {DEADLINE_S:.0f} s: sp1 has not answered Commit" in desk.mic.answers[number].error


def test_a_volume_that_fails_stays_off_line_with_its_reason_and_others_go_on_line() -> None:
    """C3, R10: step 539."""
    desk = Desk()
    broken = desk.builder.volume("linear", [alu_wwn(0)])
    desk.system.processes["sp1"].plane.broken.add(broken[0].wwn)
    assert "broken on purpose" in desk.ask(CreateVolume(objects=broken))
    assert broken[0].wwn not in desk.system.shelf.trees()  # all or nothing
    desk.create("linear", (0,))
    after_quiet(desk.system)


def test_a_volume_is_hidden_again() -> None:
    """R15, R18."""
    desk = Desk()
    objects = desk.create()
    wwn = objects[0].wwn
    for sps in (["sp2", "sp3"], ["sp3"], []):
        desk.mic.shows[wwn] = shown_by(wwn, sps)
        assert desk.ask(SetLocation(volume=wwn, show=desk.mic.shows[wwn])) == ""
        after_quiet(desk.system)


def test_a_later_word_outvotes_an_earlier_one_that_arrives_late() -> None:
    """C2: the bus may turn them round."""
    desk = Desk()
    wwn = desk.create()[0].wwn
    early, late = shown_by(wwn, ["sp2"]), shown_by(wwn, ["sp3"])
    assert desk.system.vcm is not None
    desk.mic.shows[wwn] = late
    for number, show in ((101, late), (100, early)):
        desk.mic.asked[number] = SetLocation(volume=wwn, show=show)
        desk.system._to_vcm(MicSaid(FromMic(1, Ask(number=number, request=desk.mic.asked[number]))))
    desk.system.run(3.0)
    after_quiet(desk.system)


def test_one_that_never_comes_holds_up_what_it_should_serve_and_nothing_else() -> None:
    """C3, D4: it may be serving unheard, until it is known to be dead."""
    site, shelf = make_site(3, 3, reach=1)
    system = System(site, shelf, 1)
    system.conditions = STEADY
    assert system.mic is not None
    system.mic.attached = ["a0", "a1"]
    system.start_vcm()
    for number, name in enumerate(site.sps[:2]):
        system.start_sp(name, number)
    system._tick_mic()
    builder = Builder()
    numbers = []
    for sps in (["sp2"], ["sp2", "sp3"]):
        objects = builder.volume("mirror", [alu_wwn(0), alu_wwn(1)])
        system.mic.shows[objects[0].wwn] = shown_by(objects[0].wwn, sps)
        numbers.append(system.ask(CreateVolume(objects=objects)))
    system.run(5.0)
    assert set(numbers) & set(system.mic.answers) == {numbers[0]}
    system.run(EXPECT_S)
    assert [system.mic.answers[number].error for number in numbers] == ["", ""]


def test_an_image_that_was_told_before_a_change_does_not_undo_it() -> None:
    """M2: the bus may turn the two round; the higher generation is the newer."""
    desk = Desk()
    objects = desk.create()
    assert isinstance(objects[0], VolumeObject)
    newer = (grown(objects[0]), *objects[1:])
    assert desk.ask(ReplaceVolume(objects=newer)) == ""
    assert desk.system.vcm is not None
    desk.system.vcm.volumes.image(ImagePart(volumes=(VolumeImage(objects),), gone=(), cursor=1, more=False))
    [volume] = desk.system.vcm.volumes
    assert volume.objects == newer
