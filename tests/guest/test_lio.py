"""The appliance with LIO as its front end, in a guest kernel, against open-iscsi (R31, R33)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.inside import TARGET, Guest
from tests.support.appliance import TIERGATE, Appliance

MODULES = ["target_core_user", "iscsi_target_mod", "iscsi_tcp", "sd_mod", "sg", "ext4", "xfs"]
IQN = "iqn.2026-11.example.tiergate:lio"
WEB = "iqn.2026-11.example.tiergate:guest"
OTHER = f"{WEB}-other"
LIO = ("--frontend", "lio", "--iqn", IQN)
SECRET, MUTUAL = "geheim-und-lang", "auch-geheim-und-lang"
UNIT = Path(__file__).parents[2] / "packaging" / "tiergate.service"
KILLS = 20
UNIT_SERIAL = 0x80  # a page of INQUIRY

in_guest = pytest.mark.guest(modules=MODULES)


@pytest.fixture
def appliance(guest: Guest, tmp_path: Path) -> Iterator[Appliance]:
    """An appliance with LIO that serves ``db``, a stripe of mirrors on four files, to open-iscsi as lun 0."""
    found = Appliance(tmp_path, port=3260)
    found.start(*LIO)
    try:
        found.show_volume("db", "320M", host="web", iqn=WEB)
        guest.start_initiator(WEB)
        yield found
    finally:
        found.kill()


def below_target() -> list[str]:
    """List what stands in LIO's tree, apart from what is always there."""
    return sorted(str(path.relative_to(TARGET)) for path in [*TARGET.glob("core/user_*"), *TARGET.glob("iscsi/iqn*")])


def errors_of(guest: Guest) -> list[str]:
    """Give what the guest's kernel has said of errors of disks."""
    return guest.kernel_lines("I/O error|blk_update_request|medium error|hardware error")


@in_guest
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_files_survive_a_log_out(guest: Guest, appliance: Appliance, kind: str) -> None:
    """R31, R33: mkfs, copy, log out, log in with digests, fsck, compare; the disk is named as the volume is (R6)."""
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    wwn = appliance.say("/volumes/db", "info")["wwn"]
    assert Path(f"/sys/block/{disk.name}/device/wwid").read_text().strip() == f"naa.{wwn}"
    quiet = "-q -F" if kind == "ext4" else "-q -f"
    guest.sh(f"mkfs.{kind} {quiet} {disk} && mount {disk} /mnt && cp -a /usr/lib/python3.11/. /mnt && umount /mnt")
    guest.log_out(IQN)
    guest.log_in(IQN, settings=("node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C"))
    [connection] = Path("/sys/class/iscsi_connection").iterdir()
    assert [(connection / name).read_text() for name in ("header_digest", "data_digest")] == ["1\n", "1\n"]
    disk = guest.iscsi_disk(IQN)
    guest.sh(f"fsck.ext4 -fn {disk}" if kind == "ext4" else f"xfs_repair -n {disk}")
    guest.sh(
        f"mount -o ro {disk} /mnt && diff -r --no-dereference /usr/lib/python3.11 /mnt -x lost+found && umount /mnt"
    )
    guest.log_out(IQN)
    assert errors_of(guest) == []
    assert appliance.stop() == 0
    assert below_target() == [], "a clean stop leaves nothing behind"


@in_guest
def test_chap_in_both_directions(guest: Guest, appliance: Appliance, tmp_path: Path) -> None:
    """R33: right secrets get in, wrong ones and none don't; no log has a secret (S2)."""
    for name, secret in (("secret", SECRET), ("mutual", MUTUAL)):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    appliance.say(
        *("/hosts/web", "set-chap", "chap-user=web", f"chap-secret-file={tmp_path}/secret"),
        *("mutual-user=target", f"mutual-secret-file={tmp_path}/mutual"),
    )
    auth = "node.session.auth"
    one_way = (f"{auth}.authmethod=CHAP", f"{auth}.username=web", f"{auth}.password={SECRET}")
    both_ways = (*one_way, f"{auth}.username_in=target", f"{auth}.password_in={MUTUAL}")
    with pytest.raises(AssertionError, match="authorization failure"):
        guest.log_in(IQN)
    with pytest.raises(AssertionError, match="authorization failure"):
        guest.log_in(IQN, settings=(*one_way[:2], f"{auth}.password=wrong-and-long"))
    guest.log_in(IQN, settings=one_way)
    guest.iscsi_disk(IQN)
    guest.log_out(IQN)
    with pytest.raises(AssertionError, match="iscsiadm"):
        guest.log_in(IQN, settings=(*both_ways[:4], f"{auth}.password_in=wrong-and-long"))
    guest.log_in(IQN, settings=both_ways)
    [session] = appliance.say("/sessions", "list")
    assert (session["host"], session["initiator"], session["luns"]) == ("web", WEB, [0])
    said = guest.sh("dmesg") + appliance.log
    assert "CHAP" in said
    assert SECRET not in said
    assert MUTUAL not in said


