"""Histories: made from a seed, run, and, should one fail, shrunk to what matters."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from appliance.control.reports import LegsLost
from appliance.control.requests import CreateVolume, DeleteVolume, ReplaceVolume, Request, SetLocation
from appliance.simulation.invariants import after_quiet, at_every_moment, built_whole
from appliance.simulation.plant import Builder, make_site, shown_by
from appliance.simulation.system import QUIET, Conditions, System
from appliance.vcm.placement import serving
from backstores.objects import AnyObject, MirrorObject, VolumeObject
from backstores.wwn import Wwn

START_S: Final = 5.0
QUIET_S: Final = 75.0
"""Long enough for what was silent to be ended, and for every request to run into its deadline."""

LAYOUTS: Final = {"linear": 1, "concat": 2, "stripe": 2, "mirror": 2, "stripe-mirror": 4}
STORMS: Final = (
    QUIET,
    Conditions(loss=0.02, delay_s=(0.001, 0.05), work_s=(0.001, 0.05)),
    Conditions(loss=0.1, delay_s=(0.001, 0.3), work_s=(0.001, 0.5)),
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens in a history. ``pick`` chooses what it happens to, among what there is then."""

    at_s: float
    what: str
    pick: float = 0.0
    for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """What happens, and to which system. ``seed`` is that of the network."""

    seed: int
    sps: int
    alus: int
    storm: Conditions
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a history. ``broken`` is empty if all held."""

    broken: str
    transcript: tuple[tuple[float, str], ...]
    messages: int


Doing = Callable[["Run", Event], None]


class Run:
    """A history on its way."""

    def __init__(self, history: History) -> None:
        site, shelf = make_site(history.sps, history.alus)
        self.history = history
        self.shelf = shelf
        self.system = System(site, shelf, history.seed, at_every_moment, built_whole)
        self.builder = Builder()
        assert self.system.mic is not None
        self.system.mic.attached = list(shelf.alus)

    def go(self) -> Verdict:
        """Run it; whatever goes wrong is the verdict."""
        system = self.system
        try:
            system.start_all()
            system.run(START_S)
            system.conditions = self.history.storm
            for event in self.history.events:
                system.clock.after(event.at_s, partial(DOINGS[event.what], self, event))
            system.run(max((event.at_s for event in self.history.events), default=0.0) + 1.0)
            system.conditions = QUIET
            system.note("all is quiet")
            system.run(QUIET_S)
            after_quiet(system)
            broken = ""
        except (AssertionError, KeyError) as error:
            broken = f"{type(error).__name__}: {error}"
            system.note(f"BROKEN: {error}")
        return Verdict(broken, tuple(system.log), system.messages)

    def pick_sp(self, event: Event) -> str:
        """Choose a storage processor."""
        names = self.system.site.sps
        return names[int(event.pick * len(names))]

    def pick_volume(self, event: Event) -> tuple[AnyObject, ...] | None:
        """Choose a volume that is stored, and that nobody is changing: the MIC lets changes of a volume queue."""
        assert self.system.mic is not None
        asked = [self.system.mic.asked[number] for number in self.system.mic.pending]
        busy = {_concerned(request) for request in asked}
        trees = [(wwn, tree) for wwn, tree in sorted(self.shelf.trees().items()) if wwn not in busy]
        return trees[int(event.pick * len(trees))][1] if trees else None

    def locate(self, volume: Wwn, rng: random.Random) -> None:
        """Have a volume shown through up to three storage processors."""
        assert self.system.mic is not None
        sps = rng.sample(self.system.site.sps, rng.randint(0, min(3, len(self.system.site.sps))))
        self.system.mic.shows[volume] = shown_by(volume, sps)
        self.system.ask(SetLocation(volume=volume, show=self.system.mic.shows[volume]))


def _concerned(request: Request) -> Wwn | None:
    """Say which volume a request changes."""
    match request:
        case CreateVolume(objects=objects) | ReplaceVolume(objects=objects):
            return objects[0].wwn
        case DeleteVolume(volume=volume):
            return volume
        case _:
            return None


# What may happen


def _create(run: Run, event: Event) -> None:
    rng = random.Random(event.pick)
    alus = list(run.shelf.by_wwn)
    layout = rng.choice([name for name, count in LAYOUTS.items() if count <= len(alus)])
    objects = run.builder.volume(layout, rng.sample(alus, LAYOUTS[layout]))
    run.system.ask(CreateVolume(objects=objects))
    run.locate(objects[0].wwn, rng)


def _delete(run: Run, event: Event) -> None:
    objects = run.pick_volume(event)
    if objects is not None:
        run.system.ask(DeleteVolume(volume=objects[0].wwn))


def _replace(run: Run, event: Event) -> None:
    objects = run.pick_volume(event)
    if objects is not None:
        head = objects[0]
        assert isinstance(head, VolumeObject)
        run.system.ask(ReplaceVolume(objects=(grown(head), *objects[1:])))


def grown(head: VolumeObject) -> VolumeObject:
    """Give the next generation of a volume object."""
    return VolumeObject(
        wwn=head.wwn,
        generation=head.generation + 1,
        name=head.name,
        root=head.root,
        layout=head.layout,
        block_bytes=head.block_bytes,
        blocks=head.blocks,
        created=head.created,
    )


def _show(run: Run, event: Event) -> None:
    objects = run.pick_volume(event)
    if objects is not None:
        run.locate(objects[0].wwn, random.Random(event.pick))


def _lose_legs(run: Run, event: Event) -> None:
    """One leg fails for everybody who serves the volume, each notices it by itself."""
    objects = run.pick_volume(event)
    mirrors = [obj for obj in objects or () if isinstance(obj, MirrorObject)]
    for mirror in mirrors[:1]:
        alive = [leg.child for leg in mirror.legs if leg.child in {part.wwn for part in serving(objects or ())}]
        if len(alive) > 1:
            report = LegsLost(volume=mirror.volume, generation=0, legs=(alive[-1],))
            run.system.note(f"leg {alive[-1][-4:]} fails")
            for number, name in enumerate(run.system.site.sps):
                run.system.clock.after(0.01 * number, partial(run.system.lose_legs, name, report))


DOINGS: Final[dict[str, Doing]] = {
    "create": _create,
    "delete": _delete,
    "replace": _replace,
    "show": _show,
    "lose legs": _lose_legs,
    "kill sp": lambda run, event: run.system.kill_sp(run.pick_sp(event)),
    "sleep": lambda run, event: run.system.sleep_sp(run.pick_sp(event), event.for_s),
    "cut off": lambda run, event: run.system.cut(run.pick_sp(event), event.for_s),
    "kill vcm": lambda run, event: run.system.kill_vcm(),
    "kill mic": lambda run, event: run.system.kill_mic(),
}

WEIGHTS: Final = {
    "create": 6,
    "delete": 2,
    "replace": 3,
    "show": 4,
    "lose legs": 2,
    "kill sp": 4,
    "sleep": 3,
    "cut off": 3,
    "kill vcm": 1,
    "kill mic": 1,
}

LENGTHS_S: Final = (0.5, 3.0, 6.0, 15.0)
"""How long a storage processor sleeps, or is cut off: unnoticed, silent, and long enough to be ended."""


def make_history(seed: int, sps: int = 20, events: int = 25) -> History:
    """Make a history from a seed."""
    rng = random.Random(seed)
    what = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=events)
    at_s = sorted(rng.uniform(0, 30) for _ in range(events))
    made = tuple(Event(at, name, rng.random(), rng.choice(LENGTHS_S)) for at, name in zip(at_s, what, strict=True))
    sps = rng.randint(2, sps)
    return History(seed, sps, rng.randint(2, 2 * sps), rng.choice(STORMS), made)


def shrink(history: History) -> History:
    """Leave out what does not matter for its failure."""
    kind = _kind(Run(history).go().broken)
    assert kind, "it does not fail"
    at = 0
    while at < len(history.events):
        less = replace(history, events=history.events[:at] + history.events[at + 1 :])
        if _kind(Run(less).go().broken) == kind:
            history = less
        else:
            at += 1
    return history


def _kind(broken: str) -> str:
    """Tell what sort of failure it is, without the names in it."""
    return re.sub(r"\w*\d\w*|\W", " ", broken)[:40]


def told(verdict: Verdict) -> Sequence[str]:
    """Give the transcript of a history, a line an event."""
    return [f"{at_s:9.3f}  {text}" for at_s, text in verdict.transcript]
