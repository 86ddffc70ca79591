"""libiscsi's conformance tests once more, against the whole appliance: a stripe over mirrors on files, two URLs."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.conformance.test_iscsi_test_cu import SUITES, outcomes
from tests.support.appliance import Appliance, appliance, need

pytestmark = [need("iscsi-test-cu"), pytest.mark.slow]

NOT_REMOVABLE = frozenset({"PreventAllow", "StartStopUnit", "NoMedia"})
"""Suites whose tests want a removable unit, which a volume is not."""

# It asks for the status of block n + 1 and expects the answer for block n + 8: only where a physical block is one
# logical block is that the same. GET LBA STATUS answers for the block that was asked for (SBC-3 clause 5.4).
FAULTY_TESTS = frozenset({"UnmapSingle"})
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with one thin volume of 512-byte blocks over 4 KiB physical ones."""
    with appliance(tmp_path_factory.mktemp("conformance") / "a") as found:
        found.make_volume("v", size="96M")
        yield found


@pytest.mark.parametrize("suite", [suite for suite, passed in SUITES.items() if passed])
def test_a_suite_on_a_real_volume(running: Appliance, suite: str) -> None:
    """R32, R33: what passes on a device in memory passes through transforms, engine and files, too."""
    tool, url = shutil.which("iscsi-test-cu"), running.url("v")
    assert tool is not None
    run = subprocess.run(
        [tool, "-d", "-g", "-V", "-v", "-t", f"ALL.{suite}", url, url],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    found = outcomes(run.stdout)
    failed = {name for name, outcome in found.items() if outcome == "failed"} - FAULTY_TESTS
    assert not failed, run.stdout[-4000:]
    if suite not in NOT_REMOVABLE:
        assert Counter(found.values())["passed"] == SUITES[suite] - len(FAULTY_TESTS & found.keys()), found
