"""``tiergate serve`` of a system: its command line, and its processes finding each other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.processes.system import is_system, parse, prefix_of
from tests.support.appliance import free_port

PROJECT = Path(__file__).parents[3]
MOST_PRIVATE_KIB = 25 << 10


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--sps 4", True),
        ("--sps=4", True),
        ("--topology x", True),
        ("--namespaces", True),
        ("", False),
        ("--portal 127.0.0.1:3260 --demo", False),
    ],
)
def test_an_option_that_only_a_system_has_makes_one(line: str, expected: bool) -> None:
    assert is_system(line.split()) is expected


def test_a_system_may_be_made_up(tmp_path: Path) -> None:
    options = parse(["--state", str(tmp_path), "--sps", "2", "--port", "4000"])
    assert (len(options.topology.sps), options.topology.port, options.topology.bus_port) == (2, 4000, 4001)
    assert {port.port for port in options.topology.ports} == {4000}


def test_a_topology_is_read_from_its_file(tmp_path: Path) -> None:
    """R19: paths in it begin at the state folder."""
    file = tmp_path / "t.yaml"
    file.write_text("{sps: 1, alus: [{name: a, path: a.img}]}")
    options = parse(["--state", str(tmp_path / "state"), "--topology", str(file)])
    assert [alu.path for alu in options.topology.alus] == [str(tmp_path / "state/a.img")]


def test_namespaces_of_two_appliances_have_other_names() -> None:
    assert prefix_of(Path("/a")) == prefix_of(Path("/a")) != prefix_of(Path("/b"))
    assert re.fullmatch("tg[0-9a-f]{6}", prefix_of(Path("/a")))


BAD = {
    "no topology": (["--namespaces"], "--namespaces needs --topology FILE or --sps N"),
    "two topologies": (["--sps", "1", "--topology", "x"], "not allowed with"),
    "a file that is not there": (["--topology", "/nowhere"], "topology /nowhere can't be read: No such file"),
    "no text": (["--topology", sys.executable], "can't be read: it is no text"),
    "no SP": (["--sps", "0"], "sps: 0 is not between 1 and 1000"),
    "no port for the bus": (["--sps", "1", "--port", "65535"], "port 65535 is not between 1 and 65534"),
    "a name of a target with a wildcard": (["--sps", "1", "--iqn", "iqn.2026-11.example:*"], "a target has one name"),
    "a portal": (["--sps", "1", "--portal", "127.0.0.1:1"], "--portal"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_a_bad_option_is_refused_with_what_is_allowed(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def private_kib(pid: int) -> int:
    """Give the memory that a process shares with nobody."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


def test_the_system_of_figure_10_comes_together(tmp_path: Path) -> None:
    """R19: sixteen SPs find the VCM by their keys, and share most of their memory."""
    line = [sys.executable, "-m", "tests.support.standin_system", f"--state={tmp_path}", f"--port={free_port()}"]
    line.append("--topology=examples/fig10.yaml")
    with subprocess.Popen(line, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline().split() == ["ready:", "mic", *sorted(f"sp{n}" for n in range(1, 17))]
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            assert len(children) == 18
            assert max(private_kib(int(pid)) for pid in children) < MOST_PRIVATE_KIB
            os.kill(running.pid, signal.SIGTERM)
            assert running.wait() == 0
        finally:
            running.kill()
