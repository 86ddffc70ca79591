"""Who becomes the MVSP (R9, R10: most ALUs, then load, then redundant paths, then the name)."""

from __future__ import annotations

from itertools import permutations

import pytest

from appliance.vcm.election import Candidate, elect

ORDERS = {
    "most alus": [Candidate("b", 3, 0.9, 1), Candidate("a", 2, 0.0, 2)],
    "then the least load": [Candidate("b", 2, 0.1, 1), Candidate("a", 2, 0.2, 2)],
    "then the most paths": [Candidate("b", 2, 0.1, 2), Candidate("a", 2, 0.1, 1)],
    "then the name": [Candidate("a", 2, 0.1, 2), Candidate("b", 2, 0.1, 2), Candidate("c", 2, 0.1, 2)],
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_first_is_elected_in_whatever_order_they_stand(name: str) -> None:
    """R10, step 508."""
    best = ORDERS[name][0]
    assert all(elect(order) == best for order in permutations(ORDERS[name]))


def test_nobody_is_elected_among_nobody() -> None:
    assert elect([]) is None
