"""The guest harness itself: what a test relies on when it says ``guest``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.guest.conftest import PYTEST
from tests.guest.inside import TARGET, Guest
from tests.guest.kernel import KERNELS, run

KERNEL = KERNELS["uml"]
needs_kernel = pytest.mark.skipif(KERNEL.missing() is not None, reason=f"not installed: {KERNEL.missing()}")
MARK = Path("/var/tmp/tiergate-written-by-a-guest")


@pytest.mark.guest(modules=["target_core_user"])
def test_a_guest_is_a_kernel_of_its_own_with_the_modules_asked_for(guest: Guest) -> None:
    assert TARGET.is_dir()
    assert "target_core_user" in guest.sh("cat /proc/modules")
    assert Path("/proc/1/cmdline").read_bytes().split(b"\0")[1].endswith(b"init.py")


@pytest.mark.guest(races=True)
def test_races_are_run_where_two_processors_can_race() -> None:
    """R31: the usual kernel has one; QEMU's, on which tests with ``races`` run as well, has two."""
    assert os.cpu_count() == {"uml": 1, "qemu": 2}[os.environ["TIERGATE_GUEST"]]


@pytest.mark.guest
@pytest.mark.parametrize("text", ["two words", "a/b"], ids=["two-words", "slash"])
def test_parameters_and_fixtures_reach_the_guest(text: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(text)
    assert (tmp_path / "said").read_text() == text


@needs_kernel
@pytest.mark.slow
def test_a_guest_leaves_nothing_on_the_host() -> None:
    lines: list[str] = []
    command = ("sh", "-c", f"echo secret > {MARK} && cat {MARK}")
    outcome = run(KERNEL, command, (), 60, lambda group, line: lines.append(line))
    assert outcome.status == 0
    assert "secret" in lines
    assert "secret" in outcome.console
    assert not MARK.exists()


@needs_kernel
@pytest.mark.slow
def test_a_guest_past_its_deadline_is_ended_with_all_its_processes() -> None:
    outcome = run(KERNEL, ("sh", "-c", "cat /proc/cmdline; sleep 600"), (), 4)
    assert outcome.status is None
    assert "did not end within 4 s" in outcome.console
    job = next(word for word in outcome.console.split() if word.startswith("TIERGATE_JOB="))
    assert job not in subprocess.run(["ps", "-ef", "-ww"], capture_output=True, text=True, check=True).stdout


@needs_kernel
@pytest.mark.slow
def test_a_failing_assert_in_a_guest_is_shown_in_full(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    name = 'guest'\n    assert name == 'host'\n")
    outcome = run(KERNEL, (*PYTEST, str(tmp_path / "test_wrong.py")), (), 60)
    assert outcome.status == 1
    assert "AssertionError: assert 'guest' == 'host'" in outcome.console
    assert "the guest kernel's last messages:" in outcome.console
