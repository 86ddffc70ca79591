"""Volumes on units of another appliance's target, attached by URL (R1, R12)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance, need, tool

pytestmark = need("qemu-io")

SECRET = "twelve-letters-or-more"
INITIATOR = "iqn.2026-11.example:below"


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Appliance, Appliance]]:
    """One appliance below, with two volumes that want CHAP and digests, and one above."""
    for name in ("below", "above"):
        (tmp_path / name).mkdir()
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    with appliance(tmp_path / "below") as below, appliance(tmp_path / "above") as above:
        below.say("/hosts", "create", "name=above", f"iqn={INITIATOR}")
        below.say("/hosts/above", "set-chap", "chap-user=above", f"chap-secret-file={secret}")
        for name in ("x", "y"):
            below.show_volume(name, "256M", "linear", 1, host="above")
            target, lun = below.url(name).split("/")[3:]
            options = f"secret-file={secret}&header-digest=yes&initiator={INITIATOR}"
            url = f"iscsi://above@127.0.0.1:{below.port}/{target}/{lun}?{options}"
            above.say("/alus", "attach", f"name={name}", f"path={url}")
        above.say("/volumes", "create", "name=v", "size=64M", "layout=mirror", "alus=x,y")
        above.say("/hosts", "create", "name=any", "iqn=*")
        above.say("/volumes/v", "expose", "host=any")
        yield below, above


def test_a_mirror_of_units_serves_and_comes_back(both: tuple[Appliance, Appliance]) -> None:
    """R1: as on files: after a restart of the one above by itself, after one of that below when it is there again."""
    below, above = both
    tool("qemu-io", "-f", "raw", "-c", "write -P 7 0 8M", "-c", "write -P 9 33M 100k", "-c", "flush", above.url())
    assert SECRET not in above.log + above.run("export").stdout
    above.stop()
    above.start()
    verify = ("-c", "read -P 7 0 8M", "-c", "read -P 9 33M 100k")
    tool("qemu-io", "-f", "raw", *verify, above.url())
    below.kill()
    below.start()
    tool("qemu-io", "-f", "raw", *verify, "-c", "write -P 11 1M 1M", "-c", "read -P 11 1M 1M", above.url())


def test_what_can_t_be_attached_says_why(both: tuple[Appliance, Appliance]) -> None:
    """Wrong input changes nothing, and the error names it."""
    _, above = both
    for path, words in {
        "iscsi://127.0.0.1/": "no URL of the form",
        "iscsi://127.0.0.1:1/iqn.2026-11.example:t/0": "no connection to 127.0.0.1:1",
    }.items():
        done = above.run("/alus", "attach", "name=z", f"path={path}")
        assert done.returncode
        assert words in done.stderr
    assert "choose one with name=" in above.run("/alus", "attach", "path=iscsi://h/iqn.2026-11.example:t/0").stderr
    assert [alu["name"] for alu in above.say("/alus", "list")] == ["x", "y"]
