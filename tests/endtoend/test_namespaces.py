"""A system in network namespaces: it serves, parts of it fail and come back, and nothing of it is left (R19)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance.processes.system import prefix_of
from tests.support.appliance import need
from tests.support.system import system

TOPOLOGY = "{{sps: 3, alus: [{{name: a0, path: {0}/a0.img, size: 64M}}, {{name: a1, path: {0}/a1.img, size: 64M}}]}}"


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


@pytest.mark.root
@need("ip")
def test_a_volume_is_made_and_outlives_each_internal_fabric(tmp_path: Path) -> None:
    """R19: its tiers find each other over bridges."""
    with system(tmp_path / "system", TOPOLOGY.format(tmp_path), "--namespaces") as running:
        prefix = prefix_of(running.state)
        assert namespaces().count(f"{prefix}-sp") == 3
        running.say("/volumes", "create", "name=db", "size=16M", "layout=mirror")
        for size, part in enumerate(("fabric:int1", "fabric:int2", "link:sp1/int1", "link:sp2/int2"), start=17):
            running.say("/faults", "inject", f"part={part}")
            running.say("/volumes/db", "grow", f"size={size}M")
            running.say("/faults", "restore", f"part={part}")
        running.until(lambda: running.say("/volumes", "list")[0]["state"] == "on line", "the volume is on line")
    assert prefix not in namespaces()
