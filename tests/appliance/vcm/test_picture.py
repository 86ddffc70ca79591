"""What the MIC is told: each thing as it is now, once a step, without a gap that it could not see (R14)."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.control.requests import AluGone, Answer, Delta, PictureBegins, PictureEnds, ToMic
from appliance.vcm.courier import Courier
from appliance.vcm.picture import Picture
from appliance.vcm.vocabulary import TellMic


def everything() -> Iterator[Delta]:
    """Two things."""
    yield AluGone(path="a0")
    yield AluGone(path="a1")


def picture(mic: int = 3) -> Picture:
    """Give a picture that a MIC looks at."""
    made = Picture(Courier(incarnation=7), everything)
    made.meet(mic)
    return made


def told(seen: Picture) -> list[ToMic]:
    """Take what was told."""
    effects, seen.courier.effects = seen.courier.effects, []
    return [effect.message for effect in effects if isinstance(effect, TellMic)]


def test_all_of_it_stands_between_beginning_and_end() -> None:
    seen = picture()
    seen.show_all()
    assert [type(message.body) for message in told(seen)] == [PictureBegins, AluGone, AluGone, PictureEnds]


def test_messages_are_numbered_without_a_gap() -> None:
    """R14: the MIC sees when one was lost."""
    seen = picture()
    seen.show_all()
    seen.tell(Answer(number=1))
    assert [message.serial for message in told(seen)] == [1, 2, 3, 4, 5]


def test_what_changes_twice_is_told_once_as_it_is_in_the_end() -> None:
    seen = picture()
    seen.changed("alu", "a0", lambda: AluGone(path="first"))
    seen.changed("alu", "a0", lambda: AluGone(path="last"))
    seen.flush()
    assert [message.body for message in told(seen)] == [AluGone(path="last")]


def test_a_change_is_told_before_the_answer_that_comes_of_it() -> None:
    """C2: who is answered finds in the picture what was done."""
    seen = picture()
    seen.changed("alu", "a0", lambda: AluGone(path="a0"))
    seen.tell(Answer(number=1))
    assert [type(message.body) for message in told(seen)] == [AluGone, Answer]


def test_nobody_is_told_before_a_mic_was_heard() -> None:
    seen = Picture(Courier(incarnation=7), everything)
    seen.show_all()
    assert told(seen) == []


def test_a_new_mic_counts_anew_and_the_old_one_is_not_heard() -> None:
    seen = picture(mic=3)
    seen.show_all()
    told(seen)
    assert seen.meet(4)
    assert not seen.meet(3)
    seen.tell(Answer(number=1))
    assert [(message.incarnation, message.serial) for message in told(seen)] == [(4, 1)]
