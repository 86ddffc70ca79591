"""Disks whose data must not be touched, from the command line to a host and back (R5)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance, need, tool
from tests.support.engines import noise

pytestmark = need("qemu-img", "qemu-io")

SIZE = (2 << 20) + 3 * 512


def served(running: Appliance, old: Path, layout: str) -> str:
    """Attach a file as it is, and let anybody see it; give its URL."""
    running.say("/alus", "attach", f"path={running.folder}/own.img", "size=64M", "name=own")
    running.say("/alus", "attach", f"path={old}", "name=old", "legacy=yes")
    running.say("/volumes", "create", "name=archive", f"layout={layout}", "alus=old")
    running.say("/hosts", "create", "name=any", "iqn=*")
    running.say("/volumes/archive", "expose", "host=any")
    return running.url("archive")


@pytest.mark.parametrize("layout", ["legacy", "direct"])
def test_a_file_with_data_is_shown_as_it_is_and_written_by_its_host_alone(tmp_path: Path, layout: str) -> None:
    """R5: over a kill -9 and a clean stop, until it is let go."""
    old = tmp_path / "old.img"
    old.write_bytes(noise(SIZE))
    (tmp_path / "copy.img").write_bytes(noise(SIZE))
    with appliance(tmp_path / "a") as running:
        url = served(running, old, layout)
        tool("qemu-img", "compare", "-f", "raw", "-F", "raw", url, tmp_path / "copy.img")
        assert old.read_bytes() == noise(SIZE)
        tool("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 512", "-c", "flush", url)
        running.kill()
        running.start()
        tool("qemu-io", "-f", "raw", "-c", "read -P 0x5a 1M 512", "-c", f"write -P 0xa5 {SIZE - 512} 512", url)
        assert running.stop() == 0
        running.start()
        tool("qemu-io", "-f", "raw", "-c", f"read -P 0xa5 {SIZE - 512} 512", url)
        running.say("/volumes/archive", "delete", "force=yes")
        running.say("/alus/old", "detach")
    expected = bytearray(noise(SIZE))
    expected[1 << 20 : (1 << 20) + 512] = b"\x5a" * 512
    expected[-512:] = b"\xa5" * 512
    assert old.read_bytes() == expected


def test_another_file_at_its_path_is_told_and_not_shown(tmp_path: Path) -> None:
    """R5: the line says what to do, and doing it brings the volume back."""
    old = tmp_path / "old.img"
    old.write_bytes(noise(SIZE))
    with appliance(tmp_path / "a") as running:
        url = served(running, old, "legacy")
        running.stop()
        shutil.copy(old, tmp_path / "restored.img")
        os.replace(tmp_path / "restored.img", old)
        running.start()
        info = running.say("/alus/old", "info")
        assert info["state"] == "missing"
        assert "detach the alu and attach it with legacy=yes force=yes" in info["detail"]
        running.say("/alus/old", "detach")
        running.say("/alus", "attach", f"path={old}", "name=old", "legacy=yes", "force=yes")
        tool("qemu-io", "-f", "raw", "-c", f"read 0 {SIZE}", url)


def test_without_an_alu_of_its_own_there_is_no_place_for_what_it_has_to_remember(tmp_path: Path) -> None:
    """R5."""
    old = tmp_path / "old.img"
    old.write_bytes(noise(SIZE))
    with appliance(tmp_path / "a") as running:
        done = running.run("/alus", "attach", f"path={old}", "legacy=yes")
        assert done.returncode == 1
        assert "attach one" in done.stderr
        assert running.say("/alus", "list") == []
        running.say("/alus", "attach", f"path={tmp_path}/own.img", "size=64M")
        running.say("/alus", "attach", f"path={old}", "legacy=yes")
        done = running.run("/alus/own", "detach")
        assert done.returncode == 1
        assert "the last to keep the metadata of legacy alu" in done.stderr
