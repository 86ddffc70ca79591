"""The GS set of a real appliance: ALUs go and come back, and commands say what can be done (R4, R30, R34)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance

NAMES = ("a0", "a1", "a2")


def furnish(running: Appliance) -> None:
    """Attach three ALUs, and make a volume on the first."""
    for name in NAMES:
        running.say("/alus", "attach", f"path={running.folder / name}.img", "size=64M")
    running.say("/volumes", "create", "name=v", "size=8M", "alus=a0")


def move(folder: Path, names: Sequence[str], away: bool) -> None:
    for name in names:
        here, there = folder / f"{name}.img", folder / f"{name}.away"
        (here if away else there).rename(there if away else here)


def test_the_set_is_shown_and_survives_a_minority_that_is_away(tmp_path: Path) -> None:
    with appliance(tmp_path) as running:
        furnish(running)
        assert [alu["gs"] for alu in running.say("/alus", "list")] == ["member"] * 3
        before = running.say("/gs", "status")
        assert (before["state"], len(before["members"])) == ("ready", 3)
        running.stop()
        move(tmp_path, ["a2"], away=True)
        running.start()
        after = running.say("/gs", "status")
        assert after["state"] == "ready"
        assert after["epoch"] > before["epoch"]
        running.say("/volumes", "create", "name=w", "size=8M", "alus=a1")


def test_below_a_majority_volumes_serve_and_changes_wait_for_a_member(tmp_path: Path) -> None:
    """M4: the one line says who is missing; the member returns, and a scan finds it."""
    with appliance(tmp_path) as running:
        furnish(running)
        running.kill()
        move(tmp_path, ["a1", "a2"], away=True)
        running.start()
        refused = running.run("/volumes", "create", "name=w", "size=8M", "alus=a0")
        assert refused.returncode != 0
        assert "read only, data goes on" in refused.stderr
        assert f"{tmp_path}/a1.img" in refused.stderr
        assert len([line for line in refused.stderr.splitlines() if "error" in line]) == 1
        assert running.say("/volumes", "list")[0]["state"] == "on line"
        assert running.say("/sps", "status")[0]["gs"] == "read only"
        move(tmp_path, ["a1"], away=False)
        running.say("/alus", "scan")
        assert running.say("/gs", "status")["state"] == "ready"
        running.say("/volumes", "create", "name=w", "size=8M", "alus=a0")


@pytest.mark.slow
def test_members_whose_files_are_cut_off_while_it_runs(tmp_path: Path) -> None:
    """M4: the look at the members finds that they can't be read; a person decides to go on with what is left."""
    with appliance(tmp_path) as running:
        furnish(running)
        (tmp_path / "a2.img").open("r+b").truncate(0)
        running.say("/volumes", "create", "name=w", "size=8M", "alus=a0")
        (tmp_path / "a1.img").open("r+b").truncate(0)
        refused = running.run("/volumes", "create", "name=x", "size=8M", "alus=a0")
        assert "read only, data goes on" in refused.stderr
        assert running.run("/gs", "reform").returncode != 0
        running.say("/gs", "reform", "force=yes")
        assert [member["alu"] for member in running.say("/gs", "status")["members"]] == ["a0"]
        running.say("/volumes", "create", "name=x", "size=8M", "alus=a0")


def test_what_is_known_of_a_legacy_alu_survives_a_crash_and_a_lost_member(tmp_path: Path) -> None:
    """R5: it lies on the members; the last ALU that could hold it is not let go."""
    old = tmp_path / "old.img"
    old.write_bytes(b"somebody's data " * 65536)
    with appliance(tmp_path) as running:
        furnish(running)
        running.say("/alus", "attach", f"path={old}", "legacy=yes")
        running.say("/volumes", "create", "name=w", "layout=legacy", "alus=old")
        running.kill()
        move(tmp_path, ["a2"], away=True)
        running.start()
        volumes = {volume["name"]: volume["state"] for volume in running.say("/volumes", "list")}
        assert volumes == {"v": "on line", "w": "on line"}
    assert old.read_bytes() == b"somebody's data " * 65536
