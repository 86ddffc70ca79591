"""Hosts and what they may do, by libiscsi's tools: CHAP, digests, masking, two at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance, luns_seen, need, refused, tool

pytestmark = need("iscsi-ls", "iscsi-inq", "qemu-img", "qemu-io")

WEB = "iqn.2026-11.example.host:web"
MAIL = "iqn.2026-11.example.host:mail"
BACKUP = "iqn.2026-11.example.host:backup"
SECRET = "correct horse battery"
WRONG = "incorrect horse battery"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with a volume for each of two hosts, one of which must prove itself."""
    with appliance(tmp_path_factory.mktemp("hosts") / "a") as found:
        folder: Path = found.folder
        for name in ("secret", "mutual"):
            (folder / name).touch(mode=0o600)
        (folder / "secret").write_text(SECRET)
        (folder / "mutual").write_text("a secret of the target")
        for number, size in enumerate(("64M", "32M")):
            found.say("/alus", "attach", f"path={folder}/a{number}.img", "size=256M")
            found.say("/volumes", "create", f"name=v{number}", f"size={size}", "layout=linear", f"alus=a{number}")
        found.say("/hosts", "create", "name=web", f"iqn={WEB}")
        chap = ("chap-user=mailer", f"chap-secret-file={folder}/secret")
        mutual = ("mutual-user=gate", f"mutual-secret-file={folder}/mutual")
        found.say("/hosts", "create", "name=mail", f"iqn={MAIL}", *chap, *mutual)
        found.say("/volumes/v0", "expose", "host=web", "lun=0")
        found.say("/volumes/v1", "expose", "host=mail", "lun=7")
        found.say("/hosts", "create", "name=backup", f"iqn={BACKUP}")
        found.say("/volumes/v1", "expose", "host=backup", "lun=3")
        yield found


def portal(running: Appliance) -> str:
    return f"127.0.0.1:{running.port}"


def iqn(running: Appliance) -> str:
    return str(running.say("/sps", "status")[0]["target"])


def test_each_host_sees_its_own_volume_and_no_other(running: Appliance) -> None:
    """R15, R33: LUN masking by initiator name."""
    assert [lun[:6] for lun in luns_seen(portal(running), WEB)] == ["Lun:0 "]
    assert [lun[:6] for lun in luns_seen(portal(running), MAIL, f"mailer%{SECRET}@")] == ["Lun:7 "]


def test_a_stranger_sees_nothing(running: Appliance) -> None:
    """S2: unknown initiators are refused, at discovery, too."""
    said = refused("iscsi-ls", "-i", "iqn.2026-11.example.host:stranger", f"iscsi://{portal(running)}")
    assert "Target:" not in said


@pytest.mark.parametrize("credentials", ["", f"mailer%{WRONG}@", f"web%{SECRET}@"], ids=["none", "secret", "user"])
def test_wrong_chap_is_refused_and_the_log_has_no_secret(running: Appliance, credentials: str) -> None:
    """R33, S2."""
    refused("iscsi-inq", "-i", MAIL, f"iscsi://{credentials}{portal(running)}/{iqn(running)}/7")
    running.say("/sessions", "list")  # a turn of the same loop later, the refusal has been logged
    assert "refused" in running.log
    assert SECRET not in running.log
    assert WRONG not in running.log


def test_right_chap_gets_in(running: Appliance) -> None:
    """R33: one-way CHAP."""
    said = tool("iscsi-inq", "-i", MAIL, f"iscsi://mailer%{SECRET}@{portal(running)}/{iqn(running)}/7")
    assert "Vendor:TIERGATE" in said


def test_mutual_chap_proves_the_target_to_the_host(running: Appliance) -> None:
    """R33: and a target with another secret is no target of this host's."""
    url = f"iscsi://mailer%{SECRET}@{portal(running)}/{iqn(running)}/7?target_user=gate&target_password="
    assert "TIERGATE" in tool("iscsi-inq", "-i", MAIL, url + "a secret of the target")
    refused("iscsi-inq", "-i", MAIL, url + "a secret of somebody else")


def test_header_digests_are_spoken(running: Appliance) -> None:
    """R33: CRC32C."""
    url = f"iscsi://{portal(running)}/{iqn(running)}/0?header_digest=crc32c"
    assert "TIERGATE" in tool("iscsi-inq", "-i", WEB, url)


def test_two_initiators_work_at_the_same_time(running: Appliance) -> None:
    """R33: each writes its own pattern to its own volume, and reads it back while the other writes."""

    def job(initiator: str, lun: int, pattern: int) -> subprocess.Popen[str]:
        node = {
            "driver": "iscsi",
            "transport": "tcp",
            "portal": portal(running),
            "target": iqn(running),
            "lun": lun,
            "initiator-name": initiator,
        }
        commands = [
            word
            for offset in range(0, 24, 2)
            for word in ("-c", f"write -P {pattern} {offset}M 2M", "-c", f"read -P {pattern} {offset}M 2M")
        ]
        line = ["qemu-io", *commands, "json:" + json.dumps({"driver": "raw", "file": node})]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    for started in [job(WEB, 0, 0x11), job(BACKUP, 3, 0x22)]:
        said, _ = started.communicate(timeout=60)
        assert started.returncode == 0, said
        assert "Pattern verification failed" not in said
