"""The appliance as a service: what systemd is told, and the unit that starts it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance, need

UNIT = Path(__file__).parents[2] / "packaging" / "tiergate.service"


def test_systemd_is_told_of_the_start_and_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R31: ``Type=notify`` waits for READY=1, which comes when hosts are let in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with appliance(tmp_path / "run") as running:
            assert manager.recv(100) == b"READY=1"
            assert running.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"


@need("systemd-analyze")
def test_the_unit_is_understood(tmp_path: Path) -> None:
    """An unknown setting, or one in the wrong section, is found."""
    text = UNIT.read_text()
    (tmp_path / UNIT.name).write_text(text.replace("/usr/bin/tiergate", str(shutil.which("true"))))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "tiergate" in line]) == (0, [])


def test_the_front_end_that_was_asked_for_is_named(tmp_path: Path) -> None:
    """R32: one line says which serves, and why."""
    with appliance(tmp_path / "run", "--frontend", "embedded") as running:
        assert "front end: the embedded portal (as --frontend says)" in running.log


def test_an_unknown_front_end_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"invalid choice: 'scst'.*auto.*lio.*embedded"):
        Appliance(tmp_path).start("--frontend", "scst")
