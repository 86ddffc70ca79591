"""Parts of a system fail and come back while a host works: /faults (R19)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.endtoend.test_system import TOPOLOGY, go_on, two_hosts
from tests.support.system import System, system

PARTS = {
    "fabric:int1": "127.101.",
    "fabric:int2": "127.102.",
    "link:sp1/int1": "127.101.0.1:",
    "link:sp3/int1": "127.101.0.3:",
    "port:sp1/hostA": "127.103.0.1:",
    "fabric:hostB": "127.104.",
    "sp:sp2": "127.101.0.2:",
}
"""Parts, and how addresses begin that nothing goes from or to while they have failed."""

ESTABLISHED = "01"


def addresses(port: int) -> set[str]:
    """List both ends of all connections to portals on loopback (proc_net_tcp(5))."""
    found: set[str] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, *ends, state = line.split()[:4]
        read = [f"{'.'.join(map(str, bytes.fromhex(end[:8])[::-1]))}:{int(end[9:], 16)}" for end in ends]
        if state == ESTABLISHED and any(end.endswith(f":{port}") for end in read):
            found |= set(read)
    return found


def in_use(running: System, start: str) -> bool:
    """Whether anything goes from or to addresses that begin so."""
    return any(end.startswith(start) for end in addresses(running.port))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[System]:
    with system(tmp_path / "system", TOPOLOGY.format(tmp_path)) as running:
        yield running


def test_no_host_sees_an_error_when_a_part_fails(running: System) -> None:
    """R19: each part is doubled, so one at a time may go; what runs over it goes on over the other."""
    with two_hosts(running) as hosts:
        for part, lost in PARTS.items():
            go_on(running, hosts)
            running.until(partial(in_use, running, lost), f"{lost} is in use")
            running.say("/faults", "inject", f"part={part}")
            assert [fault["part"] for fault in running.say("/faults", "list")] == [part]
            assert not in_use(running, lost)
            go_on(running, hosts)
            assert not in_use(running, lost)
            running.say("/faults", "restore", f"part={part}")
        go_on(running, hosts)
    assert running.say("/faults", "list") == []


def test_who_has_lost_its_links_can_be_told_that_they_are_back(running: System) -> None:
    """R19: the VCM keeps one way to it."""
    for part in ("link:sp1/int1", "link:sp1/int2"):
        running.say("/faults", "inject", f"part={part}")
    for part in ("link:sp1/int1", "link:sp1/int2"):
        running.say("/faults", "restore", f"part={part}")
    assert running.sp("sp1")["state"] == "at work"


def test_a_part_that_there_is_not_is_told_with_what_there_is(running: System) -> None:
    done = running.run("/faults", "inject", "part=link:sp9/int1")
    assert done.returncode == 1
    assert "there is no link 'sp9/int1'; there is sp1/int1, sp1/int2" in done.stderr
    assert running.say("/faults", "list") == []


@pytest.mark.slow
def test_no_host_sees_an_error_when_an_alu_is_lost(running: System) -> None:
    """R19, D3: the mirror goes on without it, and is told to be degraded."""
    with two_hosts(running) as hosts:
        go_on(running, hosts)
        running.say("/faults", "inject", "part=alu:a0")
        running.until(partial(is_degraded, running), "the volume is degraded")
        go_on(running, hosts)
    running.say("/faults", "restore", "part=alu:a0")


def is_degraded(running: System) -> bool:
    (volume,) = running.say("/volumes", "list")
    return bool(volume["state"] == "degraded")
