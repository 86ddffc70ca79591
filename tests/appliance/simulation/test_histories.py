"""Seeded histories of a whole system, with loss, death, sleep and partition: all invariants hold (R9, R10, R12, R28).

``TIERGATE_SEEDS`` says how many seeds are run, and ``python -m appliance.simulation`` prints one that fails, shrunk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from appliance.control.orders import VolumeOrder
from appliance.simulation.history import History, Run, make_history, shrink, told
from appliance.vcm import stages
from appliance.vcm.stages import Step, View

SEEDS = int(os.environ.get("TIERGATE_SEEDS", "24"))
BATCH = 8


@pytest.mark.parametrize("first", range(1, SEEDS + 1, BATCH))
def test_all_holds_in_every_history(first: int) -> None:
    """R9, R10, R12, R28, C1, C2, M5: at every moment, and when all has been quiet for a while."""
    for seed in range(first, min(first + BATCH, SEEDS + 1)):
        verdict = Run(make_history(seed)).go()
        assert not verdict.broken, f"python -m appliance.simulation --first {seed} --seeds 1"


def test_a_seed_replays_exactly() -> None:
    """What fails once fails again, event by event."""
    first, second = (Run(make_history(5, sps=6)).go() for _ in range(2))
    assert first == second
    assert len(first.transcript) > 50


def unheld(view: View) -> Iterator[tuple[str, VolumeOrder]]:
    """Hold nobody, as must not be."""
    yield from ()


def test_the_invariants_are_broken_by_a_vcm_that_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """R28, D3: while one goes on with the old tree, another has the new one. What fails is shrunk, and told."""
    monkeypatch.setattr(stages, "RULES", {**stages.RULES, Step.HOLD_FOLLOWERS: unheld, Step.HOLD_OTHERS: unheld})
    monkeypatch.setattr(stages, "BEFORE_CHANGE", {})
    history = next(history for history in map(small, range(1, 20)) if Run(history).go().broken)
    shrunk = shrink(history)
    assert 0 < len(shrunk.events) < len(history.events)
    assert "BROKEN" in told(Run(shrunk).go())[-1]


def small(seed: int) -> History:
    """Make a history of a small system."""
    return make_history(seed, sps=4)
