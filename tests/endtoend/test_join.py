"""A storage processor that joins its system from elsewhere (R9)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from appliance.identity import Identity
from appliance.processes.keys import FOLDER, ensure_keys
from tests.support.appliance import TIERGATE
from tests.support.system import System

TOPOLOGY = """
sps: [{{name: sp1}}, {{name: sp2, elsewhere: true}}]
alus: [{{name: a0, path: {0}/a0.img, size: 64M, sps: [sp1]}}, {{name: a1, path: {0}/a1.img, size: 64M, sps: [sp2]}}]
"""
WHO = Identity("TG-joined", "iqn.2026-11.example.tiergate:joined")


def test_it_takes_part_as_all_others_do(tmp_path: Path) -> None:
    """R9: it has its key, an ALU of its own, and a leg of a mirror on it; it ends in order."""
    (tmp_path / "system").mkdir()
    running = System(tmp_path / "system", topology=TOPOLOGY.format(tmp_path))
    running.state.mkdir()
    ensure_keys(running.state, ["mic", "sp1", "sp2"], WHO)
    key = running.state / FOLDER / "sp2.key"
    bus = f"127.101.255.1:{running.port + 1},127.102.255.1:{running.port + 1}"
    line = [TIERGATE, "sp", f"--join={bus}", f"--key={key}", f"--state={tmp_path / 'elsewhere'}", *running.where()]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as joined:
        try:
            assert joined.stdout is not None
            assert joined.stdout.readline().startswith("ready: sp2")
            running.start("--susid", WHO.susid, "--iqn", WHO.iqn)
            assert running.sp("sp2")["state"] == "at work"
            running.say("/volumes", "create", "name=db", "size=16M", "layout=mirror", "alus=a0,a1")
            (volume,) = running.say("/volumes", "list")
            assert volume["state"] == "on line"
            running.stop()
            joined.terminate()
            assert joined.wait(30) == 0
        finally:
            joined.kill()
            running.stop()
