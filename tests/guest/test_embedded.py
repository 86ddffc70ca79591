"""The embedded portal against open-iscsi, in a guest kernel (R32, R33)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.inside import Guest
from tests.support.appliance import Appliance

IQN = "iqn.2026-11.example.tiergate:embedded"
WEB = "iqn.2026-11.example.tiergate:guest"
EMBEDDED = ("--frontend", "embedded", "--iqn", IQN)
SECRET, MUTUAL = "geheim-und-lang", "auch-geheim-und-lang"
AUTH = "node.session.auth"
DIGESTS = ("node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C")

in_guest = pytest.mark.guest(modules=["iscsi_tcp", "sd_mod", "ext4"])


@pytest.fixture
def appliance(guest: Guest, tmp_path: Path) -> Iterator[Appliance]:
    """An appliance that serves ``db``, a stripe of mirrors on four files, by its own portal."""
    found = Appliance(tmp_path, port=3260)
    found.start(*EMBEDDED)
    try:
        found.show_volume("db", "200M", host="web", iqn=WEB)
        guest.start_initiator(WEB)
        yield found
    finally:
        found.kill()


@in_guest
def test_open_iscsi_keeps_a_file_system_on_it_over_log_out_and_kill(guest: Guest, appliance: Appliance) -> None:
    """R32, R33: mkfs, copy, a kill -9 that the host sees as a pause, log in again with digests, fsck, compare."""
    guest.log_in(IQN)
    disk = guest.iscsi_disk(IQN)
    assert Path(f"/sys/block/{disk.name}/device/wwid").read_text().strip().startswith("naa.6")
    guest.sh(f"mkfs.ext4 -q -F {disk} && mount {disk} /mnt && cp -a /usr/lib/python3.11/. /mnt")
    appliance.kill()
    appliance.start(*EMBEDDED)
    guest.sh("sync -f /mnt && umount /mnt")
    guest.log_out(IQN)
    guest.log_in(IQN, settings=DIGESTS)
    [connection] = Path("/sys/class/iscsi_connection").iterdir()
    assert [(connection / name).read_text() for name in ("header_digest", "data_digest")] == ["1\n", "1\n"]
    disk = guest.iscsi_disk(IQN)
    guest.sh(f"fsck.ext4 -fn {disk} && mount -o ro {disk} /mnt")
    guest.sh("diff -r --no-dereference /usr/lib/python3.11 /mnt -x lost+found && umount /mnt")
    guest.log_out(IQN)
    assert guest.kernel_lines("I/O error|medium error") == []


@in_guest
def test_open_iscsi_and_the_portal_prove_themselves_to_each_other(
    guest: Guest, appliance: Appliance, tmp_path: Path
) -> None:
    """R33: CHAP in both directions; wrong secrets get nowhere."""
    for name, secret in (("secret", SECRET), ("mutual", MUTUAL)):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    appliance.say(
        *("/hosts/web", "set-chap", "chap-user=web", f"chap-secret-file={tmp_path}/secret"),
        *("mutual-user=target", f"mutual-secret-file={tmp_path}/mutual"),
    )
    one_way = (f"{AUTH}.authmethod=CHAP", f"{AUTH}.username=web", f"{AUTH}.password={SECRET}")
    both_ways = (*one_way, f"{AUTH}.username_in=target", f"{AUTH}.password_in={MUTUAL}")
    with pytest.raises(AssertionError, match="authorization failure"):
        guest.log_in(IQN)
    with pytest.raises(AssertionError, match="authorization failure"):
        guest.log_in(IQN, settings=(*one_way[:2], f"{AUTH}.password=wrong-and-long"))
    with pytest.raises(AssertionError, match="iscsiadm"):
        guest.log_in(IQN, settings=(*both_ways[:4], f"{AUTH}.password_in=wrong-and-long"))
    guest.log_in(IQN, settings=both_ways)
    guest.iscsi_disk(IQN)
    [session] = appliance.say("/sessions", "list")
    assert (session["host"], session["initiator"], session["luns"]) == ("web", WEB, [0])
    assert SECRET not in appliance.log
    assert MUTUAL not in appliance.log
