"""Two networks, one volume: a portal group in each network namespace, and dm-multipath at the host (R31, R32, R33)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.guest.inside import TARGET, Guest
from tests.support.appliance import Appliance, need

IQN: Final = "iqn.2026-11.example.tiergate:paths"
WEB: Final = "iqn.2026-11.example.tiergate:guest"
NETWORKS: Final = {"a": "10.0.1", "b": "10.0.2"}
FRONT_ENDS: Final = {
    "lio": ["target_core_user", "iscsi_target_mod"],
    "embedded": [],
}
MODULES: Final = ["iscsi_tcp", "sd_mod", "sg", "veth", "dm_multipath", "dm_round_robin"]
SOON: Final = (
    "node.session.timeo.replacement_timeout=2",
    "node.conn[0].timeo.noop_out_interval=1",
    "node.conn[0].timeo.noop_out_timeout=1",
)
"""Settings by which open-iscsi notices within seconds that a path is gone."""
MULTIPATH: Final = """
defaults {
    find_multipaths no
    polling_interval 1
    max_polling_interval 2
    path_grouping_policy failover
    path_checker tur
    no_path_retry fail
    fast_io_fail_tmo 2
}
"""


@pytest.fixture
def networks(guest: Guest) -> Guest:
    """A host with a link into each of two namespaces, where the target is .2."""
    for name, net in NETWORKS.items():
        guest.sh(f"ip netns add {name} && ip link add v{name} type veth peer name e0 netns {name}")
        guest.sh(f"ip address add {net}.1/24 dev v{name} && ip link set v{name} up")
        guest.sh(f"ip -n {name} address add {net}.2/24 dev e0 && ip -n {name} link set e0 up")
    return guest


@pytest.fixture
def appliance(networks: Guest, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Appliance]:
    """An appliance with a portal in each namespace, that serves ``db``."""
    found = Appliance(tmp_path, portals=[f"{name}/{net}.2:3260" for name, net in NETWORKS.items()])
    found.start("--frontend", request.param, "--iqn", IQN)
    try:
        found.show_volume("db", "200M", host="web", iqn=WEB)
        yield found
    finally:
        found.kill()


def log_in_by_all(guest: Guest) -> None:
    """Ask one portal, and log in to all that it tells of."""
    guest.start_initiator(WEB)
    told = guest.sh("iscsiadm --mode discovery --type sendtargets --portal 10.0.1.2:3260")
    assert set(told.split("\n")) >= {f"10.0.1.2:3260,1 {IQN}", f"10.0.2.2:3260,2 {IQN}"}
    for setting in SOON:
        name, _, value = setting.partition("=")
        guest.sh(f"iscsiadm --mode node --targetname {IQN} --op update --name '{name}' --value {value}")
    guest.sh(f"iscsiadm --mode node --targetname {IQN} --login")


def joined_disk(guest: Guest, wwn: str) -> Path:
    """Have udev and multipathd join the paths of a volume; give the disk that they make."""
    Path("/etc/multipath.conf").write_text(MULTIPATH)
    guest.sh("/lib/systemd/systemd-udevd --daemon && udevadm trigger && udevadm settle")
    guest.start("multipathd", "-d", "-s")
    disk = Path("/dev/mapper", f"3{wwn}")  # 3: the name is in NAA form (R6)
    guest.until("joined disk", lambda: disk.exists() or None)
    guest.until("two paths", lambda: states(guest) == "AA" or None)
    return disk


def states(guest: Guest) -> str:
    """Give a letter for each path, A for active and F for failed."""
    return "".join(re.findall(r" \d+:\d+ ([AF])", guest.sh("dmsetup status --target multipath")))


def written(disk: Path) -> int:
    """Say how many writes a disk has completed."""
    return int(Path("/sys/class/block", disk.resolve().name, "stat").read_text().split()[4])


@need("fio", "multipathd", "udevadm", "sg_persist")
@pytest.mark.parametrize(
    "appliance",
    [
        pytest.param(name, marks=pytest.mark.guest(modules=MODULES + modules, deadline_s=240), id=name)
        for name, modules in FRONT_ENDS.items()
    ],
    indirect=True,
)
def test_links_that_fail_one_after_the_other_cost_no_error(guest: Guest, appliance: Appliance, tmp_path: Path) -> None:
    """R31, R33: under fio with verification; and what is reserved by one path is reserved by the other."""
    log_in_by_all(guest)
    disk = joined_disk(guest, appliance.say("/volumes/db", "info")["wwn"])
    load = subprocess.Popen(
        [
            *("fio", "--name=load", f"--filename={disk}", "--size=64M", "--rw=randrw", "--bsrange=4k-64k"),
            *("--ioengine=libaio", "--iodepth=16", "--direct=1", "--verify=crc32c", "--verify_backlog=256"),
            *("--verify_fatal=1", "--time_based", "--runtime=600", f"--output={tmp_path}/fio"),
        ]
    )
    for name in NETWORKS:
        guest.sh(f"ip link set v{name} down")
        guest.until("failed path", lambda: "F" in states(guest) or None)
        enough = written(disk) + 100
        guest.until("writes by the other path", lambda enough=enough: written(disk) > enough or None)
        guest.sh(f"ip link set v{name} up")
        guest.until("path that is back", lambda: states(guest) == "AA" or None, patience_s=60)
    assert load.poll() is None, (tmp_path / "fio").read_text()
    load.terminate()
    load.wait(60)
    report = (tmp_path / "fio").read_text()
    assert "err= 0" in report, report
    assert guest.kernel_lines("error.*dev dm-") == []
    assert [session["host"] for session in appliance.say("/sessions", "list")] == ["web", "web"]
    one, other = sorted(Path("/dev").glob("sd?"))
    guest.sh(f"sg_persist --out --register --param-sark=abc123 {one}")
    assert "0xabc123" in guest.sh(f"sg_persist --in --read-keys {other}")
    assert appliance.stop() == 0, "with a host logged in by both"
    assert not list(TARGET.glob("iscsi/iqn*"))
