"""The image boots to a working appliance, and a person at its console gets by with what that says (R35)."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from backstores.objects import MIB
from images.machine import QEMU, Accelerator, Machine, make_data_disk, uefi, usable
from images.tools import IMAGE, run
from tests.support.appliance import INITIATOR, free_port, need, tool
from tests.support.vm import running

pytestmark = [
    pytest.mark.image,
    need(QEMU, "qemu-img", "qemu-io", "iscsi-ls"),
    pytest.mark.skipif(not IMAGE.exists(), reason="there is no image: `make image`"),
]

SHELL: Final = r"(?m)^/> $"
MENU: Final = r"(?m)^console> $"
ROOT: Final = r"(?m)^root@tiergate:\S*# $"
BOOT_S: Final = 900  # some ten times what a boot takes where QEMU runs every instruction itself
COMMAND_S: Final = 300
DATA_BYTES: Final = 4 * MIB


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that was never switched on."""
    system = tmp_path / "system.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(IMAGE), str(system)])
    data = tuple(make_data_disk(tmp_path / f"data{number}.qcow2", "1G") for number in (1, 2))
    accelerator, _ = usable(Accelerator.AUTO)
    return Machine(system, data, portal_port=free_port(), accelerator=accelerator)


class Initiator:
    """A host on this side of the forwarded port. Discovery names the guest's own address: the URL is made here."""

    def __init__(self, port: int, folder: Path) -> None:
        portal = f"127.0.0.1:{port}"
        listed = tool("iscsi-ls", "-i", INITIATOR, f"iscsi://{portal}", timeout_s=COMMAND_S)
        [target] = re.findall(r"Target:(\S+)", listed)
        self.url = f"iscsi://{portal}/{target}/0"
        self.data = folder / "written"

    def write(self) -> None:
        """Write random data, as a file of the volume's first blocks."""
        self.data.write_bytes(secrets.token_bytes(DATA_BYTES))
        tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", self.data, self.url, timeout_s=COMMAND_S)

    def check(self) -> None:
        """Read what was written."""
        back = self.data.with_name("read")
        count = f"count={DATA_BYTES // MIB}"
        tool("qemu-img", "dd", "-O", "raw", "bs=1M", count, f"if={self.url}", f"of={back}", timeout_s=COMMAND_S)
        assert back.read_bytes() == self.data.read_bytes()


def test_three_commands_make_a_volume_that_outlives_a_reboot(machine: Machine, tmp_path: Path) -> None:
    """R35, R2, R33: disks are claimed, a volume is made and exposed, by what the console says; a host uses it."""
    with running(machine, tmp_path / "console.log") as console:
        lines = re.findall(r"(?m)^    (/.*)$", console.expect(SHELL, BOOT_S))
        assert [line.split()[1] for line in lines] == ["claim", "create", "expose"]
        said = [console.say(line, SHELL, COMMAND_S) for line in lines]
        for text, outcome in zip(said, ["vdc is claimed", "volume v1 is on line", "v1 is exposed"], strict=True):
            assert outcome in text
        host = Initiator(machine.portal_port, tmp_path)
        host.write()
        host.check()
        console.say("exit", MENU, COMMAND_S)
        console.type("reboot")
        console.expect("Booting `Tiergate'", BOOT_S)
        assert "What to type next" not in console.expect(SHELL, BOOT_S)
        host.check()
        assert "v1  [on line" in console.say("ls", SHELL, COMMAND_S)
        console.say("exit", MENU, COMMAND_S)
        console.say("root", ROOT, COMMAND_S)
        assert "inactive" in console.say("systemctl is-active ssh", ROOT, COMMAND_S)  # nobody has given a key
        console.say("exit", MENU, COMMAND_S)
        console.type("poweroff")
        console.wait_for_end(BOOT_S)


@need("ssh", "ssh-keygen")
def test_the_service_is_looked_after_by_whoever_has_given_a_key(machine: Machine, tmp_path: Path) -> None:
    """R35, R31: by UEFI; systemd starts what was killed, and stops it cleanly."""
    key = tmp_path / "key"
    tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    public = key.with_suffix(".pub").read_text().strip()
    machine = replace(machine, firmware=uefi(tmp_path), ssh_port=free_port(), ssh_key=public)

    def remote(command: str) -> str:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path / 'known'}"]
        words = ["ssh", "-q", "-p", str(machine.ssh_port), "-i", str(key), *(w for o in options for w in ("-o", o))]
        return tool(*words, "root@127.0.0.1", command, timeout_s=COMMAND_S).strip()

    with running(machine, tmp_path / "console.log") as console:
        console.expect(SHELL, BOOT_S)
        console.say("exit", MENU, COMMAND_S)
        console.say("root", ROOT, COMMAND_S)
        console.say("systemctl start ssh", ROOT, COMMAND_S)  # it is under way; this waits until it has started
        assert "/sys/firmware/efi" in remote("ls -d /sys/firmware/efi")
        assert remote("systemctl --failed --plain --no-legend") == ""
        assert "in use" in remote("mke2fs -q /dev/vdc 2>&1 || true")  # the appliance holds what it has found (R2)
        remote("tiergate /alus/vdc detach && mke2fs -q /dev/vdc && tiergate /alus scan")
        assert "ext2" in json.loads(remote("tiergate --json /alus/vdc info"))["detail"]
        started = "grep -m1 -q Started <(journalctl -f -n 0 -u tiergate)"
        remote(f"bash -c '{started} & systemctl kill --signal=KILL tiergate; wait'")
        assert remote("systemctl show --property=NRestarts --value tiergate") == "1"
        assert json.loads(remote("tiergate --json /sps status"))[0]["name"] == "sp1"
        remote("systemctl stop tiergate")
        assert remote("systemctl show --property=Result --value tiergate") == "success"
        assert "stopping" in remote("journalctl -u tiergate -n 5")
        remote("systemctl start tiergate")
        assert remote("systemctl is-active tiergate") == "active"
        console.type("systemctl poweroff")
        console.wait_for_end(BOOT_S)