@in_guest
def test_strangers_see_nothing_and_hosts_their_own(guest: Guest, appliance: Appliance) -> None:
    """R15: an initiator that no host has is refused and not told of the target; there is no LUN but those exposed."""
    url = "iscsi://127.0.0.1:3260"
    assert IQN in guest.sh(f"iscsi-ls -i {WEB} {url}")
    assert IQN not in guest.sh(f"iscsi-ls -i {WEB}-stranger {url} 2>&1 || true")
    guest.fails(f"iscsi-inq -i {WEB}-stranger {url}/{IQN}/0")
    assert "TIERGATE" in guest.sh(f"iscsi-inq -i {WEB} {url}/{IQN}/0")
    guest.fails(f"iscsi-readcapacity16 -i {WEB} {url}/{IQN}/7")
    said = guest.sh("dmesg")
    assert re.search("not authorized|no ACL|Initiator Node.*not", said), "the kernel's log says who"
    assert f"NON_EXISTENT_LUN Access for 0x00000007 from {WEB}" in said
    appliance.say("/volumes", "create", "name=other", "size=16M", "layout=linear", "alus=db-a0")
    appliance.say("/hosts", "create", "name=backup", f"iqn={WEB}-backup")
    appliance.say("/volumes/other", "expose", "host=backup", "lun=0")
    assert "Lun:0" in (listed := guest.sh(f"iscsi-ls -s -i {WEB}-backup {url}"))
    assert listed.count("Lun:") == 1
    for initiator, volume in ((f"{WEB}-backup", "other"), (WEB, "db")):
        serial = appliance.say(f"/volumes/{volume}", "info")["wwn"][-25:]
        assert serial in guest.sh(f"iscsi-inq -e 1 -c {UNIT_SERIAL} -i {initiator} {url}/{IQN}/0")
    refused = appliance.run("/hosts", "create", "name=all", f"iqn={WEB}-*")
    assert refused.returncode == 1
    assert "knows no patterns" in refused.stderr
    assert "all" not in {host["name"] for host in appliance.say("/hosts", "list")}


@in_guest
def test_an_open_host_opens_no_more_than_its_own(guest: Guest, appliance: Appliance) -> None:
    """R15: LIO would show a stranger all there is, so the command that would make it so is refused."""
    url = f"iscsi://127.0.0.1:3260/{IQN}"
    appliance.say("/hosts", "create", "name=any", "iqn=*")
    guest.fails(f"iscsi-inq -i {WEB}-stranger {url}/5")
    appliance.say("/volumes/db", "expose", "host=any", "lun=5")
    assert "TIERGATE" in guest.sh(f"iscsi-inq -i {WEB}-stranger {url}/5")
    assert "TIERGATE" in guest.sh(f"iscsi-inq -i {WEB} {url}/0")
    guest.fails(f"iscsi-readcapacity16 -i {WEB} {url}/5")
    appliance.say("/volumes", "create", "name=own", "size=16M", "layout=linear", "alus=db-a0")
    refused = appliance.run("/volumes/own", "expose", "host=web")
    assert refused.returncode == 1
    assert "would see what only host web is to see" in refused.stderr
    guest.fails(f"iscsi-readcapacity16 -i {WEB} {url}/1")
    assert [row["host"] for row in appliance.say("/volumes/own", "info")["exposures"]] == []


@in_guest
def test_growth_is_seen_after_a_rescan(guest: Guest, appliance: Appliance) -> None:
    """R16: the host is told by a unit attention 2A/09, and sees the new size, with a file system mounted."""
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    guest.sh(f"mkfs.ext4 -q {disk} && mount {disk} /mnt")
    sectors = Path(f"/sys/block/{disk.name}/size")
    before = int(sectors.read_text())
    appliance.say("/volumes/db", "grow", "size=480M")
    guest.sh("dd if=/dev/zero of=/mnt/file bs=1M count=1 oflag=direct")
    assert "Capacity data has changed" in guest.sh("dmesg")
    Path(f"/sys/block/{disk.name}/device/rescan").write_text("1")
    assert int(sectors.read_text()) == before * 480 // 320
    [size] = TARGET.glob("core/user_*/tiergate-*/attrib/dev_size")
    assert int(size.read_text()) == 480 << 20
    guest.sh(f"resize2fs {disk} && umount /mnt && fsck.ext4 -fn {disk}")
    assert appliance.stop() == 0, "with a host logged in"
    assert below_target() == []


