"""libiscsi's conformance tests against a portal on loopback, suite by suite (R32, R33).

The unit is what opens most of its tests: thin, removable, with 4 KiB physical blocks, and reached by two paths.
A test that the tool skips is neither passed nor failed, though the tool's own summary counts it as passed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from backstores.device import MemoryDevice
from backstores.scsi.target import Exposed
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.params import cases
from tests.support.scsi import WWN
from tests.support.serving import served

TOOL = shutil.which("iscsi-test-cu")
SUITES = {
    "CompareAndWrite": 5,
    "ExtendedCopy": 0,  # third-party copy is not supported
    "GetLBAStatus": 3,
    "Inquiry": 7,
    "Mandatory": 1,
    "ModeSense6": 5,
    "NoMedia": 1,
    "OrWrite": 6,
    "Prefetch10": 4,
    "Prefetch16": 4,
    "PreventAllow": 8,
    "PrinReadKeys": 2,
    "PrinServiceactionRange": 1,
    "PrinReportCapabilities": 1,
    "ProutRegister": 1,
    "ProutReserve": 13,
    "ProutClear": 1,
    "ProutPreempt": 1,
    "Read6": 2,
    "Read10": 6,
    "Read12": 5,
    "Read16": 5,
    "ReadCapacity10": 1,
    "ReadCapacity16": 4,
    "ReadDefectData10": 0,  # there is no list of defects
    "ReadDefectData12": 0,
    "ReadOnly": 0,  # wants a write-protected unit
    "ReceiveCopyResults": 0,
    "ReportSupportedOpcodes": 4,
    "Reserve6": 7,
    "Sanitize": 0,
    "StartStopUnit": 3,
    "TestUnitReady": 1,
    "Unmap": 3,
    "Verify10": 8,
    "Verify12": 8,
    "Verify16": 8,
    "Write10": 6,
    "Write12": 5,
    "Write16": 5,
    "WriteAtomic16": 0,
    "WriteSame10": 9,
    "WriteSame16": 9,
    "WriteVerify10": 6,
    "WriteVerify12": 6,
    "WriteVerify16": 6,
    "iSCSIcmdsn": 2,
    "iSCSIdatasn": 1,
    "iSCSIResiduals": 10,
    "iSCSITMF": 2,
    "MultipathIO": 4,
}
"""How many tests of each suite pass."""

WAITING = ("Reserve6", "iSCSIcmdsn")
"""Suites in which the tool waits for answers that must not come."""

GOAL = 185
CAPACITY_BYTES = 8 << 20
TIMEOUT_S = 60

# GetLBAStatus.UnmapSingle asks for the block behind an unmapped range by "+ 1", and expects it a physical block
# further: the two agree only where a physical block is one logical block.
BLOCK_BYTES = {"GetLBAStatus": 4096}

pytestmark = pytest.mark.skipif(TOOL is None, reason="iscsi-test-cu (package libiscsi-bin) is not installed")


@pytest.fixture(params=cases({suite: suite for suite in SUITES}, slow=WAITING))
def suite(request: pytest.FixtureRequest) -> str:
    """Each suite in turn."""
    name = request.param
    assert isinstance(name, str)
    return name


@pytest.fixture
def url(suite: str) -> Iterator[str]:
    """Serve a fresh unit for each suite, so that none stands on what another has left."""
    block_bytes = BLOCK_BYTES.get(suite, 512)
    device = MemoryDevice(CAPACITY_BYTES // block_bytes, block_bytes)
    with served({0: Exposed(LogicalUnit(device, Identity(WWN), removable=True))}) as base:
        yield f"{base}/0"


def outcomes(output: str) -> dict[str, str]:
    """Read what became of each test: passed, failed or skipped."""
    found = {}
    for report in re.split(r"^  Test: ", output, flags=re.MULTILINE)[1:]:
        report = report.partition("Run Summary")[0]
        name, _, text = report.partition(" ...")
        if "[SKIPPED]" in text:
            found[name] = "skipped"
        else:
            # CUnit's verdict stands at the start of a line, or right behind the name where a test prints nothing.
            found[name] = "passed" if re.search(r"^(\s*)passed", text, flags=re.MULTILINE) else "failed"
    return found


def test_a_suite(suite: str, url: str) -> None:
    """R32: no test fails, and as many pass as ever did."""
    assert TOOL is not None
    command = [TOOL, "-d", "-g", "-V", "-v", "-t", f"ALL.{suite}", url, url]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    found = outcomes(run.stdout)
    assert found, run.stderr
    failed = [name for name, outcome in found.items() if outcome == "failed"]
    assert not failed, run.stdout[-4000:]
    assert Counter(found.values())["passed"] == SUITES[suite], found


def test_the_goal() -> None:
    """The suites together reach the goal: 185 of 230 tests."""
    assert sum(SUITES.values()) >= GOAL
