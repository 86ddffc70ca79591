"""What LIO needs of the machine, and the choice between the front ends: a line that says what is missing."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.front_end import Choice, choose
from appliance.lio import machine
from appliance.lio.machine import LioMissing, prepare
from backstores.errors import UsageError


class Release:
    """As much of ``os.uname`` as is looked at."""

    def __init__(self, release: str) -> None:
        self.release = release


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which all is there: LIO's folder is the result."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "uname", lambda: Release("6.1.0-40-amd64"))
    monkeypatch.setattr(machine, "MODULES", ())
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    (tmp_path / "dbroot").write_text(f"{tmp_path}/databases\n")
    return tmp_path


def test_a_machine_on_which_all_is_there(ready: Path) -> None:
    """R31: the iSCSI fabric's folder is made once, and may be there already; so is that of reservations."""
    prepare(ready)
    prepare(ready)
    assert (ready / "iscsi").is_dir()
    assert (ready / "databases" / "pr").is_dir(), "without it the kernel refuses every PERSISTENT RESERVE OUT"


def test_a_folder_of_reservations_that_can_not_be_made_is_told(ready: Path) -> None:
    """R31: as on a system whose disk is read-only."""
    (ready / "databases").write_text("no folder")
    with pytest.raises(LioMissing, match=r"reservations in .*/databases/pr, which can't be made: Not a directory"):
        prepare(ready)


def test_root_is_needed(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LioMissing, match="needs root, and this is user id 1000: type `sudo tiergate serve`"):
        prepare(ready)


@pytest.mark.parametrize("release", ["5.10.0-30-amd64", "5.19", "4.18.0-553.el8.x86_64"])
def test_an_old_kernel_is_told_by_its_release(ready: Path, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: Release(release))
    with pytest.raises(LioMissing, match=f"needs Linux 6.0 or later, and this is {release}"):
        prepare(ready)


@pytest.mark.parametrize("release", ["6.0", "6.1.176", "7.2-rc1", "10.0.1+deb"])
def test_a_kernel_that_is_new_enough(ready: Path, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: Release(release))
    prepare(ready)


def test_a_module_that_is_not_there(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MODULES", ("target_core_nothing",))
    with pytest.raises(LioMissing, match=r"no module target_core_nothing.*type `modprobe target_core_nothing`"):
        prepare(ready)


def test_configfs_is_mounted_where_it_is_not(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, len(ran) - 1, "", "mount: not\nallowed")

    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    monkeypatch.setattr(subprocess, "run", run)
    prepare(ready)
    assert ran == [["mount", "-t", "configfs", "configfs", "/sys/kernel/config"]]
    with pytest.raises(LioMissing, match=r"not mounted .*type `mount -t configfs .*` \(mount: not allowed\)"):
        prepare(ready)


def fail() -> None:
    raise UsageError("there is no LIO: type `modprobe lio`")


def succeed() -> None:
    pass


@pytest.mark.parametrize(
    ("choice", "prepare_it", "lio", "why"),
    [
        (Choice.AUTO, succeed, True, "root, its modules and configfs are there"),
        (Choice.AUTO, fail, False, "there is no LIO: type `modprobe lio`"),
        (Choice.LIO, succeed, True, "as --frontend says"),
        (Choice.EMBEDDED, fail, False, "as --frontend says"),
    ],
    ids=["auto with LIO", "auto without", "lio", "embedded looks for nothing"],
)
def test_the_choice_and_its_reason(choice: Choice, prepare_it: Callable[[], None], lio: bool, why: str) -> None:
    """R31, R32: one line says which was taken, and why."""
    chosen = asyncio.run(choose(choice, prepare_it))
    assert (chosen.lio, chosen.why) == (lio, why)


def test_lio_that_was_asked_for_and_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="type `modprobe lio`"):
        asyncio.run(choose(Choice.LIO, fail))
