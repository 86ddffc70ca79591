"""The passthrough changes nothing (R7)."""

from __future__ import annotations

import pytest

from backstores.block import Op, plan
from backstores.transforms.passthrough import Passthrough
from tests.support.trees import make_leaf

LEAF = make_leaf(1, 100)


@pytest.mark.parametrize("op", Op)
def test_a_request_reaches_the_child_as_it_is(op: Op) -> None:
    assert plan(Passthrough(Passthrough(LEAF)), op, 3, 5) == plan(LEAF, op, 3, 5)


def test_it_is_as_large_as_its_child() -> None:
    assert Passthrough(LEAF).blocks == 100
