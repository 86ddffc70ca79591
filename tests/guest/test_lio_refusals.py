"""What LIO, the machine or a person has in the way of a start: a line that says so, and nothing half made (R31)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.guest.inside import CONFIGFS, TARGET, Guest
from tests.guest.test_lio import IQN, LIO, MODULES, WEB, below_target
from tests.support.appliance import TIERGATE, Appliance

PORTAL: Final = ("--portal", "127.0.0.1:3260")
HOLD: Final = "import sys; held = open(sys.argv[1], 'r+b', buffering=0); print(flush=True); sys.stdin.read()"

in_guest = pytest.mark.guest(modules=MODULES)


def refused(state: Path, *options: str, by: tuple[str, ...] = ()) -> str:
    """Start an appliance that must not start; give its last line."""
    line = [*by, TIERGATE, "serve", "--state", str(state), *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: ")
    return said


@in_guest
def test_what_is_taken_is_told(guest: Guest, tmp_path: Path) -> None:
    """R31: a target of our name that is not ours, a port, an address that is not there, a namespace that is not."""
    state = tmp_path / "state"
    theirs = guest.backstore(0, "theirs", 1 << 20)
    guest.iscsi_target(IQN, theirs, "127.0.0.1:3261")
    guest.start(
        "python3", "-c", "import socket; s = socket.create_server(('127.0.0.1', 3262)); print(flush=True); input()"
    )
    guest.until("listener", lambda: "3262" in guest.sh("ss -ltn") or None)
    guest.sh("ip netns add san && ip -n san link set lo up")
    before = below_target()
    assert f"iscsi/{IQN} is there and was not made by this appliance" in refused(state, *LIO, *PORTAL)
    free = ("--frontend", "lio", "--iqn", "iqn.2026-11.example:free")
    for portal, words in (
        ("127.0.0.1:3262", "can't listen on 127.0.0.1:3262: the port is taken or the address is not ours"),
        ("san/10.9.9.9:3260", "can't listen on 10.9.9.9:3260 in network namespace san"),
        ("elsewhere/127.0.0.1:3263", "there is no network namespace elsewhere: type `ip netns add elsewhere`"),
    ):
        # One that can be comes first: it goes again.
        said = refused(state, *free, "--portal", "127.0.0.1:3264", "--portal", portal)
        assert words in said
        assert below_target() == before
        assert "3264" not in guest.sh("ss -ltn")


@in_guest
def test_a_backstore_that_another_process_serves_holds_up_no_other(guest: Guest, tmp_path: Path) -> None:
    """C3: its volume is left out, the line says what to do, and the next change has it back."""
    appliance = Appliance(tmp_path, port=3260)
    appliance.start(*LIO)
    appliance.say("/alus", "attach", f"path={tmp_path}/disk.img", "size=256M", "name=a")
    appliance.say("/hosts", "create", "name=web", f"iqn={WEB}")
    for lun, name in ((3, "held"), (5, "free")):  # a LUN 0 that is not there LIO answers itself
        appliance.say("/volumes", "create", f"name={name}", "size=16M", "layout=linear", "alus=a")
        appliance.say(f"/volumes/{name}", "expose", "host=web", f"lun={lun}")
    serial = appliance.say("/volumes/held", "info")["wwn"]
    appliance.kill()
    [device] = [uio for uio in Path("/sys/class/uio").iterdir() if serial in (uio / "name").read_text()]
    holder = subprocess.Popen(
        ["python3", "-c", HOLD, f"/dev/{device.name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    appliance.start(*LIO)
    assert f"can't open /dev/{device.name}" in appliance.log
    assert "end the process that serves it" in appliance.log
    url = f"iscsi://127.0.0.1:3260/{IQN}"
    guest.sh(f"iscsi-readcapacity16 -i {WEB} {url}/5")
    guest.fails(f"iscsi-readcapacity16 -i {WEB} {url}/3")
    holder.communicate()
    appliance.say("/hosts", "create", "name=more", f"iqn={WEB}-more")
    guest.sh(f"iscsi-readcapacity16 -i {WEB} {url}/3")
    assert appliance.stop() == 0
    assert below_target() == []


@in_guest
def test_without_root_or_configfs(guest: Guest, tmp_path: Path) -> None:
    """R31: configfs is mounted where it is not; who may not is told what is missing."""
    state = Path("/run/state")
    state.mkdir()
    shutil.chown(state, "nobody")
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    said = refused(state, *LIO, *PORTAL, by=nobody)
    assert "LIO needs root" in said
    assert "type `sudo tiergate serve`" in said
    guest.sh(f"umount {CONFIGFS}")
    unable = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root in name only, as in a container
    assert f"configfs is not mounted on {CONFIGFS}" in refused(tmp_path / "other", *LIO, *PORTAL, by=unable)
    appliance = Appliance(tmp_path / "a", port=3260)
    appliance.folder.mkdir()
    appliance.start(*LIO)
    assert (TARGET / "iscsi" / IQN).is_dir()
    assert appliance.stop() == 0
    assert below_target() == []


@pytest.mark.guest
def test_without_modules_auto_says_why_it_takes_the_embedded_portal(tmp_path: Path) -> None:
    """R32: and asked for by name, LIO that is not there is an error that says what to type."""
    subprocess.run("mount -t tmpfs none /usr/lib/uml/modules && ip link set lo up", shell=True, check=True)
    auto = Appliance(tmp_path / "auto")
    auto.folder.mkdir()
    auto.start()
    assert "front end: the embedded portal (" in auto.log
    assert "has no module target_core_user" in auto.log
    auto.kill()
    assert "modprobe target_core_user" in refused(tmp_path / "state", "--frontend", "lio")
