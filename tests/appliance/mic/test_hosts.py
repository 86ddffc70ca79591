"""Hosts and their CHAP secrets (R33, S2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backstores.errors import UsageError
from tests.appliance.mic.conftest import Site

SECRET, MUTUAL = "first secret of all", "second secret of all"


def secret_file(folder: Path, name: str, content: bytes, mode: int = 0o600) -> str:
    """Write a secret's file and give its path."""
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The files of a secret for each direction."""
    return secret_file(tmp_path, "s", SECRET.encode() + b"\n"), secret_file(tmp_path, "m", MUTUAL.encode())


def test_a_host_of_any_initiator_is_shown_as_open(site: Site) -> None:
    outcome = site.do("/hosts", "create", name="h", iqn="*")
    assert outcome.notes == ("host h is open: any initiator may log in as it",)
    assert site.do("/hosts/h", "info").iqn == "* (open)"


def test_chap_secrets_reach_the_storage_processor_without_the_line_end(site: Site, files: tuple[str, str]) -> None:
    """R33: CHAP and mutual CHAP."""
    site.do(
        "/hosts", "create", name="h", iqn="iqn.2026-01.a:b",
        chap_user="alice", chap_secret_file=files[0], mutual_user="box", mutual_secret_file=files[1],
    )  # fmt: skip
    (host,) = site.sp.hosts
    assert (host.chap_user, host.chap_secret, host.mutual_user, host.mutual_secret) == ("alice", SECRET, "box", MUTUAL)
    assert site.do("/hosts/h", "info").chap == "mutual CHAP as alice"


def test_chap_is_set_and_cleared_later(site: Site, files: tuple[str, str]) -> None:
    site.do("/hosts", "create", name="h", iqn="iqn.2026-01.a:b")
    site.do("/hosts/h", "set-chap", chap_user="alice", chap_secret_file=files[0])
    assert site.do("/hosts/h", "info").chap == "CHAP as alice"
    site.do("/hosts/h", "clear-chap")
    assert site.sp.hosts[0].chap_secret == ""
    assert not site.do("/hosts/h", "clear-chap").changed


@pytest.mark.parametrize(
    ("content", "mode", "named"),
    [
        (b"elevenbytes\n", 0o600, "has 11 bytes, it needs 12 to 255"),
        (b"", 0o600, "has 0 bytes"),
        (b"x" * 256, 0o600, "has 256 bytes"),
        (b"x" * 5000, 0o600, "it needs 12 to 255"),
        (b"twelve bytes\nand more", 0o600, "not printable"),
        (b"twelve\0bytes and more", 0o600, "not printable"),
        ("zwölf und mehr".encode(), 0o600, "beyond ASCII"),
        (b"twelve bytes or more", 0o644, "has mode 644, others can read it: chmod 600"),
        (b"twelve bytes or more", 0o640, "has mode 640"),
        (b"twelve bytes or more", 0o602, "has mode 602"),
    ],
)
def test_an_unfit_secret_is_refused_and_never_shown(
    site: Site, tmp_path: Path, content: bytes, mode: int, named: str
) -> None:
    """S2: nothing of a secret in an error line."""
    path = secret_file(tmp_path, "s", content, mode)
    with pytest.raises(UsageError) as refused:
        site.do("/hosts", "create", name="h", iqn="*", chap_user="u", chap_secret_file=path)
    assert named in str(refused.value)
    assert path in str(refused.value)
    assert "twelve" not in str(refused.value)
    assert site.do("/hosts", "list") == ()


def test_what_is_no_file_is_refused_at_once(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(UsageError, match="no regular file"):
        site.do("/hosts", "create", name="h", iqn="*", chap_user="u", chap_secret_file=str(tmp_path / "fifo"))


def test_one_secret_for_both_directions_is_refused(site: Site, files: tuple[str, str]) -> None:
    """RFC 7143, 9.2.1: or an initiator could make the target answer its own challenge."""
    with pytest.raises(UsageError, match="secrets of the two directions are equal"):
        site.do(
            "/hosts", "create", name="h", iqn="*",
            chap_user="u", chap_secret_file=files[0], mutual_user="m", mutual_secret_file=files[0],
        )  # fmt: skip


def test_mutual_chap_alone_is_refused(site: Site, files: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="takes chap-user and chap-secret-file, too"):
        site.do("/hosts", "create", name="h", iqn="*", mutual_user="m", mutual_secret_file=files[1])


def test_the_url_of_a_host_with_chap_has_its_user_and_no_secret(furnished: Site, files: tuple[str, str]) -> None:
    furnished.do("/hosts/web1", "set-chap", chap_user="alice", chap_secret_file=files[0])
    info = furnished.do("/volumes/db", "info")
    assert info.iscsi_urls == ("iscsi://alice%@127.0.0.1:3260/iqn.2026-01.org.tiergate:fake/0",)


def test_a_host_that_sees_volumes_is_deleted_only_by_force(furnished: Site) -> None:
    with pytest.raises(UsageError, match="sees volume db"):
        furnished.do("/hosts/web1", "delete")
    furnished.do("/hosts/web1", "delete", force="yes")
    assert furnished.sp.exposures == ()
    assert [host.name for host in furnished.sp.hosts] == ["any"]
