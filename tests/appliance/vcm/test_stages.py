"""Stage after stage, what runs becomes what should run (R10, R12, R16, R18, R28)."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from appliance.control.orders import HoldVolume, ResumeVolume
from appliance.control.values import Access, Grant, InstanceState, Role, Show, likeness
from appliance.simulation.plant import Builder, alu_wwn
from appliance.vcm.placement import Placement, Plant, place
from appliance.vcm.stages import RULES, Step, View, next_stage
from appliance.vcm.volume import APPLY, Volume

SPS = ("sp1", "sp2", "sp3", "sp4")
ALUS = [alu_wwn(number) for number in range(4)]
LAYOUTS = {"linear": 1, "stripe": 2, "mirror": 2, "stripe-mirror": 4}
MOST_STAGES = 40


class Bench:
    """One volume, whose orders are all carried out."""

    def __init__(self, layout: str) -> None:
        self.objects = Builder().volume(layout, ALUS[: LAYOUTS[layout]])
        self.volume = Volume(self.objects[0].wwn)
        self.placement: Placement | None = None
        self.show = Show()
        self.granted: set[tuple[str, str]] = set()
        self.incarnation = 1

    def want(self, facing: Sequence[str], openers: Sequence[str]) -> None:
        """Want it placed like this."""
        plant = Plant(dict(zip(ALUS, openers, strict=True)).get, lambda sp: self.incarnation)
        found = place(self.objects, facing, plant)
        assert isinstance(found, Placement)
        self.placement = found

    def grant(self, initiator: str, target: str) -> Grant:
        """Give a secret, which is known from now on."""
        self.granted.add((initiator, target))
        return Grant(initiator, "secret")

    def view(self, *, holding: bool = False) -> View:
        """See the volume as the rules do."""
        volume = self.volume
        return View(
            volume=volume.wwn,
            objects=self.objects,
            generation=1,
            placement=self.placement,
            t1=volume.t1,
            t2=volume.t2,
            linked=frozenset(volume.linked),
            holding=holding,
            create=False,
            show=lambda sp: self.show,
            access=lambda initiator, target: Access(target, (), self.grant(initiator, target).secret),
            grant=self.grant,
            granted=lambda initiator, target: (initiator, target) in self.granted,
        )

    def stage(self, *, holding: bool = False) -> Step | None:
        """Carry the next stage out; None if there is none."""
        stage = next_stage(self.view(holding=holding))
        if stage is None:
            return None
        step, orders = stage
        for sp, order in orders:
            self.volume.apply(sp, order)
        return step

    def settle(self) -> list[Step]:
        """Carry out all stages."""
        steps: list[Step] = []
        while (step := self.stage()) is not None:
            steps.append(step)
            assert len(steps) < MOST_STAGES, steps
        return steps

    def is_as_wanted(self) -> bool:
        """Whether what runs is what should run, all of it, and nothing else."""
        wanted = self.placement
        t1 = {sp: set(runs.objects) for sp, runs in self.volume.t1.items()}
        t2 = {sp: (runs.likeness, runs.role, runs.state) for sp, runs in self.volume.t2.items()}
        if wanted is None:
            return not t1 and not t2
        shown = {sp: set(runs.shown_to) for sp, runs in self.volume.t1.items()}
        return (
            t1 == {sp: set(parts) for sp, parts in wanted.t1.items()}
            and t2 == {sp: (part.likeness, part.role, InstanceState.ON_LINE) for sp, part in wanted.t2.items()}
            and shown == {sp: set(wanted.referrers(sp)) for sp in wanted.t1}
            and all(runs.shown == likeness(self.show) for runs in self.volume.t2.values())
        )


def test_initialization_takes_the_steps_of_the_description() -> None:
    """R10: steps 522 to 542."""
    bench = Bench("stripe-mirror")
    bench.want(["sp2", "sp3"], ["sp1", "sp1", "sp2", "sp3"])
    assert bench.settle() == [
        Step.MAKE_T1,
        Step.EXPOSE,
        Step.DISCOVER,
        Step.MAKE_LEAD,
        Step.MAKE_FOLLOWERS,
        Step.GO_ON_LINE,
    ]
    assert bench.is_as_wanted()


def test_a_second_storage_processor_is_added_under_io() -> None:
    """R16, D4: the one that served alone is held, becomes the lead or a follower, and goes on."""
    bench = Bench("mirror")
    bench.want(["sp2"], ["sp1", "sp3", "sp3", "sp3"])
    bench.settle()
    bench.want(["sp2", "sp4"], ["sp1", "sp3", "sp3", "sp3"])
    assert bench.settle() == [
        Step.HOLD_OTHERS,
        Step.EXPOSE,
        Step.DISCOVER,
        Step.MAKE_LEAD,
        Step.MAKE_FOLLOWERS,
        Step.RESUME_FOLLOWERS,
        Step.GO_ON_LINE,
    ]
    assert bench.is_as_wanted()


def test_removal_disables_the_lun_maps_first_and_ends_with_what_nothing_refers_to() -> None:
    """R18, Fig. 9D."""
    bench = Bench("mirror")
    bench.want(["sp2", "sp4"], ["sp1", "sp3", "sp3", "sp3"])
    bench.settle()
    bench.placement = None
    assert bench.settle() == [Step.TAKE_OFF_LINE, Step.REMOVE_T2, Step.TRIM_T1]
    assert bench.is_as_wanted()


def test_followers_are_held_before_the_lead_and_go_on_after_it() -> None:
    """R28: a follower's write ends only with the lead's help."""
    bench = Bench("mirror")
    bench.want(["sp2", "sp4"], ["sp1", "sp3", "sp3", "sp3"])
    bench.settle()
    assert [bench.stage(holding=True) for _ in range(3)] == [Step.HOLD_FOLLOWERS, Step.HOLD_OTHERS, None]
    assert {runs.state for runs in bench.volume.t2.values()} == {InstanceState.HELD}
    assert bench.settle() == [Step.RESUME_OTHERS, Step.RESUME_FOLLOWERS]
    assert bench.is_as_wanted()


def test_a_first_tier_that_was_started_again_is_found_again() -> None:
    """R10: the others hold their writes until it is back."""
    bench = Bench("mirror")
    bench.want(["sp2"], ["sp1", "sp3", "sp3", "sp3"])
    bench.settle()
    bench.volume.forget("sp1")
    bench.incarnation = 2
    bench.want(["sp2"], ["sp1", "sp3", "sp3", "sp3"])
    steps = bench.settle()
    assert steps[0] is Step.HOLD_OTHERS
    assert {Step.MAKE_T1, Step.EXPOSE, Step.DISCOVER} < set(steps)
    assert bench.is_as_wanted()


def test_what_is_right_is_left_alone() -> None:
    """R10: a VCM that has started anew touches nothing that is as it should be."""
    bench = Bench("stripe-mirror")
    bench.want(["sp2", "sp3"], ["sp1", "sp1", "sp2", "sp3"])
    bench.settle()
    bench.volume.linked.clear()
    bench.granted.clear()
    assert bench.settle() == []


placements = st.tuples(
    st.lists(st.sampled_from(SPS), unique=True, max_size=3), st.lists(st.sampled_from(SPS), min_size=4, max_size=4)
)


@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    wanted=st.lists(st.none() | placements, min_size=1, max_size=4),
    stop_after=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    lost=st.sampled_from([None, *SPS]),
)
def test_whatever_was_left_half_done_ends_as_wanted(
    layout: str, wanted: list[tuple[list[str], list[str]] | None], stop_after: list[int], lost: str | None
) -> None:
    """R10, R16, R18: what is wanted changes in the middle, a storage processor dies; the end is the same."""
    bench = Bench(layout)
    openers = [one[1] for one in wanted if one is not None]
    for number, one in enumerate(wanted):
        if one is None:
            bench.placement = None
        else:
            bench.want(one[0], openers[0])  # an ALU stays where it is open
        for _ in range(stop_after[number]):
            bench.stage()
            writers = [runs for runs in bench.volume.t2.values() if runs.state is InstanceState.ON_LINE]
            assert sum(runs.role in (Role.ALONE, Role.LEAD) for runs in writers) <= 1
    if lost is not None:
        bench.volume.forget(lost)
    bench.settle()
    assert bench.is_as_wanted()


def test_every_order_to_a_volume_is_taken_note_of() -> None:
    assert {HoldVolume, ResumeVolume} < set(APPLY)
    assert set(RULES) | {Step.CHANGE} == set(Step)
