"""Who holds what of a volume, who waits, and what a lost nexus leaves: against a model, and as a table (D4, D2)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backstores.block import BlockError, Busy
from backstores.volume.holdings import (
    MOST_OF_A_FOLLOWER,
    STAGES,
    Ask,
    Effect,
    Ended,
    Event,
    Fence,
    Fenced,
    Free,
    Grant,
    Holdings,
    Key,
    Lost,
    Mend,
    Release,
    Stage,
    Take,
    Taken,
)

FOLLOWERS = ("iqn.2026-11.example:sp2.t2", "iqn.2026-11.example:sp3.t2")


class AgainstModel(RuleBasedStateMachine):
    """The model keeps, of each holding, what its follower has heard and said, and what was done with its range."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Holdings()
        self.serial = 0
        self.nexuses = dict.fromkeys(FOLLOWERS, 0)
        self.asked: dict[Key, int] = {}  # by which nexus
        self.granted: set[Key] = set()
        self.doubtful: set[Key] = set()  # granted, and not said to be settled
        self.ending: dict[Key, bool] = {}  # to be mended or not
        self.fencing: set[str] = set()

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Take(key):
                    assert self.asked[key] == self.nexuses[key.follower]
                case Grant(key):
                    assert key not in self.granted | self.ending.keys()
                    self.granted.add(key)
                    self.doubtful.add(key)
                case Mend(key) | Release(key):
                    assert key not in self.ending, "a range is released once"
                    mend = isinstance(effect, Mend)
                    assert mend == (key in self.doubtful), "what is in doubt is mended, and nothing else"
                    self.ending[key] = mend
                case Fence(follower):
                    assert follower not in self.fencing
                    self.fencing.add(follower)

    def lives(self) -> list[Key]:
        return [key for key in self.asked if key not in self.ending]

    @rule(follower=st.sampled_from(FOLLOWERS))
    def ask(self, follower: str) -> None:
        self.serial += 1
        key = Key(follower, self.serial)
        self.asked[key] = self.nexuses[follower]
        self.take(self.core.step(Ask(key, (follower, self.nexuses[follower]), 0, 8)))

    @rule(data=st.data())
    def taken(self, data: st.DataObject) -> None:
        waiting = [key for key in self.asked if key not in self.granted]
        if waiting:
            self.take(self.core.step(Taken(data.draw(st.sampled_from(waiting)))))

    @rule(data=st.data(), settled=st.booleans(), twice=st.booleans())
    def free(self, data: st.DataObject, settled: bool, twice: bool) -> None:
        if not self.asked:
            return
        key = data.draw(st.sampled_from(sorted(self.asked)))
        if settled and key not in self.ending:
            self.doubtful.discard(key)
        for _ in range(1 + twice):
            self.take(self.core.step(Free(key, settled)))
        assert key in self.ending

    @rule(number=st.integers(1000, 1010))
    def free_what_is_unknown(self, number: int) -> None:
        """A FREE that comes late concerns nobody."""
        assert self.core.step(Free(Key(FOLLOWERS[0], number), True)) == []

    @rule(follower=st.sampled_from(FOLLOWERS))
    def lose(self, follower: str) -> None:
        lost = self.nexuses[follower]
        self.nexuses[follower] += 1
        before = set(self.ending)
        self.take(self.core.step(Lost((follower, lost))))
        for key in set(self.ending) - before:
            assert key not in self.granted, "what was granted is not given to others by a loss alone"
        assert not [
            k for k in self.lives() if k.follower == follower and self.asked[k] <= lost and k not in self.granted
        ]

    @rule(follower=st.sampled_from(FOLLOWERS))
    def fence(self, follower: str) -> None:
        if follower in self.fencing:
            self.fencing.discard(follower)
            self.take(self.core.step(Fenced(follower)))
            assert all(self.asked[k] == self.nexuses[follower] for k in self.lives() if k.follower == follower)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.ending:
            key = data.draw(st.sampled_from(sorted(self.ending)))
            assert self.core.step(Ended(key)) == []
            del self.ending[key], self.asked[key]
            self.granted.discard(key)
            self.doubtful.discard(key)

    @invariant()
    def what_no_nexus_has_is_being_fenced(self) -> None:
        for key in self.lives():
            assert (self.asked[key] == self.nexuses[key.follower]) or key.follower in self.fencing


AgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAgainstModel = AgainstModel.TestCase


def test_every_stage_ends() -> None:
    """From each stage the events that its holder must see to lead to the end."""
    for stage in set(Stage) - {Stage.ENDED}:
        assert STAGES[stage][Event.ENDED] is Stage.ENDED
    assert STAGES.keys() == set(Stage)


@pytest.mark.parametrize(("stage", "event"), list(product(Stage, Event)), ids=lambda one: one.value)
def test_what_is_held_is_never_given_to_others_unmended(stage: Stage, event: Event) -> None:
    """D2: only the follower's own word makes a range that was granted end without a look at the legs."""
    after = STAGES[stage].get(event, stage)
    if stage in (Stage.HELD, Stage.ORPHANED) and after is Stage.ENDING:
        assert event is Event.SETTLED


def test_a_follower_that_holds_too_much_is_told_to_ask_again() -> None:
    core = Holdings()
    for serial in range(MOST_OF_A_FOLLOWER):
        core.step(Ask(Key(FOLLOWERS[0], serial), 1, 0, 1))
    with pytest.raises(Busy):
        core.step(Ask(Key(FOLLOWERS[0], MOST_OF_A_FOLLOWER), 1, 0, 1))
    assert core.step(Ask(Key(FOLLOWERS[1], 0), 2, 0, 1)), "others may"


def test_a_number_names_one_holding() -> None:
    core, key = Holdings(), Key(FOLLOWERS[0], 1)
    core.step(Ask(key, 1, 0, 1))
    with pytest.raises(BlockError):
        core.step(Ask(key, 1, 8, 1))
    assert core.stage(key) is Stage.WAITING