@pytest.mark.guest(modules=MODULES, deadline_s=240)
def test_kills_under_load_cost_no_error_and_no_byte(guest: Guest, appliance: Appliance, tmp_path: Path) -> None:
    """R31: killed with -9 again and again under fio with verification; the host sees pauses and nothing else."""
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    load = subprocess.Popen(
        [
            *("fio", "--name=load", f"--filename={disk}", "--size=128M", "--rw=randrw", "--bsrange=4k-64k"),
            *("--ioengine=libaio", "--iodepth=32", "--direct=1", "--verify=crc32c", "--verify_backlog=256"),
            *("--verify_fatal=1", "--time_based", "--runtime=600", f"--output={tmp_path}/fio"),
        ]
    )
    for _ in range(KILLS):
        served = Path(f"/sys/block/{disk.name}/stat").read_text().split()[4]
        guest.until("write", lambda: Path(f"/sys/block/{disk.name}/stat").read_text().split()[4] != served or None)  # noqa: B023
        appliance.kill()
        appliance.start(*LIO)
    assert load.poll() is None, (tmp_path / "fio").read_text()
    load.terminate()
    load.wait(60)
    report = (tmp_path / "fio").read_text()
    assert "err= 0" in report, report
    assert errors_of(guest) == []
    guest.sh(f"fio --name=all --filename={disk} --rw=write --bs=256k --direct=1 --verify=crc32c --size=64M")


@in_guest
def test_a_reservation_outlives_a_clean_stop(guest: Guest, appliance: Appliance) -> None:
    """R31: as APTPL promises (SPC-4 clause 5.12), with its holder, its type, and whom it keeps out."""
    appliance.say("/hosts", "create", "name=other", f"iqn={OTHER}")
    appliance.say("/volumes/db", "expose", "host=other")
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    guest.sh(f"sg_persist --out --register --param-sark=abc123 --param-aptpl {disk}")
    guest.sh(f"sg_persist --out --reserve --param-rk=abc123 --prout-type=5 {disk}")
    before = guest.sh(f"sg_persist --in --read-full-status {disk}")
    assert "Reservation holder >>\n      scope: LU_SCOPE,  type: Write Exclusive, registrants only" in before
    guest.log_out(IQN)
    assert appliance.stop() == 0
    assert below_target() == []
    appliance.start(*LIO)
    interface = "iscsiadm --mode iface --interface other"
    guest.sh(f"{interface} --op new && {interface} --op update --name iface.initiatorname --value {OTHER}")
    node = f"iscsiadm --mode node --targetname {IQN} --portal 127.0.0.1:3260 --interface other"
    guest.sh(f"{node} --op new && {node} --login")
    disk = guest.iscsi_disk(IQN)
    after = guest.sh(f"sg_persist --in --read-full-status {disk}")
    assert after.partition("Key=")[2] == before.partition("Key=")[2] != ""
    guest.fails(f"dd if=/dev/zero of={disk} bs=4k count=1 oflag=direct")
    assert "reservation conflict" in guest.sh("dmesg")
    guest.sh(f"dd if={disk} of=/dev/null bs=4k count=1 iflag=direct")


@in_guest
def test_what_the_unit_leaves_it_is_enough(guest: Guest, appliance: Appliance) -> None:
    """R31: it takes over, serves and stops with the capabilities of packaging/tiergate.service, and no others."""
    kept = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)[0].lower().replace("cap_", "+")
    appliance.kill()
    guest.sh("truncate -s 64M /tmp/other.img && chown nobody /tmp/other.img && chmod 600 /tmp/other.img")
    state = ("--state", str(appliance.state), "--portal", "127.0.0.1:3260")
    line = ("setpriv", f"--bounding-set=-all,{kept.replace(' ', ',')}", "--inh-caps=-all", "--no-new-privs")
    service = guest.start(*line, TIERGATE, "serve", *state, *LIO)
    assert service.stdout is not None
    assert service.stdout.readline().startswith(b"ready")
    appliance.say("/alus", "attach", "path=/tmp/other.img", "name=other")
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    guest.sh(f"mkfs.ext4 -q {disk} && fsck.ext4 -fn {disk}")
    service.terminate()
    assert service.wait(30) == 0
    assert below_target() == []


@in_guest
def test_what_others_have_made_stays(guest: Guest, appliance: Appliance) -> None:
    """R31: a backstore and a target of somebody else, before, during and after."""
    theirs = guest.backstore(0, "theirs", 1 << 20)
    in_our_hba = next(TARGET.glob("core/user_5447*")) / "theirs"
    in_our_hba.mkdir()
    guest.iscsi_target("iqn.2026-11.example:theirs", theirs, "127.0.0.1:3261")
    appliance.kill()
    appliance.start(*LIO)
    assert appliance.stop() == 0
    assert below_target() == sorted(
        [str(in_our_hba.parent.relative_to(TARGET)), "core/user_0", "iscsi/iqn.2026-11.example:theirs"]
    )
    assert in_our_hba.is_dir()
    assert (TARGET / "iscsi/iqn.2026-11.example:theirs/tpgt_1/lun/lun_0/backstore").is_symlink()
