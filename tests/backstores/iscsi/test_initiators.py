"""Real initiators against the portal (R33): libiscsi's tools and QEMU."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstores.device import MemoryDevice
from backstores.iscsi.access import Account, Credentials
from tests.support.iscsi_client import Served, serving
from tests.support.iscsi_twins import TARGET, MemoryAccess

USER = Credentials("alice", b"alice's secret")
TARGET_USER = Credentials("disks", b"the disks' secret")
NAME = "iqn.2024-01.example:tool"
SIZE = 16 << 20


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def access() -> MemoryAccess:
    return MemoryAccess(MemoryDevice(SIZE // 512), accounts={"iqn.*": Account("host")}, targets_of={"host": (TARGET,)})


@pytest.fixture
def served(access: MemoryAccess) -> Iterator[Served]:
    with serving(access) as portal:
        yield portal


def portal_url(served: Served, login: str = "") -> str:
    host, port = served.address
    return f"iscsi://{login}{host}:{port}"


@needs("iscsi-ls")
def test_discovery_lists_the_target(served: Served) -> None:
    done = run("iscsi-ls", portal_url(served))
    assert done.stdout.startswith(f"Target:{TARGET} ")


@needs("iscsi-inq")
@pytest.mark.parametrize("digest", ["", "?header_digest=crc32c", "?header_digest=crc32c&data_digest=crc32c"])
def test_inquiry(served: Served, digest: str) -> None:
    done = run("iscsi-inq", served.url() + digest)
    assert "Vendor:TIERGATE" in done.stdout, done.stderr


@needs("iscsi-inq")
@pytest.mark.parametrize(
    ("login", "mutual", "good"),
    [
        pytest.param("alice%alice's secret@", "", True, id="right"),
        pytest.param("alice%wrong@", "", False, id="wrong secret"),
        pytest.param("bob%alice's secret@", "", False, id="wrong name"),
        pytest.param("", "", False, id="none"),
        pytest.param(
            "alice%alice's secret@", "?target_user=disks&target_password=the disks' secret", True, id="mutual"
        ),
        pytest.param("alice%alice's secret@", "?target_user=disks&target_password=wrong", False, id="mutual, wrong"),
    ],
)
def test_chap(served: Served, access: MemoryAccess, login: str, mutual: str, good: bool) -> None:
    """R33: libiscsi's CHAP and ours understand each other."""
    access.accounts["iqn.*"] = Account("host", USER, TARGET_USER)
    done = run("iscsi-inq", f"{portal_url(served, login)}/{TARGET}/0{mutual}")
    assert ("Vendor:TIERGATE" in done.stdout) is good, done.stderr


@needs("iscsi-ls")
def test_an_unknown_initiator_sees_nothing(served: Served) -> None:
    """S2."""
    done = run("iscsi-ls", "-i", "eui.0011223344556677", portal_url(served))
    assert TARGET not in done.stdout


@needs("qemu-img")
@pytest.mark.parametrize("immediate", [True, False], ids=["hot path", "general path"])
def test_an_image_goes_there_and_back(served: Served, access: MemoryAccess, tmp_path: Path, immediate: bool) -> None:
    """R33: QEMU's initiator."""
    assert isinstance(access.device, MemoryDevice)
    access.device.immediate = immediate
    image, back = tmp_path / "image", tmp_path / "back"
    image.write_bytes(random.Random(5).randbytes(SIZE))
    there = run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), served.url())
    assert there.returncode == 0, there.stderr
    assert access.device.content == image.read_bytes()
    again = run("qemu-img", "convert", "-f", "raw", "-O", "raw", served.url(), str(back))
    assert again.returncode == 0, again.stderr
    assert back.read_bytes() == image.read_bytes()
